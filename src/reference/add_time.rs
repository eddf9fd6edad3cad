//! Twin of `add_time`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::add_time::{Params, add_time as record_add_time};
use crate::kernels::conv2d::TimeRow;

/// `input [images, P, channels]` with row `step * images + n` of the table added to every pixel of image `n`.
#[must_use]
pub fn add_time(input: &[f64], table: &[f64], step: usize, [images, channels]: [usize; 2]) -> Vec<f64> {
    let mut output = input.to_vec();
    let image = input.len() / images;
    for (n, values) in output.chunks_exact_mut(image).enumerate() {
        let row = &table[(step * images + n) * channels..][..channels];
        for pixel in values.chunks_exact_mut(channels) {
            pixel.iter_mut().zip(row).for_each(|(value, time)| *value += time);
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let [images, channels] = [params.count / params.image, params.channels].map(|extent| extent as usize);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a u32 stored as f64")]
    let step = operands.input("step")[0] as usize;
    let output = add_time(operands.input("input"), operands.input("table"), step, [images, channels]);
    vec![("output", output)]
}

fn case(name: &'static str, shape: [usize; 4], steps: usize, step: usize) -> Case {
    let [images, .., channels] = shape;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let index = step as f64;
    Case {
        name,
        inputs: vec![
            Input::random(shape, Role::Element, 1.0, 1),
            Input::random([steps * images, channels], Role::Element, 3.0, 2),
            Input::given([1], Role::Index, vec![index]),
        ],
        record: Box::new(|recording, tensors| {
            record_add_time(recording, &tensors[0], TimeRow { table: &tensors[1], step: &tensors[2] })
        }),
        expected: Box::new(move |values| add_time(&values[0], &values[1], step, [images, channels])),
        terms: 2,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("two images, the last of three steps", [2, 8, 8, 4], 3, 2),
        case("one value", [1, 1, 1, 1], 1, 0),
        case("primes, tail", [3, 7, 11, 13], 5, 1),
    ]
}
