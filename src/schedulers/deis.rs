//! DEIS: a polynomial in the logarithm of sigma through the newest noise prediction and up to two older ones,
//! integrated over sigma.
//!
//! Zhang & Chen 2022, <https://arxiv.org/abs/2204.13902>, section 3.3 and equation 15 of algorithm 1, over `log rho`, where
//! `rho` is sigma: the sample without its scale moves by the integral of the predicted noise over sigma.
//! Agrees with `DEISMultistepScheduler` of diffusers.
//!
//! History planes: the noise predictions of the last steps, newest first, one fewer than the order.

use super::config::SchedulerConfig;
use super::dpm_multistep::FEW_STEPS;
use super::dpm_solver::order;
use super::levels::Levels;
use super::options::SamplerOptions;
use super::prediction::{Level, limited};
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    begin: usize,
) -> Result<Trajectory> {
    let kind = options.kind;
    let keys = &config.solver;
    // What other classes call their algorithms and forms stands for the only one here.
    let algorithms = [("deis", ()), ("dpmsolver", ()), ("dpmsolver++", ())];
    config.choose(kind, "algorithm_type", keys.algorithm_type.as_deref(), &algorithms)?;
    let forms = [("logrho", ()), ("midpoint", ()), ("heun", ()), ("bh1", ()), ("bh2", ())];
    config.choose(kind, "solver_type", keys.solver_type.as_deref(), &forms)?;
    let most = order(config, kind)?;
    let prediction_type = config.prediction(kind)?;
    let limit = config.limit(kind);
    let levels = Levels::of_solvers(config, options)?;
    let steps = levels.timesteps.len();
    let lower_order_final = keys.lower_order_final.unwrap_or(true) && steps < FEW_STEPS;
    let mut calls = Vec::with_capacity(steps);
    for (index, (sigma, next)) in levels.steps().enumerate() {
        let (from, to) = (Level::of_sigma(sigma), Level::of_sigma(next));
        let (clean, prediction) = limited(from.clean(prediction_type), limit);
        let newest =
            if prediction.is_some() { from.residual_of(clean) } else { from.residual(prediction_type) };
        let order = if lower_order_final { most.min(steps - index) } else { most };
        let order = order.min(index.saturating_sub(begin) + 1);
        let known: Vec<f64> = levels.sigmas[..=index].iter().rev().take(order).copied().collect();
        let residuals = [newest, Row::plane(0), Row::plane(1)];
        let moved = weights(&known, sigma, next)
            .into_iter()
            .zip(residuals)
            .fold(from.signal.recip() * Row::column(SAMPLE), |sum, (weight, residual)| {
                sum + weight * residual
            });
        let rows = [to.signal * moved, newest, Row::plane(0)];
        calls.push(Call { prediction, ..Call::from_rows(most - 1, &rows[..most]) });
    }
    let noise_levels = levels.scaled();
    Ok(levels.trajectory(most - 1, noise_levels, calls))
}

/// The integral over sigma, between two sigmas, of each polynomial in `log sigma` that is 1 at one of up to three
/// sigmas and 0 at the others.
fn weights(points: &[f64], from: f64, to: f64) -> Vec<f64> {
    // Logarithms are counted from that of `from`, which keeps the numbers small.
    let logarithm = |sigma: f64| (sigma / from).ln();
    // The integrals of 1, log and log² over sigma.
    let end = logarithm(to);
    let moments = [to - from, to * (end - 1.0) + from, to * (end * (end - 2.0) + 2.0) - 2.0 * from];
    let at = |index: usize| logarithm(points[index]);
    match points.len() {
        1 => vec![moments[0]],
        2 => {
            let part =
                |own: usize, other: usize| (moments[1] - at(other) * moments[0]) / (at(own) - at(other));
            vec![part(0, 1), part(1, 0)]
        }
        _ => {
            let part = |own: usize, one: usize, other: usize| {
                let product =
                    moments[2] - (at(one) + at(other)) * moments[1] + at(one) * at(other) * moments[0];
                product / ((at(own) - at(one)) * (at(own) - at(other)))
            };
            vec![part(0, 1, 2), part(1, 2, 0), part(2, 0, 1)]
        }
    }
}
