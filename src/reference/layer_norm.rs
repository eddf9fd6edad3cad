//! Twin of `layer_norm`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::Affine;
use crate::kernels::layer_norm::{Params, layer_norm as record_layer_norm};

/// Normalises each row of `weight.len()` values, then scales and shifts.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn layer_norm(input: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let mut output = Vec::with_capacity(input.len());
    for row in input.chunks(weight.len()) {
        let count = row.len() as f64;
        let mean = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        for (channel, value) in row.iter().enumerate() {
            output.push((value - mean) / (variance + epsilon).sqrt() * weight[channel] + bias[channel]);
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let (input, weight, bias) = (operands.input("input"), operands.input("weight"), operands.input("bias"));
    vec![("output", layer_norm(input, weight, bias, f64::from(params.epsilon)))]
}

fn case(name: &'static str, input: Input) -> Case {
    const EPSILON: f32 = 1e-5;
    let channels = input.shape.channels();
    Case {
        name,
        inputs: vec![
            input,
            Input::random([channels], Role::Float, 1.0, 21),
            Input::random([channels], Role::Float, 1.0, 22),
        ],
        record: Box::new(|recording, tensors| {
            let affine = Affine { weight: tensors[1].clone(), bias: tensors[2].clone() };
            record_layer_norm(recording, &tensors[0], &affine, EPSILON)
        }),
        expected: Box::new(|values| layer_norm(&values[0], &values[1], &values[2], f64::from(EPSILON))),
        terms: channels,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut far = Input::random([4, 100], Role::Element, 1.0, 5);
    far.values.iter_mut().for_each(|value| *value += 1000.0);
    vec![
        case("plain", Input::random([2, 16, 64], Role::Element, 2.0, 1)),
        case("one row", Input::random([1, 768], Role::Element, 1.0, 2)),
        case("one value", Input::random([1, 1], Role::Element, 1.0, 3)),
        case("rows of one channel", Input::random([131, 1], Role::Element, 1.0, 4)),
        case("mean of 1000", far),
        case("primes, tail", Input::random([3, 7, 101], Role::Element, 1.0, 6)),
        case("more rows than one grid dimension", Input::random([65_537, 2], Role::Element, 1.0, 7)),
        case("constant", Input::given([2, 65], Role::Element, vec![-7.25; 130])),
    ]
}
