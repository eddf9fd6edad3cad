//! Twin of `blend_outside`.

use super::case::{Case, Input, Role};
use super::scheduler_step::table_row;
use super::{Operands, Outputs};
use crate::kernels::activation::{Activation, activation};
use crate::kernels::blend_outside::{Params, blend_outside as record_blend_outside};

/// The new state: in its first plane, what lies outside of the mask is `level[0] * clean + level[1] * noise`.
#[must_use]
pub fn blend_outside(
    state: &[f64],
    clean: &[f64],
    noise: &[f64],
    mask: &[f64],
    level: &[f64],
    channels: usize,
) -> Vec<f64> {
    let mut new = state.to_vec();
    for (index, value) in new[..clean.len()].iter_mut().enumerate() {
        let inside = mask[index / channels];
        *value = inside * *value + (1.0 - inside) * (level[0] * clean[index] + level[1] * noise[index]);
    }
    new
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let level = table_row(operands.input("levels"), operands.input("step"), 2);
    let [state, clean, noise, mask] = ["state", "clean", "noise", "mask"].map(|name| operands.input(name));
    vec![("state", blend_outside(state, clean, noise, mask, level, params.channels as usize))]
}

fn case(name: &'static str, shape: [usize; 4], history: usize) -> Case {
    let [images, height, width, channels] = shape;
    let count = shape.iter().product();
    let mut mask = Input::random([images, height, width, 1], Role::Float, 1.0, 4);
    // Inside, outside, and, as no mask is here but the formula knows, between.
    for (place, value) in mask.values.iter_mut().enumerate() {
        *value = [1.0, 0.0, 0.25][place % 3];
    }
    Case {
        name,
        inputs: vec![
            Input::random([1 + history, count], Role::Float, 1.0, 1),
            Input::random(shape, Role::Float, 1.0, 2),
            Input::random(shape, Role::Float, 1.0, 3),
            mask,
            Input::random([3, 2], Role::Float, 1.0, 5),
            Input::given([1], Role::Index, vec![1.0]),
        ],
        record: Box::new(move |recording, tensors| {
            // The state is changed in place: the change is made to a copy, so that inputs stay inputs.
            let state = activation(recording, &tensors[0], Activation::None)?;
            let [clean, noise, mask] = [&tensors[1], &tensors[2], &tensors[3]];
            record_blend_outside(recording, &state, [clean, noise, mask], &tensors[4], &tensors[5])?;
            Ok(state)
        }),
        expected: Box::new(move |values| {
            let level = table_row(&values[4], &values[5], 2);
            blend_outside(&values[0], &values[1], &values[2], &values[3], level, channels)
        }),
        terms: 3,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("no history", [1, 8, 8, 4], 0),
        case("history, primes", [1, 7, 11, 3], 3),
        case("two images", [2, 5, 3, 4], 1),
        case("one value", [1, 1, 1, 1], 8),
    ]
}
