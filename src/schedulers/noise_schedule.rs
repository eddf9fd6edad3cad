//! How much signal is left at each training timestep.
//!
//! Ho, Jain & Abbeel 2020, <https://arxiv.org/abs/2006.11239>, section 2.

use super::config::{BetaSchedule, SchedulerConfig};
use super::kind::{SchedulerKind, ZeroTerminalSignal};
use super::prediction::Level;
use super::timesteps::real;
use super::trajectory::NoiseLevel;
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
    /// # Errors
    /// [`Error::Config`] if the sampler's class does not know the file's `beta_schedule`.
    pub(super) fn new(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        let cumulative_alphas = match &config.noise.cumulative_alphas {
            Some(alphas) => alphas.clone(),
            None => of_betas(config, kind)?,
        };
        let ends_without_noise = match kind {
            SchedulerKind::Pndm => config.set_alpha_to_one.unwrap_or(false),
            SchedulerKind::Ddim | SchedulerKind::Lcm => config.set_alpha_to_one.unwrap_or(true),
            _ => true,
        };
        let final_alpha = if ends_without_noise { 1.0 } else { cumulative_alphas[0] };
        Ok(Self { cumulative_alphas, final_alpha })
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

    /// The noise in the sample at each of these timesteps.
    ///
    /// # Errors
    /// As [`alpha`](Self::alpha).
    pub(super) fn noise_levels(&self, timesteps: &[i64]) -> Result<Vec<NoiseLevel>> {
        timesteps.iter().map(|&timestep| Ok(Level::of_alpha(self.alpha(timestep)?).in_sample())).collect()
    }

    /// Sigma at each training timestep, rising: the standard deviation of the noise over that of the signal.
    pub(super) fn sigmas(&self) -> Vec<f64> {
        let ratio = |&alpha: &f64| single(single(1.0 - alpha) / alpha);
        self.cumulative_alphas.iter().map(|alpha| single(ratio(alpha).sqrt())).collect()
    }
}

fn of_betas(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Vec<f64>> {
    /// What is left of the signal where a class keeps sigma finite.
    const TINY: f64 = 1.0 / 16_777_216.0;
    let mut betas = betas(config, kind)?;
    let zero = kind.class().zero_terminal_signal;
    let rescale = config.noise.rescale_betas_zero_snr && zero != ZeroTerminalSignal::Unknown;
    if rescale {
        rescale_to_zero_terminal_signal(&mut betas);
    }
    let mut alphas = running_products(betas.into_iter().map(|beta| single(1.0 - beta)));
    if rescale && zero == ZeroTerminalSignal::Tiny {
        alphas[config.train_timesteps - 1] = TINY;
    }
    Ok(alphas)
}

/// The running products, each rounded to f32 once, as PyTorch's are.
pub(super) fn running_products(factors: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut product = 1.0;
    let multiplied = factors.map(|factor| {
        product *= factor;
        single(product)
    });
    multiplied.collect()
}

/// The share of noise that each training timestep adds, rounded to f32.
fn betas(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Vec<f64>> {
    let keys = &config.noise;
    if let Some(betas) = &keys.trained_betas {
        return Ok(betas.iter().copied().map(single).collect());
    }
    let class = kind.class();
    let count = config.train_timesteps;
    let schedule = keys.beta_schedule.unwrap_or(class.beta_schedule);
    let (start, end) = (keys.beta_start.unwrap_or(class.beta_start), keys.beta_end.unwrap_or(class.beta_end));
    Ok(match schedule {
        BetaSchedule::Linear => linspace_single(start, end, count),
        BetaSchedule::ScaledLinear => linspace_single(start.sqrt(), end.sqrt(), count)
            .into_iter()
            .map(|root| single(root * root))
            .collect(),
        BetaSchedule::SquaredCosine => of_signal(squared_cosine, count),
        other if !class.further_beta_schedules.contains(&other) => return refuse(config, kind, other),
        BetaSchedule::Sigmoid => linspace_single(-6.0, 6.0, count)
            .into_iter()
            .map(|point| single(1.0 / (1.0 + (-point).exp())))
            .map(|share| single(single(share * single(end - start)) + single(start)))
            .collect(),
        BetaSchedule::Laplace => of_signal(laplace, count),
        BetaSchedule::Exponential => of_signal(|time| (-12.0 * time).exp(), count),
    })
}

fn refuse<T>(config: &SchedulerConfig, kind: SchedulerKind, found: BetaSchedule) -> Result<T> {
    let mut known = vec![BetaSchedule::Linear, BetaSchedule::ScaledLinear, BetaSchedule::SquaredCosine];
    known.extend(kind.class().further_beta_schedules);
    let known: Vec<String> = known.into_iter().map(|schedule| format!("\"{}\"", schedule.name())).collect();
    let problem = format!("{kind} supports {}; found \"{}\"", known.join(", "), found.name());
    config.refuse("beta_schedule", problem)
}

/// The betas that leave a given share of signal at each time from 0 to 1; at most 0.999.
fn of_signal(signal: impl Fn(f64) -> f64, count: usize) -> Vec<f64> {
    let at = |index: usize| signal(real(index) / real(count));
    (0..count).map(|index| single((1.0 - at(index + 1) / at(index)).min(0.999))).collect()
}

/// Nichol & Dhariwal 2021, <https://arxiv.org/abs/2102.09672>, equation 17.
fn squared_cosine(time: f64) -> f64 {
    const OFFSET: f64 = 0.008;
    ((time + OFFSET) / (1.0 + OFFSET) * std::f64::consts::FRAC_PI_2).cos().powi(2)
}

/// The signal whose ratio to the noise is distributed as Laplace: Hang et al. 2024,
/// <https://arxiv.org/abs/2407.03297>, in the form that `DDPMScheduler` gives it.
fn laplace(time: f64) -> f64 {
    let distance = 0.5 - time;
    let lambda = -0.5 * 1.0_f64.copysign(distance) * (1.0 - 2.0 * distance.abs() + 1e-6).ln();
    let ratio = lambda.exp();
    (ratio / (1.0 + ratio)).sqrt()
}

/// Shifts and scales the square roots of the signal so that the last is 0 and the first stays; every number in f32.
/// Lin, Liu, Li & Yang 2023, <https://arxiv.org/abs/2305.08891>, algorithm 1.
fn rescale_to_zero_terminal_signal(betas: &mut [f64]) {
    let alphas = running_products(betas.iter().map(|beta| single(1.0 - beta)));
    let roots: Vec<f64> = alphas.into_iter().map(|alpha| single(alpha.sqrt())).collect();
    let [first, .., last] = roots[..] else { return };
    let scale = single(first / single(first - last));
    let mut before = 1.0;
    for (beta, root) in betas.iter_mut().zip(roots) {
        let alpha = single(single(single(root - last) * scale).powi(2));
        *beta = single(1.0 - single(alpha / before));
        before = alpha;
    }
}

/// Evenly spaced numbers as PyTorch has them in f32: each half is counted from its own end.
pub(super) fn linspace_single(start: f64, end: f64, count: usize) -> Vec<f64> {
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
pub(super) fn single(number: f64) -> f64 {
    f64::from(number as f32)
}
