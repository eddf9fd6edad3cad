//! Twin of `matmul`: three loops.

use super::activation::activate;
use super::case::{Case, Input, Role};
use super::geglu::geglu;
use super::{Operands, Outputs, add_parts};
use crate::kernels::activation::Activation;
use crate::kernels::matmul::{Epilogue, Params, matmul};

/// `input [M, K] · weight [K, N]`.
#[must_use]
pub fn product(input: &[f64], weight: &[f64], rows: usize, terms: usize, columns: usize) -> Vec<f64> {
    let mut output = vec![0.0; rows * columns];
    for row in 0..rows {
        for term in 0..terms {
            let left = input[row * terms + term];
            for column in 0..columns {
                output[row * columns + column] += left * weight[term * columns + column];
            }
        }
    }
    output
}

/// A matrix of which only some rows are left, the others being 0.
pub(crate) fn only_rows(matrix: &[f64], columns: usize, rows: &std::ops::Range<usize>) -> Vec<f64> {
    let kept = |index: usize| rows.contains(&(index / columns));
    matrix.iter().enumerate().map(|(index, &value)| if kept(index) { value } else { 0.0 }).collect()
}

fn extents(params: &Params) -> [usize; 3] {
    [params.rows, params.terms, params.columns].map(|extent| extent as usize)
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let [rows, terms, columns] = extents(&params);
    finish(operands, product(operands.input("input"), operands.input("weight"), rows, terms, columns))
}

pub(crate) fn partial_twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let [rows, terms, columns] = extents(&params);
    let parts = operands.part_terms(terms, operands.definition("DEPTH") as usize);
    let sums = parts.iter().flat_map(|part| {
        let weight = only_rows(operands.input("weight"), columns, part);
        product(operands.input("input"), &weight, rows, terms, columns)
    });
    vec![("sums", sums.collect())]
}

pub(crate) fn merge_twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let [rows, _, columns] = extents(&params);
    finish(operands, add_parts(operands.input("sums"), rows * columns))
}

/// Bias, activation, residual; or bias and gate.
fn finish(operands: &Operands<'_>, mut output: Vec<f64>) -> Outputs {
    let columns = operands.params::<Params>().columns as usize;
    for (index, value) in output.iter_mut().enumerate() {
        if operands.flag("HAS_BIAS") {
            *value += operands.input("bias")[index % columns];
        }
        *value = activate(operands.constant("ACTIVATION").unwrap_or(0.0), *value);
        if operands.flag("HAS_RESIDUAL") {
            *value += operands.input("residual")[index];
        }
    }
    if operands.flag("GATED") {
        output = geglu(&output, columns / 2);
    }
    vec![("output", output)]
}

fn case(
    name: &'static str,
    [rows, terms, columns]: [usize; 3],
    activation: Activation,
    extras: bool,
) -> Case {
    #[expect(clippy::cast_precision_loss, reason = "small extents")]
    let deviation = 1.0 / (terms as f64).sqrt();
    let mut inputs = vec![
        Input::random([rows, terms], Role::Element, 1.0, 1),
        Input::random([terms, columns], Role::Weight, deviation, 2),
    ];
    if extras {
        inputs.push(Input::random([columns], Role::Float, 1.0, 3));
        inputs.push(Input::random([rows, columns], Role::Element, 1.0, 4));
    }
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            let epilogue =
                Epilogue { bias: tensors.get(2), activation, residual: tensors.get(3), gated: false };
            matmul(recording, &tensors[0], &tensors[1], &epilogue)
        }),
        expected: Box::new(move |values| {
            let mut output = product(&values[0], &values[1], rows, terms, columns);
            for (index, value) in output.iter_mut().enumerate() {
                let bias = values.get(2).map_or(0.0, |bias| bias[index % columns]);
                let residual = values.get(3).map_or(0.0, |residual| residual[index]);
                *value = activate(f64::from(activation.code()), *value + bias) + residual;
            }
            output
        }),
        terms,
    }
}

/// With a bias and GEGLU; `columns` are those of the output.
fn gated(name: &'static str, [rows, terms, columns]: [usize; 3]) -> Case {
    let plain = case(name, [rows, terms, 2 * columns], Activation::None, true);
    let mut inputs = plain.inputs;
    inputs.truncate(3);
    Case {
        inputs,
        record: Box::new(|recording, tensors| {
            let epilogue = Epilogue { bias: tensors.get(2), gated: true, ..Epilogue::default() };
            matmul(recording, &tensors[0], &tensors[1], &epilogue)
        }),
        expected: Box::new(move |values| {
            let mut sums = product(&values[0], &values[1], rows, terms, 2 * columns);
            sums.iter_mut().enumerate().for_each(|(index, sum)| *sum += values[2][index % (2 * columns)]);
            geglu(&sums, columns)
        }),
        ..plain
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("plain", [64, 32, 64], Activation::None, false),
        case("one value", [1, 1, 1], Activation::None, false),
        case("primes, everything fused", [67, 17, 131], Activation::Silu, true),
        case("multiples of four, everything fused", [70, 36, 100], Activation::Silu, true),
        case("one row, gelu", [1, 320, 77], Activation::Gelu, true),
        case("one column, quick gelu", [129, 5, 1], Activation::QuickGelu, true),
        case("more rows than one dimension of the grid", [4_200_000, 1, 1], Activation::None, false),
        case("long sums", [3, 4099, 9], Activation::None, true),
        case("long sums in fours", [70, 1100, 36], Activation::Silu, true),
        case("fours, one row and column more", [129, 36, 132], Activation::Gelu, true),
        gated("gated", [33, 20, 68]),
        gated("gated, odd", [5, 7, 35]),
        gated("gated, one column", [3, 4, 1]),
        gated("gated, in fours and one more row", [33, 36, 132]),
        case("two columns", [9, 16, 2], Activation::None, true),
        case("three columns, odd terms", [31, 9, 3], Activation::Silu, true),
        case("one row, five columns", [1, 33, 5], Activation::None, false),
        case("17 columns", [40, 64, 17], Activation::Gelu, true),
        case("odd terms, columns in fours", [40, 67, 36], Activation::None, true),
    ]
}
