//! LCM: the model's consistency function, and noise up to the level of the next timestep.
//!
//! Luo, Tan, Huang, Li & Zhao 2023, <https://arxiv.org/abs/2310.04378>: multi-step sampling is algorithm 3, the
//! consistency function equation 9, with the weights of Song, Dhariwal, Chen & Sutskever 2023,
//! <https://arxiv.org/abs/2303.01469>, for a deviation of the data of 1/2.
//! Agrees with `LCMScheduler` of diffusers: the timesteps are taken from those of the model's distillation,
//! whatever the spacing.

use super::config::SchedulerConfig;
use super::noise_schedule::NoiseSchedule;
use super::options::SamplerOptions;
use super::prediction::{Level, limited};
use super::row::{NOISE, Row, SAMPLE};
use super::timesteps::{downwards, real, whole};
use super::trajectory::{Call, Trajectory};
use crate::error::{Error, Result};

/// The standard deviation of the data that the weights are made for.
const DATA_DEVIATION: f64 = 0.5;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let limit = config.limit(options.kind);
    let scaling = config.timestep_scaling.unwrap_or(10.0);
    let schedule = NoiseSchedule::new(config, options.kind)?;
    let timesteps = timesteps(config, options)?;
    let mut calls = Vec::with_capacity(timesteps.len());
    for (index, &timestep) in timesteps.iter().enumerate() {
        let level = Level::of_alpha(schedule.alpha(timestep)?);
        let time = scaling * timestep as f64;
        let length = time.hypot(DATA_DEVIATION);
        let (clean, prediction) = limited(level.clean(kind), limit);
        let skip = (DATA_DEVIATION / length).powi(2);
        let consistent = Row::sum([(time / length, clean), (skip, Row::column(SAMPLE))]);
        let next = timesteps.get(index + 1);
        let moved = match next {
            None => consistent,
            Some(&next) => {
                let level = Level::of_alpha(schedule.alpha(next)?);
                Row::sum([(level.signal, consistent), (level.noise, Row::column(NOISE))])
            }
        };
        calls.push(Call { prediction, uses_noise: next.is_some(), ..Call::from_rows(0, &[moved]) });
    }
    let noise_levels = schedule.noise_levels(&timesteps)?;
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    Ok(Trajectory { timesteps, sigmas: None, initial_sigma: 1.0, history: 0, noise_levels, calls })
}

/// Evenly chosen from the timesteps of the distillation, falling, the last of them first.
fn timesteps(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Vec<i64>> {
    let (count, steps) = (config.train_timesteps, options.steps);
    let original = config.original_inference_steps.unwrap_or(50);
    if original > count {
        let problem = format!("expected at most the {count} training timesteps, found {original}");
        return config.refuse("original_inference_steps", problem);
    }
    let stride = whole(count.div_euclid(original));
    // Those of less noise than the share that a picture is begun from.
    let original = usize::try_from(downwards(real(original) * options.distillation_share)).unwrap_or(0);
    if steps > original {
        let problem = format!("lcm picks from {original} steps of the distillation, found {steps}");
        return Err(Error::option("steps", problem));
    }
    let share = real(original) / real(steps);
    let chosen = (0..steps).map(|step| whole(original) - downwards(real(step) * share));
    Ok(chosen.map(|number| number * stride - 1).collect())
}
