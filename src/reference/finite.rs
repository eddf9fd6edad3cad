//! Twin of `finite`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::activation::{Activation, activation};
use crate::kernels::finite::{Params, Row, finite as record_finite};

/// Whether all values are finite.
#[must_use]
pub fn finite(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite())
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let mut output =
        operands.stored("output").map_or_else(|| vec![0.0; operands.count("output")], <[f64]>::to_vec);
    if !finite(operands.input("input")) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        let step = operands.input("step")[0] as usize;
        output[params.first as usize + step * params.stride as usize] = 1.0;
    }
    vec![("output", output)]
}

/// Rows of the output in every case.
const ROWS: usize = 5;

/// `values` in the place of some random ones, checked into the row of step 3 and into row 1.
fn case(name: &'static str, count: usize, values: &[(usize, f64)]) -> Case {
    let mut input = Input::random([count], Role::Element, 1.0, 1);
    for (index, value) in values {
        input.values[*index] = *value;
    }
    Case {
        name,
        inputs: vec![
            input,
            Input::given([1], Role::Index, vec![3.0]),
            Input::given([ROWS], Role::Float, vec![0.0; ROWS]),
        ],
        record: Box::new(|recording, tensors| {
            let output = activation(recording, &tensors[2], Activation::None)?; // zeros
            record_finite(recording, &tensors[0], &tensors[1], &output, Row::Step)?;
            record_finite(recording, &tensors[0], &tensors[1], &output, Row::Fixed(1))?;
            Ok(output)
        }),
        expected: Box::new(|values| {
            let found = f64::from(u8::from(!finite(&values[0])));
            (0..ROWS).map(|row| if row == 1 || row == 3 { found } else { 0.0 }).collect()
        }),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("all are", 4096, &[]),
        case("one value", 1, &[(0, f64::INFINITY)]),
        case("the first is not a number", 65, &[(0, f64::NAN)]),
        case("the last is below all numbers", 1000, &[(999, f64::NEG_INFINITY)]),
        case(
            "several, more than a row of workgroups",
            64 * 65_536 + 1,
            &[(7, f64::NAN), (64 * 65_536, f64::NAN)],
        ),
        case("the largest halves and zeros", 256, &[(0, 65_504.0), (1, -65_504.0), (2, 0.0), (3, -0.0)]),
        case("the smallest halves", 64, &[(0, 6e-8), (63, -6e-8)]),
    ]
}
