//! Twin of `guidance`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::guidance::{Params, guidance as record_guidance};

/// The first half of `input` plus `scale` times the way to the second; `input` itself without a scale.
#[must_use]
pub fn guidance(input: &[f64], scale: Option<f64>) -> Vec<f64> {
    let Some(scale) = scale else { return input.to_vec() };
    let (without, with) = input.split_at(input.len() / 2);
    without.iter().zip(with).map(|(without, with)| without + scale * (with - without)).collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let scale = operands.flag("GUIDED").then_some(f64::from(params.scale));
    vec![("output", guidance(operands.input("input"), scale))]
}

fn case(name: &'static str, shape: [usize; 4], scale: Option<f32>) -> Case {
    Case {
        name,
        inputs: vec![Input::random(shape, Role::Element, 1.0, 1)],
        record: Box::new(move |recording, tensors| record_guidance(recording, &tensors[0], scale)),
        expected: Box::new(move |values| guidance(&values[0], scale.map(f64::from))),
        terms: 3,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("one image", [2, 8, 8, 4], Some(7.5)),
        case("two images, primes", [4, 7, 13, 3], Some(1.3)),
        case("scale of zero", [2, 3, 3, 4], Some(0.0)),
        case("conversion", [3, 5, 5, 4], None),
        case("one value", [2, 1, 1, 1], Some(-2.0)),
    ]
}
