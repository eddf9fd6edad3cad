//! Twin of `scale_model_input`.

use super::case::{Case, Input, Role};
use super::scheduler_step::table_row;
use super::{Operands, Outputs};
use crate::kernels::scale_model_input::{
    Params, ParamsBeside, scale_model_input as record_scale_model_input,
};
use crate::tensor::ElementType;

/// `sample * scale`, `copies` times.
#[must_use]
pub fn scale_model_input(sample: &[f64], scale: f64, copies: usize) -> Vec<f64> {
    let scaled: Vec<f64> = sample.iter().map(|value| value * scale).collect();
    scaled.repeat(copies)
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let row = table_row(operands.input("table"), operands.input("step"), params.row_length as usize);
    let sample = &operands.input("state")[..params.count as usize];
    vec![("output", scale_model_input(sample, row[0], params.copies as usize))]
}

/// As [`scale_model_input`], with the channels of `beside` behind those of every pixel.
#[must_use]
pub fn scale_model_input_beside(
    sample: &[f64],
    scale: f64,
    beside: &[f64],
    [channels, more]: [usize; 2],
    copies: usize,
) -> Vec<f64> {
    let pixels = sample.chunks(channels).zip(beside.chunks(more));
    let values: Vec<f64> = pixels
        .flat_map(|(sample, beside)| {
            sample.iter().map(move |value| value * scale).chain(beside.iter().copied())
        })
        .collect();
    values.repeat(copies)
}

pub(crate) fn beside_twin(operands: &Operands<'_>) -> Outputs {
    let params: ParamsBeside = operands.params();
    let row = table_row(operands.input("table"), operands.input("step"), params.row_length as usize);
    let channels = [params.channels as usize, params.beside as usize];
    let pixels = params.count as usize / (channels[0] + channels[1]);
    let sample = &operands.input("state")[..pixels * channels[0]];
    let beside = operands.input("beside");
    vec![("output", scale_model_input_beside(sample, row[0], beside, channels, params.copies as usize))]
}

fn case_beside(
    name: &'static str,
    shape: [usize; 4],
    more: usize,
    copies: usize,
    element: ElementType,
) -> Case {
    let [_, height, width, channels] = shape;
    let count = shape.iter().product();
    Case {
        name,
        inputs: vec![
            Input::random([3, count], Role::Float, 1.0, 1),
            Input::random([4, 9], Role::Float, 1.0, 2),
            Input::given([1], Role::Index, vec![2.0]),
            Input::random([1, height, width, more], Role::Float, 1.0, 3),
        ],
        record: Box::new(move |recording, tensors| {
            let own = [&tensors[0], &tensors[1], &tensors[2]];
            record_scale_model_input(recording, own, Some(&tensors[3]), shape, copies, element)
        }),
        expected: Box::new(move |values| {
            let row = table_row(&values[1], &values[2], 9);
            scale_model_input_beside(&values[0][..count], row[0], &values[3], [channels, more], copies)
        }),
        terms: 1,
    }
}

fn case(name: &'static str, shape: [usize; 4], history: usize, copies: usize, element: ElementType) -> Case {
    let count = shape.iter().product();
    Case {
        name,
        inputs: vec![
            Input::random([1 + history, count], Role::Float, 1.0, 1),
            Input::random([4, 9], Role::Float, 1.0, 2),
            Input::given([1], Role::Index, vec![3.0]),
        ],
        record: Box::new(move |recording, tensors| {
            let [state, table, step] = [&tensors[0], &tensors[1], &tensors[2]];
            record_scale_model_input(recording, [state, table, step], None, shape, copies, element)
        }),
        expected: Box::new(move |values| {
            let row = table_row(&values[1], &values[2], 9);
            scale_model_input(&values[0][..count], row[0], copies)
        }),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("once", [1, 8, 8, 4], 0, 1, ElementType::F32),
        case("twice, f16", [1, 8, 8, 4], 2, 2, ElementType::F16),
        case("two images twice, primes", [2, 5, 7, 3], 1, 2, ElementType::F32),
        case("one value", [1, 1, 1, 1], 0, 2, ElementType::F32),
        case_beside("channels beside", [1, 8, 8, 4], 5, 2, ElementType::F32),
        case_beside("channels beside, f16, primes", [1, 7, 11, 3], 2, 1, ElementType::F16),
        case_beside("one channel beside", [1, 1, 1, 4], 1, 2, ElementType::F16),
    ]
}
