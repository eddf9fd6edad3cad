//! Twin of `forecast`.

use super::case::{Case, Input, Role};
use super::scheduler_step::table_row;
use super::{Operands, Outputs};
use crate::kernels::forecast::{WEIGHTS, forecast as record_forecast};

/// The weighted sum of the features, of which those without weight are not looked at.
#[must_use]
pub fn forecast(features: &[&[f64]], weights: &[f64]) -> Vec<f64> {
    let mut output = vec![0.0; features[0].len()];
    for (feature, weight) in features.iter().zip(weights).filter(|(_, weight)| **weight != 0.0) {
        for (sum, value) in output.iter_mut().zip(*feature) {
            *sum += weight * value;
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let weights = table_row(operands.input("table"), operands.input("step"), WEIGHTS);
    let mut features = vec![operands.input("newest"), operands.input("middle")];
    if operands.flag("HAS_OLDEST") {
        features.push(operands.input("oldest"));
    }
    vec![("output", forecast(&features, weights))]
}

fn case(name: &'static str, shape: &[usize], count: usize, weights: [f64; WEIGHTS]) -> Case {
    let mut table = Input::random([3, WEIGHTS], Role::Float, 1.0, 9);
    table.values[WEIGHTS..2 * WEIGHTS].copy_from_slice(&weights);
    let mut inputs = vec![table, Input::given([1], Role::Index, vec![1.0])];
    for (position, seed) in (0..count).zip(1..) {
        let mut feature = Input::random(shape, Role::Element, 1.0, seed);
        if weights[position] == 0.0 {
            feature.values.fill(f64::NAN);
        }
        inputs.push(feature);
    }
    Case {
        name,
        inputs,
        record: Box::new(|recording, tensors| {
            record_forecast(recording, &tensors[2..], &tensors[0], &tensors[1])
        }),
        expected: Box::new(|values| {
            let features: Vec<&[f64]> = values[2..].iter().map(Vec::as_slice).collect();
            forecast(&features, table_row(&values[0], &values[1], WEIGHTS))
        }),
        terms: count,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("linear, both halves", &[2, 16, 16, 32], 2, [1.5, -0.5, 0.0]),
        case("quadratic, primes", &[1, 7, 13, 3], 3, [2.5, -2.0, 0.5]),
        case("held, nothing else is there yet", &[1, 5, 5, 8], 3, [1.0, 0.0, 0.0]),
        case("one value", &[1], 2, [2.0, -1.0, 0.0]),
        case("no third feature yet", &[2, 3, 65], 3, [3.0, -2.0, 0.0]),
    ]
}
