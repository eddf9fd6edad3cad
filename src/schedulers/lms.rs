//! LMS: a polynomial through the newest slope and up to three older ones, integrated over the step.
//!
//! The method of Adams and Bashforth on sigmas that are not evenly spaced: Hairer, Nørsett & Wanner, *Solving Ordinary
//! Differential Equations I*, section III.5; for diffusion models from k-diffusion.
//! Agrees with `LMSDiscreteScheduler` of diffusers and its order 4.
//!
//! History planes 0 to 2: the slopes of the last three steps, newest first.

use super::config::SchedulerConfig;
use super::euler::slope;
use super::levels::{Levels, input_scale};
use super::options::SamplerOptions;
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

const ORDER: usize = 4;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let levels = Levels::of_samplers(config, options)?;
    let calls = levels.steps().enumerate().map(|(index, (sigma, next))| {
        let (newest, _) = slope(kind, sigma, None);
        let slopes = [newest, Row::plane(0), Row::plane(1), Row::plane(2)];
        let known: Vec<f64> = levels.sigmas[..=index].iter().rev().take(ORDER).copied().collect();
        let weights = weights(&known, sigma, next).into_iter();
        let moved =
            weights.zip(slopes).fold(Row::column(SAMPLE), |sum, (weight, slope)| sum + weight * slope);
        let rows = [moved, newest, Row::plane(0), Row::plane(1)];
        Call { input_scale: input_scale(sigma), ..Call::from_rows(ORDER - 1, &rows) }
    });
    let calls = calls.collect();
    let noise_levels = levels.unscaled(1);
    Ok(levels.trajectory(ORDER - 1, noise_levels, calls))
}

/// The integral from `from` to `to` of each polynomial that is 1 at one of the points and 0 at the others.
/// Gauss's rule with two points is exact for cubics.
fn weights(points: &[f64], from: f64, to: f64) -> Vec<f64> {
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let offset = half / 3.0_f64.sqrt();
    let basis = |own: usize, at: f64| -> f64 {
        let others = points.iter().enumerate().filter(|(other, _)| *other != own);
        others.map(|(_, point)| (at - point) / (points[own] - point)).product()
    };
    (0..points.len()).map(|own| half * (basis(own, middle - offset) + basis(own, middle + offset))).collect()
}
