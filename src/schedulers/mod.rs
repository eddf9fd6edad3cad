//! Schedulers: which timesteps the U-Net is asked for, and how its answers move the sample.
//!
//! A run is planned up front.
//! Every step of every sampler here is a linear map, the same for each element of the planes:
//!
//! ```text
//! [sample'; history'] = matrix · [sample; model output; noise; limited prediction; history]
//! ```
//!
//! so that one small kernel with one small matrix per call serves them all, and the numbers are made here, in
//! f64, without a tensor in sight.
//!
//! ```
//! use deepcache::schedulers::{SamplerOptions, SchedulerConfig, SchedulerKind, SigmaSpacing};
//!
//! let text = r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
//!                "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
//! let config = SchedulerConfig::from_json("scheduler_config.json", text)?;
//! let trajectory = config.trajectory(&SamplerOptions::new(SchedulerKind::Ddim, 4))?;
//! assert_eq!(trajectory.timesteps, [751.0, 501.0, 251.0, 1.0]);
//!
//! let karras = Some(SigmaSpacing::Karras);
//! let options = SamplerOptions { sigmas: karras, ..SamplerOptions::new(SchedulerKind::DpmPlusPlus2m, 4) };
//! assert_eq!(config.trajectory(&options)?.timesteps, [999.0, 687.0, 146.0, 0.0]);
//! # Ok::<(), deepcache::Error>(())
//! ```
//!
//! | sampler | history planes |
//! |---|---|
//! | ddpm, ddim, euler, euler-ancestral, lcm | 0 |
//! | heun, dpm2 | 1 |
//! | lms | 3 |
//! | dpmpp-2m, dpmpp-2m-sde, dpmpp-3m, deis | one less than the order |
//! | dpmpp-2s | as many as the order, but none for order 1 |
//! | unipc | one more than the order |
//! | pndm | 3, or 5 with Runge-Kutta steps |

#![warn(clippy::integer_division)]

mod beta_quantile;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod dpm2;
mod dpm_multistep;
mod dpm_singlestep;
mod dpm_solver;
mod entries;
mod euler;
mod euler_ancestral;
mod heun;
mod kind;
mod lcm;
mod levels;
mod lms;
mod noise_schedule;
mod options;
mod original;
mod pndm;
mod prediction;
mod row;
mod share;
mod sigmas;
mod timesteps;
mod trajectory;
mod unipc;

pub use config::SchedulerConfig;
pub use kind::SchedulerKind;
pub use options::{SamplerOptions, SigmaSpacing, TimestepSpacing};
pub use trajectory::{Call, Limit, NoiseLevel, Prediction, Trajectory};

use std::ops::Range;

use crate::error::{Error, Result};

impl SchedulerConfig {
    /// Plans a run.
    ///
    /// The sampler is the class of diffusers that its [kind](SchedulerKind) names, with the keys of this file that the
    /// class knows, and the class's defaults for the others.
    /// Where the kind is [what the file was written for](Self::kind), the file's own `algorithm_type` and
    /// `solver_order` hold; otherwise those that the sampler's name stands for.
    ///
    /// Some samplers make more calls than steps: Heun and DPM2 twice as many but one; PNDM one more without
    /// Runge-Kutta steps and nine more with them; [uniform](TimestepSpacing::Uniform) timesteps as many as fit.
    ///
    /// # Errors
    /// [`Error::Option`] naming `steps`, `eta`, `sigmas` or `timestep spacing` if this sampler cannot honour it,
    /// [`Error::Config`] naming the key of the file that this sampler cannot do.
    pub fn trajectory(&self, options: &SamplerOptions) -> Result<Trajectory> {
        finite(self, options, self.plan(options, 0)?)
    }

    /// Plans some calls of a run, as if it were begun with the first of them: the timesteps are those of the whole run,
    /// but nothing is remembered of the calls before, so samplers that look back begin anew.
    ///
    /// A run from a picture is that from a later call on: `scheduler.set_begin_index` and `timesteps[begin:]` of
    /// diffusers. [`Trajectory::start_from`] makes its first sample.
    /// Calls are counted as in the whole run; a step takes [so many](SchedulerKind::calls_per_step).
    ///
    /// PNDM takes the step of its second call again, whichever timestep that has, so a run from the third call on begins
    /// a timestep behind its sample; that is what diffusers does.
    ///
    /// # Errors
    /// As [`trajectory`](Self::trajectory); also [`Error::Option`] naming `calls` if the range is empty, reaches beyond
    /// the run or begins in the middle of a step.
    pub fn trajectory_part(&self, options: &SamplerOptions, calls: Range<usize>) -> Result<Trajectory> {
        let trajectory = self.plan(options, calls.start)?;
        let count = trajectory.calls.len();
        if calls.is_empty() || calls.end > count {
            let problem = format!("expected some of {count} calls, found {} to {}", calls.start, calls.end);
            return Err(Error::option("calls", problem));
        }
        let per_step = options.kind.calls_per_step();
        if !calls.start.is_multiple_of(per_step) {
            let problem = format!(
                "{} takes {per_step} calls for a step: expected a multiple of {per_step} to begin with, found {}",
                options.kind, calls.start
            );
            return Err(Error::option("calls", problem));
        }
        finite(self, options, trajectory.only(calls))
    }

    /// Plans a whole run, whose history begins with the call `begin`.
    fn plan(&self, options: &SamplerOptions, begin: usize) -> Result<Trajectory> {
        self.check(options)?;
        match options.kind {
            SchedulerKind::Ddpm => ddpm::trajectory(self, options),
            SchedulerKind::Ddim => ddim::trajectory(self, options),
            SchedulerKind::Pndm => pndm::trajectory(self, options, begin),
            SchedulerKind::Euler => euler::trajectory(self, options),
            SchedulerKind::EulerAncestral => euler_ancestral::trajectory(self, options),
            SchedulerKind::Heun => heun::trajectory(self, options),
            SchedulerKind::Dpm2 => dpm2::trajectory(self, options),
            SchedulerKind::Lms => lms::trajectory(self, options),
            SchedulerKind::DpmPlusPlus2m | SchedulerKind::DpmPlusPlus2mSde | SchedulerKind::DpmPlusPlus3m => {
                dpm_multistep::trajectory(self, options, begin)
            }
            SchedulerKind::DpmPlusPlus2s => dpm_singlestep::trajectory(self, options, begin),
            SchedulerKind::UniPc => unipc::trajectory(self, options, begin),
            SchedulerKind::Deis => deis::trajectory(self, options, begin),
            SchedulerKind::Lcm => lcm::trajectory(self, options),
        }
    }

    /// Whether the sampler can honour what the caller asks for, as far as this does not depend on the timesteps.
    fn check(&self, options: &SamplerOptions) -> Result<()> {
        let SamplerOptions { kind, steps, eta, sigmas, timestep_spacing, distillation_share: share } =
            *options;
        let class = kind.class();
        if !(1..=self.train_timesteps).contains(&steps) {
            let problem = format!("expected 1 to {} steps, found {steps}", self.train_timesteps);
            return Err(Error::option("steps", problem));
        }
        if kind == SchedulerKind::Ddim {
            if !(0.0..=1.0).contains(&eta) {
                return Err(Error::option("eta", format!("expected 0 to 1, found {eta}")));
            }
        } else if eta != 0.0 {
            let problem = if kind.is_stochastic(0.0) {
                format!("{kind} has no say in how much noise it adds: expected 0, found {eta}")
            } else {
                format!("{kind} adds no noise: expected 0, found {eta}")
            };
            return Err(Error::option("eta", problem));
        }
        let expected = if kind == SchedulerKind::Lcm { "above 0 and at most 1" } else { "1" };
        if !(share > 0.0 && share <= 1.0) || (kind != SchedulerKind::Lcm && share < 1.0) {
            let problem = format!("{kind}: expected {expected}, found {share}");
            return Err(Error::option("distillation share", problem));
        }
        if let (Some(spacing), false) = (sigmas, class.sigma_spacings) {
            let problem = format!("{kind} has no sigmas to space: expected none, found {spacing}");
            return Err(Error::option("sigmas", problem));
        }
        if let Some(spacing) = timestep_spacing
            && !class.spacings.contains(&spacing)
        {
            let known: Vec<&str> = class.spacings.iter().map(|spacing| spacing.name()).collect();
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let problem = format!("{kind} knows {expected}; found {spacing}");
            return Err(Error::option("timestep spacing", problem));
        }
        Ok(())
    }

    /// Says why a call has weights that are no numbers.
    fn refuse_division_by_zero<T>(
        &self,
        options: &SamplerOptions,
        trajectory: &Trajectory,
        index: usize,
    ) -> Result<T> {
        let timestep = trajectory.timesteps[index];
        let sigmas = trajectory.sigmas.as_deref().unwrap_or_default();
        if sigmas.windows(2).any(|pair| pair[0] == pair[1]) {
            let problem = format!(
                "{} steps visit the same noise level twice, which {} cannot do; choose fewer",
                options.steps, options.kind
            );
            return Err(Error::option("steps", problem));
        }
        if index + 1 == trajectory.calls.len() && sigmas.last() == Some(&0.0) {
            let problem = format!(
                "{} divides by zero in its last step with these keys: expected \"sigma_min\", found \"zero\"",
                options.kind
            );
            return self.refuse("final_sigmas_type", problem);
        }
        let problem = format!("divides by zero at timestep {timestep}, where no signal or no noise is left");
        self.refuse("prediction_type", problem)
    }
}

/// The trajectory, if all its weights are numbers.
fn finite(config: &SchedulerConfig, options: &SamplerOptions, trajectory: Trajectory) -> Result<Trajectory> {
    match trajectory.calls.iter().position(|call| !call.is_finite()) {
        None => Ok(trajectory),
        Some(index) => config.refuse_division_by_zero(options, &trajectory, index),
    }
}
