//! Euler's method: from one sigma to the next along the straight line away from the predicted clean sample.
//!
//! Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>: the slope is equation 3, the step that of
//! algorithm 1 without its second half.
//! Agrees with `EulerDiscreteScheduler` of diffusers without churn.

use super::config::{PredictionType, SchedulerConfig};
use super::levels::{Levels, input_scale};
use super::options::SamplerOptions;
use super::prediction::{Level, limited};
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Limit, Prediction, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Trajectory> {
    let kind = config.prediction(options.kind)?;
    let levels = Levels::of_samplers(config, options)?;
    let calls = levels.steps().map(|(sigma, next)| {
        let (slope, _) = slope(kind, sigma, None);
        let moved = Row::column(SAMPLE) + (next - sigma) * slope;
        Call { input_scale: input_scale(sigma), ..Call::from_rows(0, &[moved]) }
    });
    let calls = calls.collect();
    let noise_levels = levels.unscaled(1);
    Ok(levels.trajectory(0, noise_levels, calls))
}

/// How the sample grows with sigma, which is the noise in it: `(sample - clean sample) / sigma`.
pub(super) fn slope(kind: PredictionType, sigma: f64, limit: Option<Limit>) -> (Row, Option<Prediction>) {
    let (clean, prediction) = limited(Level::of_sigma(sigma).clean_unscaled(kind), limit);
    (sigma.recip() * (Row::column(SAMPLE) - clean), prediction)
}
