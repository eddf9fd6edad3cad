//! Twin of `geglu`.

use super::activation::activate;
use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::activation::Activation;
use crate::kernels::geglu::{Params, geglu as record_geglu};

/// Each row of `2 * channels` values: the first half times gelu of the second.
#[must_use]
pub fn geglu(input: &[f64], channels: usize) -> Vec<f64> {
    let gelu = |x: f64| activate(f64::from(Activation::Gelu.code()), x);
    let mut output = Vec::with_capacity(input.len() / 2);
    for row in input.chunks(2 * channels) {
        output.extend((0..channels).map(|channel| row[channel] * gelu(row[channels + channel])));
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    vec![("output", geglu(operands.input("input"), params.channels as usize))]
}

fn case(name: &'static str, input: Input) -> Case {
    let channels = input.shape.channels() / 2;
    Case {
        name,
        inputs: vec![input],
        record: Box::new(|recording, tensors| record_geglu(recording, &tensors[0])),
        expected: Box::new(move |values| geglu(&values[0], channels)),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("two images", Input::random([2, 16, 64], Role::Element, 2.0, 1)),
        case("one channel", Input::random([5, 2], Role::Element, 2.0, 2)),
        case("primes, tail", Input::random([3, 7, 26], Role::Element, 1.0, 3)),
        case("tails", Input::given([3, 2], Role::Element, vec![2.0, -9.0, 3.0, 9.0, 5.0, 0.0])),
    ]
}
