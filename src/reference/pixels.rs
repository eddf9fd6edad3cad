//! Twin of `pixels`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::pixels::{Params, pixels as record_pixels};

/// Bytes of three channels and 255, as one little-endian number a pixel; one channel is grey.
///
/// The arithmetic is f32's: there the product may fall on a half that it misses in f64.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "f32 by definition")]
pub fn pixels(image: &[f64], channels: usize) -> Vec<f64> {
    let byte = |value: f64| {
        let unit = value as f32 * 0.5 + 0.5;
        if unit.is_nan() { 0.0 } else { f64::from((unit.clamp(0.0, 1.0) * 255.0).round_ties_even()) }
    };
    image
        .chunks(channels)
        .map(|pixel| {
            let [red, green, blue] = [0, 1, 2].map(|index: usize| byte(pixel[index.min(channels - 1)]));
            red + 256.0 * (green + 256.0 * (blue + 256.0 * 255.0))
        })
        .collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    vec![("output", pixels(operands.input("image"), params.channels as usize))]
}

fn case(name: &'static str, image: Input) -> Case {
    let channels = image.shape.channels();
    Case {
        name,
        inputs: vec![image],
        record: Box::new(|recording, tensors| record_pixels(recording, &tensors[0])),
        expected: Box::new(move |values| pixels(&values[0], channels)),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let halves = (0..=255).chain(0..=255).chain(0..=255).map(|k| (2.0 * f64::from(k) + 1.0) / 255.0 - 1.0);
    let strange = vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1.0, 0.0, -5.0, 5.0, -0.999];
    vec![
        case("two images", Input::random([2, 16, 16, 3], Role::Element, 0.6, 1)),
        case("one pixel", Input::random([1, 1, 1, 3], Role::Element, 0.6, 2)),
        case("primes, tail", Input::random([1, 7, 13, 3], Role::Element, 0.6, 3)),
        case("grey, primes", Input::random([2, 5, 11, 1], Role::Element, 0.6, 4)),
        case("around halves", Input::given([1, 16, 16, 3], Role::Element, halves.collect())),
        case("not numbers, infinities, ends", Input::given([1, 1, 3, 3], Role::Element, strange)),
    ]
}
