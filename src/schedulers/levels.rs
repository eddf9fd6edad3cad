//! The noise levels that a run goes through, for the samplers that work with sigmas.
//!
//! Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>, section 3: the sample is the clean one plus
//! sigma times noise, and the steps of a run are steps from one sigma to the next.

use super::config::{BetaSchedule, PredictionType, SchedulerConfig};
use super::kind::SchedulerKind;
use super::noise_schedule::{NoiseSchedule, linspace_single, single};
use super::options::{SamplerOptions, SigmaSpacing, TimestepSpacing};
use super::prediction::Level;
use super::sigmas::SigmaTable;
use super::timesteps::{downwards, fractional_timesteps, nearest, solver_timesteps};
use super::trajectory::{Call, NoiseLevel, Trajectory};
use crate::error::Result;

/// The timestep of each step, and the sigmas from which and to which the steps go.
pub(super) struct Levels {
    pub(super) timesteps: Vec<f64>,
    /// One more than timesteps, falling, rounded to f32 as diffusers' are.
    pub(super) sigmas: Vec<f64>,
    pub(super) table: SigmaTable,
    /// The standard deviation of the first sample, which here is not scaled down.
    pub(super) initial_sigma: f64,
}

/// Where the sigmas of a run end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Without noise.
    Zero,
    /// At the sigma of the first training timestep.
    Smallest,
    /// At the last sigma of the spacing once more, if there is a spacing; otherwise as [`Smallest`](Self::Smallest).
    Repeat,
}

impl Levels {
    /// The levels of the samplers of k-diffusion: Euler, Euler ancestral, Heun, DPM2 and LMS.
    pub(super) fn of_samplers(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Self> {
        let kind = options.kind;
        let table = SigmaTable::new(&NoiseSchedule::new(config, kind)?);
        let keys = EulerKeys::of(config, kind)?;
        let mut timesteps = fractional_timesteps(config, options)?;
        let mut sigmas: Vec<f64> = if keys.log_linear {
            // One more than there are steps, so that the run ends at the smallest, and not at what is put after it.
            let (from, to) = (single(table.last().ln()), single(table.first().ln()));
            let logarithms = linspace_single(from, to, options.steps + 1).into_iter();
            logarithms.map(|logarithm| single(logarithm.exp())).collect()
        } else {
            timesteps.iter().map(|&timestep| table.at(timestep)).collect()
        };
        let spacing = if kind.class().sigma_spacings { config.sigma_spacing(options)? } else { None };
        if let Some(spacing) = spacing {
            let ends_of_run = (sigmas[0], sigmas[sigmas.len() - 1]);
            // Only LMS does not let the file overrule the ends of Karras' spacing.
            let fixed = kind == SchedulerKind::Lms && spacing == SigmaSpacing::Karras;
            let (largest, smallest) = if fixed { ends_of_run } else { ends(config, ends_of_run) };
            sigmas = spacing.between(largest, smallest, options.steps);
            timesteps = sigmas.iter().map(|&sigma| table.timestep(sigma)).collect();
            if kind == SchedulerKind::Dpm2 && spacing == SigmaSpacing::Karras {
                timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
            }
        }
        sigmas.push(if keys.end == End::Zero { 0.0 } else { table.first() });
        sigmas.iter_mut().for_each(|sigma| *sigma = single(*sigma));
        if keys.continuous {
            timesteps = sigmas[..sigmas.len() - 1].iter().map(|sigma| 0.25 * sigma.ln()).collect();
        }
        sigmas.truncate(timesteps.len() + 1);
        timesteps.iter_mut().for_each(|timestep| *timestep = single(*timestep));
        let largest = sigmas.iter().copied().fold(0.0, f64::max);
        let is_scaled = config.spacing(options) == Some(TimestepSpacing::Leading);
        let initial_sigma = if is_scaled { largest.hypot(1.0) } else { largest };
        Ok(Self { timesteps, sigmas, table, initial_sigma })
    }

    /// The levels of the solvers: DPM-Solver, `UniPC` and DEIS, whose samples are scaled to a variance of 1.
    pub(super) fn of_solvers(config: &SchedulerConfig, options: &SamplerOptions) -> Result<Self> {
        config.refuse_flow()?;
        let kind = options.kind;
        let schedule = NoiseSchedule::new(config, kind)?;
        let table = SigmaTable::new(&schedule);
        let is_dpm_solver = !matches!(kind, SchedulerKind::UniPc | SchedulerKind::Deis);
        let is_multistep = is_dpm_solver && kind != SchedulerKind::DpmPlusPlus2s;
        let last = if is_dpm_solver { timesteps_above(config, &schedule)? } else { config.train_timesteps };
        let spaced = solver_timesteps(config, options, last)?;
        let spacing = config.sigma_spacing(options)?;
        // Evenly in the logarithm of signal over noise, which Karras' spacing and the caller overrule.
        let lu = is_multistep
            && config.sigmas.use_lu_lambdas
            && options.sigmas.is_none()
            && spacing != Some(SigmaSpacing::Karras);
        let spaced_sigmas = if lu {
            Some(table.evenly_in_the_logarithm(options.steps))
        } else {
            let (largest, smallest) = ends(config, (table.last(), table.first()));
            spacing.map(|spacing| spacing.between(largest, smallest, options.steps))
        };
        let is_spaced = spaced_sigmas.is_some();
        let (timesteps, mut sigmas) = if let Some(sigmas) = spaced_sigmas {
            let cosine = config.noise.beta_schedule == Some(BetaSchedule::SquaredCosine);
            let rounds = (lu || spacing == Some(SigmaSpacing::Karras)) && !(is_multistep && cosine);
            let round = if rounds { nearest } else { downwards };
            (sigmas.iter().map(|&sigma| round(table.timestep(sigma))).collect(), sigmas)
        } else {
            let sigmas = spaced.iter().map(|&timestep| table.at(timestep as f64)).collect();
            (spaced, sigmas)
        };
        sigmas.push(match End::of_solver(config, kind)? {
            End::Zero => 0.0,
            End::Repeat if is_spaced => sigmas[sigmas.len() - 1],
            End::Smallest | End::Repeat => table.first(),
        });
        sigmas.iter_mut().for_each(|sigma| *sigma = single(*sigma));
        let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
        Ok(Self { timesteps, sigmas, table, initial_sigma: 1.0 })
    }

    /// Each step's sigma and the next one.
    pub(super) fn steps(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.sigmas.windows(2).map(|pair| (pair[0], pair[1]))
    }

    /// The noise in each step's sample, which is scaled to a variance of 1.
    pub(super) fn scaled(&self) -> Vec<NoiseLevel> {
        self.steps().map(|(sigma, _)| Level::of_sigma(sigma).in_sample()).collect()
    }

    /// The noise in the sample of each call, which is not scaled, with so many calls per step but for the last.
    /// Calls within a step are at the level that it leads to.
    pub(super) fn unscaled(&self, calls_per_step: usize) -> Vec<NoiseLevel> {
        let steps = self.sigmas[..self.timesteps.len()].iter().enumerate();
        let of_step = |(step, &sigma): (usize, &f64)| {
            let calls = if step == 0 { 1 } else { calls_per_step };
            vec![NoiseLevel { signal: 1.0, noise: sigma }; calls]
        };
        steps.flat_map(of_step).collect()
    }

    /// The plan of one call per step.
    pub(super) fn trajectory(
        self,
        history: usize,
        noise_levels: Vec<NoiseLevel>,
        calls: Vec<Call>,
    ) -> Trajectory {
        let Self { timesteps, sigmas, initial_sigma, .. } = self;
        Trajectory { timesteps, sigmas: Some(sigmas), initial_sigma, history, noise_levels, calls }
    }
}

/// The scale of the model's input for a sample that is not scaled down.
pub(super) fn input_scale(sigma: f64) -> f64 {
    sigma.hypot(1.0).recip()
}

/// The ends of a spacing, largest and smallest: those of the schedule, unless the file says otherwise.
fn ends(config: &SchedulerConfig, (largest, smallest): (f64, f64)) -> (f64, f64) {
    (config.sigmas.sigma_max.unwrap_or(largest), config.sigmas.sigma_min.unwrap_or(smallest))
}

impl End {
    fn of_file(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        let choices = [("zero", Self::Zero), ("sigma_min", Self::Smallest)];
        config.choose(kind, "final_sigmas_type", config.sigmas.final_sigmas_type.as_deref(), &choices)
    }

    fn of_solver(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        Ok(match kind {
            SchedulerKind::Deis => Self::Repeat,
            SchedulerKind::UniPc if Self::of_file(config, kind)? == Self::Smallest => Self::Repeat,
            _ => Self::of_file(config, kind)?,
        })
    }
}

/// The keys that only `EulerDiscreteScheduler` knows, as they are for the others.
struct EulerKeys {
    /// Sigmas evenly in the logarithm, whatever the timesteps.
    log_linear: bool,
    /// The model is given a quarter of the logarithm of sigma for a timestep: a model of Karras et al.
    continuous: bool,
    end: End,
}

impl EulerKeys {
    fn of(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        if kind != SchedulerKind::Euler {
            return Ok(Self { log_linear: false, continuous: false, end: End::Zero });
        }
        let keys = &config.sigmas;
        let interpolations = [("linear", false), ("log_linear", true)];
        let types = [("discrete", false), ("continuous", true)];
        let found = keys.interpolation_type.as_deref();
        let log_linear = config.choose(kind, "interpolation_type", found, &interpolations)?;
        let continuous = config.choose(kind, "timestep_type", keys.timestep_type.as_deref(), &types)?;
        // With other predictions diffusers gives the model its timesteps all the same.
        let continuous = continuous && config.prediction(kind)? == PredictionType::Velocity;
        Ok(Self { log_linear, continuous, end: End::of_file(config, kind)? })
    }
}

/// How many training timesteps have a logarithmic ratio of signal to noise of at least `lambda_min_clipped`.
fn timesteps_above(config: &SchedulerConfig, schedule: &NoiseSchedule) -> Result<usize> {
    let least = config.sigmas.lambda_min_clipped.unwrap_or(f64::NEG_INFINITY);
    let lambda = |alpha: f64| {
        let logarithm = |share: f64| single(single(share.sqrt()).ln());
        single(logarithm(alpha) - logarithm(single(1.0 - alpha)))
    };
    let above = schedule.cumulative_alphas.iter().filter(|alpha| lambda(**alpha) >= least).count();
    if above == 0 {
        let problem = format!("leaves no timestep: expected less than {least}");
        return config.refuse("lambda_min_clipped", problem);
    }
    Ok(above)
}
