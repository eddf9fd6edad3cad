//! Twin of `emphasis`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::emphasis::{Params, emphasis as record_emphasis};

/// `input [N + 1, T, C]` without its last image, every token `weight [N, T]` times as far from that image.
#[must_use]
pub fn emphasis(input: &[f64], weight: &[f64], channels: usize) -> Vec<f64> {
    let (prompts, empty) = input.split_at(weight.len() * channels);
    let mut output = prompts.to_vec();
    for image in output.chunks_exact_mut(empty.len()) {
        image.iter_mut().zip(empty).for_each(|(value, empty)| *value -= empty);
    }
    for (token, weight) in output.chunks_exact_mut(channels).zip(weight) {
        token.iter_mut().for_each(|value| *value *= weight);
    }
    for image in output.chunks_exact_mut(empty.len()) {
        image.iter_mut().zip(empty).for_each(|(value, empty)| *value += empty);
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let output = emphasis(operands.input("input"), operands.input("weight"), params.channels as usize);
    vec![("output", output)]
}

fn case(name: &'static str, [images, tokens, channels]: [usize; 3]) -> Case {
    Case {
        name,
        inputs: vec![
            Input::random([images + 1, tokens, channels], Role::Element, 1.0, 1),
            Input::random([images, tokens], Role::Float, 1.5, 2),
        ],
        record: Box::new(|recording, tensors| record_emphasis(recording, &tensors[0], &tensors[1])),
        expected: Box::new(move |values| emphasis(&values[0], &values[1], channels)),
        terms: 3,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let plain = [3, 5, 4];
    let ones = Case {
        inputs: vec![
            Input::random([4, 5, 4], Role::Element, 1.0, 3),
            Input::given([3, 5], Role::Float, vec![1.0; 15]),
        ],
        ..case("weights of one change nothing", plain)
    };
    vec![
        case("one prompt", [1, 77, 8]),
        case("two prompts, primes, tail", [2, 7, 13]),
        case("one value", [1, 1, 1]),
        ones,
    ]
}
