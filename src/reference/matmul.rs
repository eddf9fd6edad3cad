//! Twin of `matmul`: three loops.

use super::activation::activate;
use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
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

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let [rows, terms, columns] = [params.rows, params.terms, params.columns].map(|extent| extent as usize);
    let mut output = product(operands.input("input"), operands.input("weight"), rows, terms, columns);
    for (index, value) in output.iter_mut().enumerate() {
        if operands.flag("HAS_BIAS") {
            *value += operands.input("bias")[index % columns];
        }
        *value = activate(operands.constant("ACTIVATION").unwrap_or(0.0), *value);
        if operands.flag("HAS_RESIDUAL") {
            *value += operands.input("residual")[index];
        }
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
        Input::random([terms, columns], Role::Element, deviation, 2),
    ];
    if extras {
        inputs.push(Input::random([columns], Role::Float, 1.0, 3));
        inputs.push(Input::random([rows, columns], Role::Element, 1.0, 4));
    }
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            let epilogue = Epilogue { bias: tensors.get(2), activation, residual: tensors.get(3) };
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
    ]
}
