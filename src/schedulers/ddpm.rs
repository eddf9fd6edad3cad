//! DDPM: a draw from the posterior of the next timestep's sample, given the predicted clean sample.
//!
//! Ho, Jain & Abbeel 2020, <https://arxiv.org/abs/2006.11239>: the mean is equation 7, the predicted clean sample
//! equation 15, the two variances those of section 3.2; the posterior between timesteps that are not neighbours is
//! that of Nichol & Dhariwal 2021, <https://arxiv.org/abs/2102.09672>, section 4.
//! Agrees with `DDPMScheduler` of diffusers, whose variances of type `fixed_large_log` are not numbers: here they are
//! those of `fixed_large`, which is what the name says.

use super::config::SchedulerConfig;
use super::noise_schedule::{NoiseSchedule, single};
use super::options::SamplerOptions;
use super::prediction::{Level, limited};
use super::row::{NOISE, Row, SAMPLE};
use super::timesteps::whole_timesteps;
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

/// The variance of the draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variance {
    /// That of the posterior for a clean sample without variance, the lower bound.
    Small,
    /// That of the noise added between the two timesteps, the upper bound.
    Large,
}

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = options.kind;
    let prediction_type = config.prediction(kind)?;
    let limit = config.limit(kind);
    let variances = [
        ("fixed_small", Variance::Small),
        ("fixed_small_log", Variance::Small),
        ("fixed_large", Variance::Large),
        ("fixed_large_log", Variance::Large),
    ];
    let variance = config.choose(kind, "variance_type", config.variance_type.as_deref(), &variances)?;
    let schedule = NoiseSchedule::new(config, kind)?;
    let timesteps = whole_timesteps(config, options)?;
    let mut calls = Vec::with_capacity(timesteps.len());
    for (index, &timestep) in timesteps.iter().enumerate() {
        let next = timesteps.get(index + 1).copied().unwrap_or(-1);
        let (alpha, next_alpha) = (schedule.alpha(timestep)?, schedule.alpha(next)?);
        // Between near timesteps the ratio is nearly 1, and its rounding a matter of the fourth digit.
        let ratio = single(alpha / next_alpha);
        let beta = single(1.0 - ratio);
        let share = (1.0 - next_alpha) / (1.0 - alpha);
        let deviation = match variance {
            Variance::Small => (share * beta).max(1e-20).sqrt(),
            Variance::Large => beta.sqrt(),
        };
        let (clean, prediction) = limited(Level::of_alpha(alpha).clean(prediction_type), limit);
        let mean = Row::sum([
            (next_alpha.sqrt() * beta / (1.0 - alpha), clean),
            (ratio.sqrt() * share, Row::column(SAMPLE)),
        ]);
        let uses_noise = timestep > 0;
        let moved = if uses_noise { mean + deviation * Row::column(NOISE) } else { mean };
        calls.push(Call { prediction, uses_noise, ..Call::from_rows(0, &[moved]) });
    }
    let noise_levels = schedule.noise_levels(&timesteps)?;
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    Ok(Trajectory { timesteps, sigmas: None, initial_sigma: 1.0, history: 0, noise_levels, calls })
}
