//! Which training timesteps a run visits, before a sampler repeats or splits any.
//!
//! Lin, Liu, Li & Yang 2023, <https://arxiv.org/abs/2305.08891>, table 2; and, for the spacings that diffusers does not
//! have, the code of Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>.

use super::config::SchedulerConfig;
use super::noise_schedule::single;
use super::options::{SamplerOptions, TimestepSpacing};
use crate::error::{Error, Result};

/// Whole timesteps, falling, as the samplers count them that step from timestep to timestep.
/// One per step, or more with [uniform](TimestepSpacing::Uniform) spacing.
///
/// # Errors
/// [`Error::Option`] naming the number of steps if a timestep is outside the training timesteps.
pub(super) fn whole_timesteps(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Vec<i64>> {
    let (count, steps) = (config.train_timesteps, options.steps);
    let stride = count.div_euclid(steps);
    let timesteps = match config.spacing(options) {
        Some(TimestepSpacing::Linspace) => {
            linspace(0.0, real(count - 1), steps).into_iter().rev().map(nearest).collect()
        }
        Some(TimestepSpacing::Trailing) => trailing(count, real(count), steps),
        Some(TimestepSpacing::Uniform) => {
            (0..count).step_by(stride).rev().map(|timestep| whole(timestep) + config.steps_offset).collect()
        }
        Some(TimestepSpacing::Quadratic) => linspace(0.0, (real(count) * 0.8).sqrt(), steps)
            .into_iter()
            .rev()
            .map(|root| downwards(root * root) + config.steps_offset)
            .collect(),
        Some(TimestepSpacing::Leading) | None => {
            (0..steps).rev().map(|step| whole(step * stride) + config.steps_offset).collect()
        }
    };
    check(config, options, timesteps)
}

/// Timesteps as the samplers of k-diffusion count them: between two training timesteps where they are linearly
/// spaced.
///
/// # Errors
/// As [`whole_timesteps`].
pub(super) fn fractional_timesteps(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Vec<f64>> {
    if config.spacing(options) == Some(TimestepSpacing::Linspace) {
        let timesteps = linspace(0.0, real(config.train_timesteps - 1), options.steps);
        return Ok(timesteps.into_iter().rev().map(single).collect());
    }
    Ok(whole_timesteps(config, options)?.into_iter().map(|timestep| timestep as f64).collect())
}

/// Whole timesteps as the solvers of diffusers count them: those of one step more, without the last; of the first
/// `last` training timesteps.
///
/// # Errors
/// As [`whole_timesteps`]; also if leading timesteps would all be the same.
pub(super) fn solver_timesteps(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    last: usize,
) -> Result<Vec<i64>> {
    let (count, steps) = (config.train_timesteps, options.steps);
    let timesteps = match config.spacing(options) {
        Some(TimestepSpacing::Trailing) => trailing(count, real(last), steps),
        Some(TimestepSpacing::Leading) => {
            let stride = last.div_euclid(steps + 1);
            if stride == 0 {
                let problem = format!("expected fewer than {last} with leading timesteps, found {steps}");
                return Err(Error::option("steps", problem));
            }
            (1..=steps).rev().map(|step| whole(step * stride) + config.steps_offset).collect()
        }
        _ => {
            let all = linspace(0.0, real(last.saturating_sub(1)), steps + 1);
            all.into_iter().skip(1).rev().map(nearest).collect()
        }
    };
    check(config, options, timesteps)
}

/// Even strides down from `last`, a stride being the share of one step in all `count` timesteps.
///
/// diffusers has one point more, timestep -1, for the few numbers of steps (61, 103, ...) where the quotient of
/// quotients comes out above the number of steps; here there are never more than `steps`.
fn trailing(count: usize, last: f64, steps: usize) -> Vec<i64> {
    let share = real(count) / real(steps);
    // The stride as it remains after one step, which decides how halves are rounded.
    let stride = last - (last - share);
    let fits = downwards((last / share).ceil()).clamp(0, whole(steps));
    (0..fits).map(|step| nearest(last - step as f64 * stride) - 1).collect()
}

fn check(config: &SchedulerConfig, options: &SamplerOptions, timesteps: Vec<i64>) -> Result<Vec<i64>> {
    let count = config.train_timesteps;
    match timesteps.iter().find(|&&timestep| timestep < 0 || timestep >= whole(count)) {
        None => Ok(timesteps),
        Some(outside) => {
            let problem = format!(
                "{} steps with \"steps_offset\" {} visit timestep {outside}, but the model knows 0 to {}",
                options.steps,
                config.steps_offset,
                count - 1
            );
            Err(Error::option("steps", problem))
        }
    }
}

/// `count` evenly spaced numbers, both ends included; only the start if there is one.
pub(super) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let stride = (end - start) / real(count.saturating_sub(1).max(1));
    (0..count)
        .map(|index| if index > 0 && index + 1 == count { end } else { start + real(index) * stride })
        .collect()
}

pub(super) fn real(number: usize) -> f64 {
    number as f64
}

pub(super) fn whole(number: usize) -> i64 {
    number as i64
}

#[expect(clippy::cast_possible_truncation, reason = "timesteps are at most a million")]
pub(super) fn nearest(number: f64) -> i64 {
    number.round_ties_even() as i64
}

#[expect(clippy::cast_possible_truncation, reason = "timesteps are at most a million")]
pub(super) fn downwards(number: f64) -> i64 {
    number.floor() as i64
}
