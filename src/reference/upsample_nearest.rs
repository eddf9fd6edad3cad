//! Twin of `upsample_nearest`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::upsample_nearest::{Params, upsample_nearest as record_upsample_nearest};

/// `input [N, H, W, C]`, `from` is H and W, resized to `size`.
#[must_use]
pub fn upsample_nearest(input: &[f64], channels: usize, from: [usize; 2], size: [usize; 2]) -> Vec<f64> {
    let mut output = Vec::new();
    for image in input.chunks(from[0] * from[1] * channels) {
        for y in 0..size[0] {
            for x in 0..size[1] {
                let pixel = y * from[0] / size[0] * from[1] + x * from[1] / size[1];
                output.extend_from_slice(&image[pixel * channels..][..channels]);
            }
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let from = [params.input_height, params.input_width].map(|extent| extent as usize);
    let size = [params.height, params.width].map(|extent| extent as usize);
    vec![("output", upsample_nearest(operands.input("input"), params.channels as usize, from, size))]
}

fn case(name: &'static str, shape: [usize; 4], size: [usize; 2]) -> Case {
    let [_, height, width, channels] = shape;
    Case {
        name,
        inputs: vec![Input::random(shape, Role::Element, 1.0, 1)],
        record: Box::new(move |recording, tensors| record_upsample_nearest(recording, &tensors[0], size)),
        expected: Box::new(move |values| upsample_nearest(&values[0], channels, [height, width], size)),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("twice, two images", [2, 8, 8, 16], [16, 16]),
        case("one pixel", [1, 1, 1, 3], [5, 2]),
        case("no multiples", [2, 4, 5, 7], [7, 9]),
        case("smaller", [1, 13, 11, 3], [5, 7]),
        case("same size", [1, 3, 3, 2], [3, 3]),
    ]
}
