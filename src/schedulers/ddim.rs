//! DDIM: jump from the predicted clean sample back to the noise level of the next timestep.
//!
//! Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>, equations 12 and 16.
//! Agrees with `DDIMScheduler` of diffusers, which goes a stride further down whatever the next timestep is; with the
//! spacings that diffusers does not have, a step goes to the next timestep, as in the paper's code.

use super::config::{PredictionType, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, single};
use super::options::{SamplerOptions, TimestepSpacing};
use super::prediction::{Level, limited};
use super::row::{NOISE, Row};
use super::timesteps::{whole, whole_timesteps};
use super::trajectory::{Call, Limit, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let prediction = config.prediction(options.kind)?;
    let limit = config.limit(options.kind);
    let schedule = NoiseSchedule::new(config, options.kind)?;
    let timesteps = whole_timesteps(config, options)?;
    let stride = whole(config.train_timesteps.div_euclid(options.steps));
    let spacing = config.spacing(options);
    let to_the_next = matches!(spacing, Some(TimestepSpacing::Uniform | TimestepSpacing::Quadratic));
    let mut calls = Vec::with_capacity(timesteps.len());
    for (index, &timestep) in timesteps.iter().enumerate() {
        let next =
            if to_the_next { timesteps.get(index + 1).copied().unwrap_or(-1) } else { timestep - stride };
        let (alpha, next_alpha) = (schedule.alpha(timestep)?, schedule.alpha(next)?);
        calls.push(call(prediction, alpha, next_alpha, options.eta, limit));
    }
    let noise_levels = schedule.noise_levels(&timesteps)?;
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    Ok(Trajectory { timesteps, sigmas: None, initial_sigma: 1.0, history: 0, noise_levels, calls })
}

/// One step from the signal share `alpha` to `next_alpha`.
fn call(kind: PredictionType, alpha: f64, next_alpha: f64, eta: f64, limit: Option<Limit>) -> Call {
    let level = Level::of_alpha(alpha);
    let variance = (1.0 - next_alpha) / (1.0 - alpha) * single(1.0 - single(alpha / next_alpha));
    let deviation = eta * variance.max(0.0).sqrt();
    let direction = (1.0 - next_alpha - deviation * deviation).max(0.0).sqrt();
    let (clean, prediction) = limited(level.clean(kind), limit);
    let moved = Row::sum([
        (next_alpha.sqrt(), clean),
        (direction, level.residual(kind)),
        (deviation, Row::column(NOISE)),
    ]);
    Call { prediction, uses_noise: eta > 0.0, ..Call::from_rows(0, &[moved]) }
}
