//! Euler ancestral: Euler's method to less noise than the next sigma has, and new noise up to it.
//!
//! The variance of the new noise is that of the posterior of DDPM, written with sigmas: Song et al. 2020,
//! <https://arxiv.org/abs/2011.13456>, appendix F, equation 47; so a run is DDPM's with its small variance.
//! Agrees with `EulerAncestralDiscreteScheduler` of diffusers. The last draw has no weight, but is drawn.

use super::config::SchedulerConfig;
use super::euler::slope;
use super::levels::{Levels, input_scale};
use super::options::SamplerOptions;
use super::row::{NOISE, Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let levels = Levels::of_samplers(config, options)?;
    let calls = levels.steps().map(|(sigma, next)| {
        let (slope, _) = slope(kind, sigma, None);
        let down = next * next / sigma;
        let up = (next * next - down * down).max(0.0).sqrt();
        let moved = Row::sum([(1.0, Row::column(SAMPLE)), (down - sigma, slope), (up, Row::column(NOISE))]);
        let call = Call::from_rows(0, &[moved]);
        Call { input_scale: input_scale(sigma), uses_noise: true, ..call }
    });
    let calls = calls.collect();
    let noise_levels = levels.unscaled(1);
    Ok(levels.trajectory(0, noise_levels, calls))
}
