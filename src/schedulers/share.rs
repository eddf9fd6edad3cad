//! Parts of a run by the share of the noise schedule, for models that share a run.
//!
//! Balaji et al. 2022, *eDiff-I*, <https://arxiv.org/abs/2211.01324>: an ensemble of experts, each for some noise levels.

use std::ops::Range;

use super::config::SchedulerConfig;
use super::kind::SchedulerKind;
use super::timesteps::real;
use super::trajectory::Trajectory;
use crate::error::{Error, Result};

impl SchedulerConfig {
    /// The calls of a whole run between two shares of the training timesteps, counted from all noise (0) to none (1):
    /// those from `start` on, and those until `end`. A run that ends at a share and one that starts there make a whole one.
    ///
    /// As `denoising_start` and `denoising_end` of diffusers' SDXL pipelines.
    ///
    /// # Errors
    /// [`Error::Option`] naming `denoising start` or `denoising end` if a share is not between 0 and 1, if they are not in
    /// order, or if there are no calls between them.
    pub fn calls_between(
        &self,
        trajectory: &Trajectory,
        kind: SchedulerKind,
        start: Option<f64>,
        end: Option<f64>,
    ) -> Result<Range<usize>> {
        for (option, share) in [("denoising start", start), ("denoising end", end)] {
            if let Some(share) = share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
                return Err(Error::option(
                    option,
                    format!("expected more than 0 and less than 1, found {share}"),
                ));
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && start >= end
        {
            let problem = format!("{start} is not before the denoising end, {end}");
            return Err(Error::option("denoising start", problem));
        }
        let timesteps = &trajectory.timesteps;
        let training = real(self.train_timesteps);
        // The timestep that the two parts meet at, rounded as Python does.
        let cutoff = |share: f64| (training - share * training).round_ties_even();
        let mut first = 0;
        if let Some(start) = start {
            let cutoff = cutoff(start);
            let mut left = timesteps.iter().filter(|timestep| **timestep < cutoff).count();
            if left == 0 {
                let problem =
                    format!("no call of this run lies behind {start}: expected less, or more steps");
                return Err(Error::option("denoising start", problem));
            }
            // A step of two calls is not begun in its middle.
            if kind.calls_per_step() == 2 && left.is_multiple_of(2) {
                left += 1;
            }
            first = timesteps.len() - left.min(timesteps.len());
        }
        let mut last = timesteps.len();
        if let Some(end) = end {
            let cutoff = cutoff(end);
            last = first + timesteps[first..].iter().filter(|timestep| **timestep >= cutoff).count();
            if last == first {
                let problem = format!("no call of this run lies before {end}: expected more, or more steps");
                return Err(Error::option("denoising end", problem));
            }
        }
        Ok(first..last)
    }
}
