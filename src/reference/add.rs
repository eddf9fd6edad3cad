//! Twin of `add`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::add::add as record_add;

/// `left + right`.
#[must_use]
pub fn add(left: &[f64], right: &[f64]) -> Vec<f64> {
    left.iter().zip(right).map(|(left, right)| left + right).collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    vec![("output", add(operands.input("left"), operands.input("right")))]
}

fn case(name: &'static str, shape: [usize; 4]) -> Case {
    Case {
        name,
        inputs: vec![
            Input::random(shape, Role::Element, 1.0, 1),
            Input::random(shape, Role::Element, 3.0, 2),
        ],
        record: Box::new(|recording, tensors| record_add(recording, &tensors[0], &tensors[1])),
        expected: Box::new(|values| add(&values[0], &values[1])),
        terms: 2,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        case("two images", [2, 8, 8, 4]),
        case("one value", [1, 1, 1, 1]),
        case("primes, tail", [1, 7, 11, 13]),
    ]
}
