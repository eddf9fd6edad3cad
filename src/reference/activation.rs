//! Twin of `activation`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::activation::{Activation, activation};

/// The error function by its Taylor series, or the continued fraction of its complement for large values.
#[must_use]
pub fn error_function(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200_u32 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..=60_u32).rev().fold(z, |fraction, n| z + 0.5 * f64::from(n) / fraction);
        1.0 - (-z * z).exp() / (fraction * std::f64::consts::PI.sqrt())
    };
    value.copysign(x)
}

/// The function with the code of [`Activation::code`].
#[must_use]
pub fn activate(code: f64, x: f64) -> f64 {
    let is = |kind: Activation| code == f64::from(kind.code());
    if is(Activation::Silu) {
        x / (1.0 + (-x).exp())
    } else if is(Activation::Gelu) {
        0.5 * x * (1.0 + error_function(x * std::f64::consts::FRAC_1_SQRT_2))
    } else if is(Activation::QuickGelu) {
        x / (1.0 + (-1.702 * x).exp())
    } else if is(Activation::Relu) {
        x.max(0.0)
    } else if is(Activation::SoftLimit) {
        3.0 * (x / 3.0).tanh()
    } else if is(Activation::FromUnit) {
        2.0 * x - 1.0
    } else {
        x
    }
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let code = operands.constant("ACTIVATION").unwrap_or(0.0);
    vec![("output", operands.input("input").iter().map(|&x| activate(code, x)).collect())]
}

fn case(name: &'static str, input: Input, kind: Activation) -> Case {
    Case {
        name,
        inputs: vec![input],
        record: Box::new(move |recording, tensors| activation(recording, &tensors[0], kind)),
        expected: Box::new(move |values| {
            values[0].iter().map(|&x| activate(f64::from(kind.code()), x)).collect()
        }),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let tails = || Input::given([8], Role::Element, vec![-60.0, -12.0, -3.0, -0.01, 0.0, 0.01, 5.0, 60.0]);
    vec![
        case("silu", Input::random([2, 3, 7, 5], Role::Element, 3.0, 1), Activation::Silu),
        case("gelu", Input::random([1000], Role::Element, 2.0, 2), Activation::Gelu),
        case("quick gelu", Input::random([65], Role::Element, 2.0, 3), Activation::QuickGelu),
        case("silu tails", tails(), Activation::Silu),
        case("gelu tails", tails(), Activation::Gelu),
        case("quick gelu tails", tails(), Activation::QuickGelu),
        case("relu", Input::random([129], Role::Element, 2.0, 6), Activation::Relu),
        case("soft limit", Input::random([129], Role::Element, 3.0, 7), Activation::SoftLimit),
        case("soft limit tails", tails(), Activation::SoftLimit),
        case("from unit", Input::random([129], Role::Element, 1.0, 8), Activation::FromUnit),
        case("one value", Input::random([1], Role::Element, 1.0, 4), Activation::Silu),
        case("copy", Input::random([129], Role::Element, 1.0, 5), Activation::None),
    ]
}
