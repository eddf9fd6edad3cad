//! Twin of `dynamic_threshold`.

use super::case::{Case, Input, Role};
use super::scheduler_step::table_row;
use super::{Operands, Outputs};
use crate::kernels::dynamic_threshold::{Params, dynamic_threshold as record_dynamic_threshold};
use crate::kernels::scheduler_step::row_length;

/// For every image of `count` values the quantile `ratio` of the predictions' magnitudes, from 1 to `most`.
///
/// `row` is a row of the scheduler's table. The place between two ranks is f32's.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks are whole numbers")]
#[expect(clippy::cast_precision_loss, reason = "f32 by definition")]
pub fn dynamic_threshold(
    sample: &[f64],
    model_output: &[f64],
    row: &[f64],
    count: usize,
    [ratio, most]: [f32; 2],
) -> Vec<f64> {
    let predictions: Vec<f64> = sample
        .iter()
        .zip(model_output)
        .map(|(sample, output)| (row[1] * sample + row[2] * output).abs())
        .collect();
    let place = ratio * (count - 1) as f32;
    predictions
        .chunks(count)
        .map(|image| {
            let mut sorted = image.to_vec();
            sorted.sort_by(f64::total_cmp);
            let rank = place.floor() as usize;
            let (low, high) = (sorted[rank], sorted[(rank + 1).min(count - 1)]);
            (low + f64::from(place - place.floor()) * (high - low)).clamp(1.0, f64::from(most))
        })
        .collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let row = table_row(operands.input("table"), operands.input("step"), params.row_length as usize);
    let (state, output) = (operands.input("state"), operands.input("model_output"));
    let sample = &state[..output.len()];
    let limits = [params.ratio, params.most];
    vec![("threshold", dynamic_threshold(sample, output, row, params.count as usize, limits))]
}

fn case(name: &'static str, shape: [usize; 4], history: usize, limits: [f32; 2], inputs: [Input; 2]) -> Case {
    let total: usize = shape.iter().product();
    let length = row_length(history);
    let [sample, output] = inputs;
    let mut state = Input::random([1 + history, total], Role::Float, 1.0, 1);
    state.values[..total].copy_from_slice(&sample.values);
    Case {
        name,
        inputs: vec![
            state,
            output,
            Input::random([3, length], Role::Float, 1.0, 3),
            Input::given([1], Role::Index, vec![2.0]),
        ],
        record: Box::new(move |recording, tensors| {
            let [state, output, table, step] = [&tensors[0], &tensors[1], &tensors[2], &tensors[3]];
            record_dynamic_threshold(recording, state, output, table, step, limits)
        }),
        expected: Box::new(move |values| {
            let row = table_row(&values[2], &values[3], length);
            dynamic_threshold(&values[0][..total], &values[1], row, total / shape[0], limits)
        }),
        terms: 2,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let random = |shape: [usize; 4], deviation: f64| {
        [1, 2].map(|seed| Input::random(shape, Role::Float, deviation, seed))
    };
    let zeros = |shape: [usize; 4]| {
        let values = vec![0.0; shape.iter().product()];
        [(); 2].map(|()| Input::given(shape, Role::Float, values.clone()))
    };
    let steps = |shape: [usize; 4]| {
        let count: usize = shape.iter().product();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let values = (0..count).map(|index| (index * 7919 % 13) as f64).collect();
        [Input::given(shape, Role::Float, values), Input::given(shape, Role::Float, vec![0.0; count])]
    };
    vec![
        case("an image", [1, 8, 8, 4], 0, [0.995, 100.0], random([1, 8, 8, 4], 3.0)),
        case("two images, history, primes", [2, 7, 11, 3], 3, [0.9, 100.0], random([2, 7, 11, 3], 5.0)),
        case("one value", [1, 1, 1, 1], 0, [0.995, 100.0], random([1, 1, 1, 1], 50.0)),
        case("two values", [1, 1, 1, 2], 0, [0.5, 100.0], random([1, 1, 1, 2], 50.0)),
        case("the largest", [1, 5, 5, 3], 1, [1.0, 1e6], random([1, 5, 5, 3], 20.0)),
        case("the smallest", [1, 5, 5, 3], 1, [0.0, 1e6], random([1, 5, 5, 3], 2000.0)),
        case("small values: at least 1", [1, 8, 8, 4], 0, [0.995, 100.0], random([1, 8, 8, 4], 0.01)),
        case("large values: at most so much", [1, 8, 8, 4], 0, [0.995, 1.5], random([1, 8, 8, 4], 40.0)),
        case("all zero", [1, 4, 4, 4], 0, [0.5, 100.0], zeros([1, 4, 4, 4])),
        case("few different values", [1, 16, 16, 3], 0, [0.75, 100.0], steps([1, 16, 16, 3])),
        case("a picture", [1, 128, 128, 3], 0, [0.995, 100.0], random([1, 128, 128, 3], 2.0)),
    ]
}
