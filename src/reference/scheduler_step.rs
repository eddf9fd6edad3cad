//! Twin of `scheduler_step`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::activation::{Activation, activation};
use crate::kernels::scheduler_step::{Params, row_length, scheduler_step as record_scheduler_step};

/// The new state, plane by plane, from the old one and one row of the table; `thresholds` are one per image.
#[must_use]
pub fn scheduler_step(
    state: &[f64],
    model_output: &[f64],
    noise: Option<&[f64]>,
    thresholds: Option<&[f64]>,
    row: &[f64],
) -> Vec<f64> {
    let count = model_output.len();
    let rows = state.len() / count;
    let matrix = &row[4..];
    let mut new = vec![0.0; state.len()];
    for index in 0..count {
        let (sample, output) = (state[index], model_output[index]);
        let range = row[3];
        let prediction = row[1] * sample + row[2] * output;
        let prediction = match thresholds {
            _ if range > 0.0 => prediction.clamp(-range, range),
            Some(thresholds) if range < 0.0 => {
                let bound = thresholds[index * thresholds.len() / count];
                prediction.clamp(-bound, bound) / bound
            }
            _ => 0.0,
        };
        let mut column = vec![sample, output, noise.map_or(0.0, |noise| noise[index]), prediction];
        column.extend((1..rows).map(|plane| state[plane * count + index]));
        for (plane, weights) in matrix.chunks(column.len()).enumerate() {
            new[plane * count + index] =
                weights.iter().zip(&column).map(|(weight, value)| weight * value).sum();
        }
    }
    new
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the step is a whole number")]
pub(crate) fn table_row<'a>(table: &'a [f64], step: &[f64], length: usize) -> &'a [f64] {
    &table[step[0] as usize * length..][..length]
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let length = row_length(params.history as usize);
    let row = table_row(operands.input("table"), operands.input("step"), length);
    let noise = operands.flag("HAS_NOISE").then(|| operands.input("noise"));
    let thresholds = operands.flag("HAS_THRESHOLD").then(|| operands.input("threshold"));
    let (state, output) = (operands.input("state"), operands.input("model_output"));
    vec![("state", scheduler_step(state, output, noise, thresholds, row))]
}

fn case(
    name: &'static str,
    shape: [usize; 4],
    history: usize,
    range: f64,
    [has_noise, has_threshold]: [bool; 2],
) -> Case {
    let count = shape.iter().product();
    let length = row_length(history);
    let mut table = Input::random([3, length], Role::Float, 1.0, 3);
    for row in table.values.chunks_mut(length) {
        row[3] = range;
    }
    let mut inputs = vec![
        Input::random([1 + history, count], Role::Float, 1.0, 1),
        Input::random(shape, Role::Float, 1.0, 2),
        table,
        Input::given([1], Role::Index, vec![2.0]),
    ];
    if has_noise {
        inputs.push(Input::random(shape, Role::Float, 1.0, 4));
    }
    if has_threshold {
        let bounds = (0..).take(shape[0]).map(|image: u16| 1.0 + 0.25 * f64::from(image)).collect();
        inputs.push(Input::given([shape[0]], Role::Float, bounds));
    }
    let noise_at = has_noise.then_some(4);
    let threshold_at = has_threshold.then_some(4 + usize::from(has_noise));
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            // The state is updated in place: the update is made to a copy, so that inputs stay inputs.
            let state = activation(recording, &tensors[0], Activation::None)?;
            let [output, table, step] = [&tensors[1], &tensors[2], &tensors[3]];
            let optional = [noise_at, threshold_at].map(|at| at.map(|at| &tensors[at]));
            record_scheduler_step(recording, &state, output, optional, table, step)?;
            Ok(state)
        }),
        expected: Box::new(move |values| {
            let row = table_row(&values[2], &values[3], length);
            let [noise, thresholds] = [noise_at, threshold_at].map(|at| at.map(|at| &values[at][..]));
            scheduler_step(&values[0], &values[1], noise, thresholds, row)
        }),
        terms: 4 + history,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("no history", [1, 8, 8, 4], 0, 0.0, [false, false]),
        case("noise", [2, 8, 8, 4], 0, 0.0, [true, false]),
        case("clamped prediction, primes", [1, 7, 11, 3], 1, 0.7, [true, false]),
        case("most history", [1, 5, 5, 4], 8, 1.0, [true, false]),
        case("one value", [1, 1, 1, 1], 3, 0.0, [false, false]),
        case("thresholds of two images", [2, 7, 5, 3], 2, -1.0, [true, true]),
        case("a threshold, no noise", [1, 8, 8, 3], 0, -1.0, [false, true]),
        case("a threshold that is not asked for", [1, 3, 3, 3], 1, 0.0, [false, true]),
    ]
}
