//! DPM2: a step as Euler's to the middle of two sigmas, a second call there, and its slope for the whole step.
//!
//! The middle is that of the logarithms: DPM-Solver-2 of Lu, Zhou, Bao, Chen, Li & Zhu 2022,
//! <https://arxiv.org/abs/2206.00927>, algorithm 1, in the form of k-diffusion; the last step, to sigma 0, is Euler's.
//! Agrees with `KDPM2DiscreteScheduler` of diffusers.
//!
//! History plane 0: the sample that a step starts from.

use super::config::SchedulerConfig;
use super::euler::slope;
use super::levels::{Levels, input_scale};
use super::noise_schedule::single;
use super::options::SamplerOptions;
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let levels = Levels::of_samplers(config, options)?;
    let (mut timesteps, mut calls) = (Vec::new(), Vec::new());
    let sample = Row::column(SAMPLE);
    for (index, (sigma, next)) in levels.steps().enumerate() {
        let is_last = index + 1 == levels.timesteps.len();
        let middle = if is_last { next } else { single((sigma * next).sqrt()) };
        let (first, _) = slope(kind, sigma, None);
        let rows = [sample + (middle - sigma) * first, sample];
        timesteps.push(levels.timesteps[index]);
        calls.push(Call { input_scale: input_scale(sigma), ..Call::from_rows(1, &rows) });
        if is_last {
            continue;
        }
        let (second, _) = slope(kind, middle, None);
        let rows = [Row::plane(0) + (next - sigma) * second];
        timesteps.push(single(levels.table.timestep(middle)));
        calls.push(Call { input_scale: input_scale(middle), ..Call::from_rows(1, &rows) });
    }
    let noise_levels = levels.unscaled(2);
    Ok(Trajectory { timesteps, ..levels.trajectory(1, noise_levels, calls) })
}
