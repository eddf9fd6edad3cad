//! Twin of `guidance`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::guidance::{GuidanceConfig, Params, RescaleParams, guidance as record_guidance};

/// The first half of `input` plus `scale` times the way to the second.
#[must_use]
pub fn guidance(input: &[f64], scale: f64) -> Vec<f64> {
    let (without, with) = input.split_at(input.len() / 2);
    without.iter().zip(with).map(|(without, with)| without + scale * (with - without)).collect()
}

/// For every image of `count` values, the factor that brings a share of the spread back.
#[must_use]
pub fn rescale_factors(input: &[f64], count: usize, scale: f64, rescale: f64) -> Vec<f64> {
    let guided = guidance(input, scale);
    let with = &input[input.len() / 2..];
    with.chunks(count)
        .zip(guided.chunks(count))
        .map(|(with, guided)| {
            let spread = squares(guided);
            let ratio = if spread > 0.0 { (squares(with) / spread).sqrt() } else { 1.0 };
            rescale * ratio + 1.0 - rescale
        })
        .collect()
}

/// Sum of squared deviations from the mean.
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
fn squares(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|value| (value - mean) * (value - mean)).sum()
}

fn scaled(values: Vec<f64>, count: usize, factors: &[f64]) -> Vec<f64> {
    values.into_iter().enumerate().map(|(index, value)| value * factors[index / count]).collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let input = operands.input("input");
    let mut output =
        if operands.flag("GUIDED") { guidance(input, f64::from(params.scale)) } else { input.to_vec() };
    if operands.flag("HAS_FACTOR") {
        output = scaled(output, params.image_count as usize, operands.input("factor"));
    }
    vec![("output", output)]
}

pub(crate) fn rescale_twin(operands: &Operands<'_>) -> Outputs {
    let params: RescaleParams = operands.params();
    let (scale, rescale) = (f64::from(params.scale), f64::from(params.rescale));
    vec![("factor", rescale_factors(operands.input("input"), params.count as usize, scale, rescale))]
}

fn case(name: &'static str, shape: [usize; 4], config: Option<GuidanceConfig>) -> Case {
    let count: usize = shape[1..].iter().product();
    Case {
        name,
        inputs: vec![Input::random(shape, Role::Element, 1.0, 1)],
        record: Box::new(move |recording, tensors| record_guidance(recording, &tensors[0], config.as_ref())),
        expected: Box::new(move |values| {
            let Some(config) = config else { return values[0].clone() };
            let (scale, rescale) = (f64::from(config.scale), f64::from(config.rescale));
            let factors = rescale_factors(&values[0], count, scale, rescale);
            scaled(guidance(&values[0], scale), count, &factors)
        }),
        terms: if config.is_some_and(|config| config.rescale != 0.0) { count } else { 3 },
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let guided = |scale, rescale| Some(GuidanceConfig { scale, rescale });
    vec![
        case("one image", [2, 8, 8, 4], guided(7.5, 0.0)),
        case("two images, primes", [4, 7, 13, 3], guided(1.3, 0.0)),
        case("scale of zero", [2, 3, 3, 4], guided(0.0, 0.0)),
        case("conversion", [3, 5, 5, 4], None),
        case("one value", [2, 1, 1, 1], guided(-2.0, 0.0)),
        case("rescaled", [2, 16, 16, 4], guided(7.5, 0.7)),
        case("wholly rescaled, two images, primes", [4, 7, 13, 3], guided(4.0, 1.0)),
        case("one value rescaled", [2, 1, 1, 1], guided(3.0, 0.5)),
    ]
}
