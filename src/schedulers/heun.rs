//! Heun's method: a step as Euler's, a second call where it ends, and the step again with the mean of both slopes.
//!
//! Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>, algorithm 1; the last step, to sigma 0, is
//! Euler's.
//! Agrees with `HeunDiscreteScheduler` of diffusers.
//!
//! History plane 0: what the second call adds its half of the step to, the old sample and half of the first step.

use super::config::SchedulerConfig;
use super::euler::slope;
use super::levels::{Levels, input_scale};
use super::options::SamplerOptions;
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let limit = config.limit(options.kind);
    let levels = Levels::of_samplers(config, options)?;
    let (mut timesteps, mut calls) = (Vec::new(), Vec::new());
    let sample = Row::column(SAMPLE);
    for (index, (sigma, next)) in levels.steps().enumerate() {
        let step = next - sigma;
        let (first, prediction) = slope(kind, sigma, limit);
        let rows = [sample + step * first, sample + 0.5 * step * first];
        timesteps.push(levels.timesteps[index]);
        calls.push(Call { input_scale: input_scale(sigma), prediction, ..Call::from_rows(1, &rows) });
        let Some(&next_timestep) = levels.timesteps.get(index + 1) else { continue };
        let (second, prediction) = slope(kind, next, limit);
        let rows = [Row::plane(0) + 0.5 * step * second];
        timesteps.push(next_timestep);
        calls.push(Call { input_scale: input_scale(next), prediction, ..Call::from_rows(1, &rows) });
    }
    let noise_levels = levels.unscaled(2);
    Ok(Trajectory { timesteps, ..levels.trajectory(1, noise_levels, calls) })
}
