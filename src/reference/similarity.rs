//! Twin of `similarity`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::similarity::{GROUPS, Params, similarity as record_similarity};
use crate::tensor::ElementType;

/// Values of a block.
const BLOCK: usize = 64;

/// Partial sums of `left · right`, `left · left`, `right · right` and `|left - right|²` of every group.
#[must_use]
pub fn similarity(left: &[f64], right: &[f64], groups: usize) -> Vec<f64> {
    let mut sums = vec![0.0; 4 * groups];
    for (index, (a, b)) in left.iter().zip(right).enumerate() {
        let group = index / BLOCK % groups;
        for (sum, term) in sums[4 * group..].iter_mut().zip([a * b, a * a, b * b, (a - b) * (a - b)]) {
            *sum += term;
        }
    }
    sums
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let groups = params.groups as usize;
    let mut output = vec![0.0; operands.count("output")];
    if let Some(old) = operands.stored("output") {
        output.copy_from_slice(old);
    }
    let sums = similarity(operands.input("left"), operands.input("right"), groups);
    output[4 * groups * params.row as usize..][..4 * groups].copy_from_slice(&sums);
    vec![("output", output)]
}

/// Row 0 holds the first tensor beside the second, row 1 the second beside itself.
fn case(name: &'static str, shape: &[usize], deviation: f64) -> Case {
    let count: usize = shape.iter().product();
    Case {
        name,
        inputs: vec![
            Input::random(shape, Role::Element, deviation, 1),
            Input::random(shape, Role::Element, deviation, 2),
        ],
        record: Box::new(|recording, tensors| {
            let output = recording.transient([2, GROUPS, 4], ElementType::F32);
            record_similarity(recording, &tensors[0], &tensors[1], &output, 0)?;
            record_similarity(recording, &tensors[1], &tensors[1], &output, 1)?;
            Ok(output)
        }),
        expected: Box::new(|values| {
            let mut rows = similarity(&values[0], &values[1], GROUPS);
            rows.extend(similarity(&values[1], &values[1], GROUPS));
            rows
        }),
        terms: count.div_ceil(GROUPS),
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("an image of both halves", &[2, 16, 16, 32], 1.0),
        case("one value", &[1], 2.0),
        case("fewer values than groups", &[5, 7], 1.0),
        case("one value more than a round", &[GROUPS * BLOCK + 1], 1.0),
        case("primes, small values", &[3, 101, 103], 0.01),
    ]
}
