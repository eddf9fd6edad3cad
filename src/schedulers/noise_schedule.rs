//! How much signal is left at each training timestep, and which timesteps a run visits.

use super::config::{BetaSchedule, SchedulerConfig, TimestepSpacing};
use crate::error::{Error, Result};

/// The share of signal left at each timestep: the running product of `1 - beta`.
///
/// The values are those that PyTorch holds, rounded to f32 where it rounds: near the end of a run `1 - alpha` is
/// some 1e-4, and the rounding of `alpha` is then a matter of the fourth digit.
#[derive(Clone, Debug)]
pub(super) struct NoiseSchedule {
    /// One per training timestep, falling.
    pub(super) cumulative_alphas: Vec<f64>,
    /// Stands for the timestep before the first.
    final_alpha: f64,
}

impl NoiseSchedule {
    /// Ho, Jain & Abbeel 2020, <https://arxiv.org/abs/2006.11239>, section 2.
    pub(super) fn new(config: &SchedulerConfig, set_alpha_to_one: bool, zero_terminal_signal: bool) -> Self {
        let mut product = 1.0;
        let mut cumulative_alphas: Vec<f64> = betas(config)
            .into_iter()
            .map(|beta| {
                product *= single(1.0 - single(beta));
                single(product)
            })
            .collect();
        if zero_terminal_signal {
            rescale_to_zero_terminal_signal(&mut cumulative_alphas);
        }
        let final_alpha = if set_alpha_to_one { 1.0 } else { cumulative_alphas[0] };
        Self { cumulative_alphas, final_alpha }
    }

    /// The share of signal at a timestep; every timestep before the first is the end of the run.
    ///
    /// # Errors
    /// [`Error::Option`] naming the number of steps if the timestep lies beyond the training timesteps.
    pub(super) fn alpha(&self, timestep: i64) -> Result<f64> {
        let Ok(index) = usize::try_from(timestep) else { return Ok(self.final_alpha) };
        self.cumulative_alphas.get(index).copied().ok_or_else(|| {
            let last = self.cumulative_alphas.len() - 1;
            Error::option(
                "steps",
                format!("leads to timestep {timestep}, but the last one of the model is {last}"),
            )
        })
    }
}

fn betas(config: &SchedulerConfig) -> Vec<f64> {
    let count = config.train_timesteps;
    if let Some(betas) = &config.trained_betas {
        return betas.clone();
    }
    let (start, end) = (config.beta_start, config.beta_end);
    match config.beta_schedule {
        BetaSchedule::Linear => linspace_single(start, end, count),
        BetaSchedule::ScaledLinear => {
            linspace_single(start.sqrt(), end.sqrt(), count).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredCosine => squared_cosine_betas(count),
    }
}

/// Nichol & Dhariwal 2021, <https://arxiv.org/abs/2102.09672>, equation 17, betas capped at 0.999.
fn squared_cosine_betas(count: usize) -> Vec<f64> {
    const OFFSET: f64 = 0.008;
    let signal = |index: usize| {
        let time = real(index) / real(count);
        ((time + OFFSET) / (1.0 + OFFSET) * std::f64::consts::FRAC_PI_2).cos().powi(2)
    };
    (0..count).map(|index| (1.0 - signal(index + 1) / signal(index)).min(0.999)).collect()
}

/// Shifts and scales the square roots so that the last is 0 and the first stays.
/// Lin, Liu, Li & Yang 2023, <https://arxiv.org/abs/2305.08891>, algorithm 1.
fn rescale_to_zero_terminal_signal(cumulative_alphas: &mut [f64]) {
    let [first, .., last] = cumulative_alphas else { return };
    let (first, last) = (first.sqrt(), last.sqrt());
    let scale = first / (first - last);
    for alpha in cumulative_alphas {
        *alpha = single(((alpha.sqrt() - last) * scale).powi(2));
    }
}

/// The timesteps of a run before a sampler repeats or splits any, falling; one per step.
/// Lin, Liu, Li & Yang 2023, <https://arxiv.org/abs/2305.08891>, table 2.
///
/// # Errors
/// [`Error::Option`] naming the number of steps if a timestep is outside the training timesteps.
pub(super) fn spaced_timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<i64>> {
    let count = config.train_timesteps;
    let timesteps: Vec<i64> = match config.timestep_spacing {
        TimestepSpacing::Linspace => {
            linspace(0.0, real(count - 1), steps).into_iter().rev().map(nearest).collect()
        }
        TimestepSpacing::Leading => {
            let stride = count.div_euclid(steps);
            (0..steps).rev().map(|step| whole(step * stride) + config.steps_offset).collect()
        }
        TimestepSpacing::Trailing => {
            // The stride as it remains after one step, which decides how halves are rounded.
            // diffusers has one point more, timestep -1, for the few numbers of steps (61, 103, ...) where
            // the quotient of quotients comes out above the number of steps; here there are always `steps`.
            let stride = real(count) - (real(count) - real(count) / real(steps));
            (0..steps).map(|step| nearest(real(count) - real(step) * stride) - 1).collect()
        }
    };
    match timesteps.iter().find(|&&timestep| timestep < 0 || timestep >= whole(count)) {
        None => Ok(timesteps),
        Some(outside) => {
            let problem = format!(
                "{steps} steps with \"steps_offset\" {} visit timestep {outside}, but the model knows 0 to {}",
                config.steps_offset,
                count - 1
            );
            Err(Error::option("steps", problem))
        }
    }
}

/// `count` evenly spaced numbers, both ends included; only the start if there is one.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let stride = (end - start) / real(count.saturating_sub(1).max(1));
    (0..count)
        .map(|index| if index > 0 && index + 1 == count { end } else { start + real(index) * stride })
        .collect()
}

/// The same as PyTorch has it in f32: each half is counted from its own end.
fn linspace_single(start: f64, end: f64, count: usize) -> Vec<f64> {
    let (start, end) = (single(start), single(end));
    let stride = single(single(end - start) / real(count.saturating_sub(1).max(1)));
    let half = count.div_euclid(2);
    let from_start = |index: usize| start + real(index) * stride;
    let from_end = |index: usize| end - real(count - 1 - index) * stride;
    let value = |index| if index < half || count == 1 { from_start(index) } else { from_end(index) };
    (0..count).map(|index| single(value(index))).collect()
}

/// Rounded to f32.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
fn single(number: f64) -> f64 {
    f64::from(number as f32)
}

fn real(number: usize) -> f64 {
    number as f64
}

pub(super) fn whole(number: usize) -> i64 {
    number as i64
}

#[expect(clippy::cast_possible_truncation, reason = "timesteps are at most a million")]
fn nearest(number: f64) -> i64 {
    number.round_ties_even() as i64
}
