//! `scheduler_config.json`: read, checked, and nothing in it passed over in silence.

use std::path::{Path, PathBuf};

use super::entries::{Entries, MOST_TRAIN_TIMESTEPS};
use super::kind::{Class, SchedulerKind};
use super::noise_schedule::NoiseSchedule;
use super::options::{SamplerOptions, SigmaSpacing, TimestepSpacing};
use super::trajectory::Limit;
use crate::error::{Error, Result};

/// The contents of `scheduler_config.json`, for any sampler.
///
/// The file may have been written for another scheduler class than the one that is used: as in diffusers, keys that
/// only other classes know are ignored, and keys that are absent take the default of the class that is used.
/// A key that no class knows is an error, unless it starts with `_`.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulerConfig {
    pub(super) file: PathBuf,
    pub(super) class_name: Option<String>,
    pub(super) train_timesteps: usize,
    pub(super) noise: NoiseKeys,
    pub(super) prediction_type: PredictionType,
    pub(super) timestep_spacing: Option<TimestepSpacing>,
    pub(super) steps_offset: i64,
    /// Absent: true for DDIM and LCM, false for PNDM.
    pub(super) set_alpha_to_one: Option<bool>,
    pub(super) limits: LimitKeys,
    pub(super) skip_prk_steps: bool,
    pub(super) variance_type: Option<String>,
    pub(super) sigmas: SigmaKeys,
    pub(super) solver: SolverKeys,
    pub(super) original_inference_steps: Option<usize>,
    pub(super) timestep_scaling: Option<f64>,
}

/// What decides the noise schedule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NoiseKeys {
    pub(super) beta_start: Option<f64>,
    pub(super) beta_end: Option<f64>,
    pub(super) beta_schedule: Option<BetaSchedule>,
    pub(super) trained_betas: Option<Vec<f64>>,
    pub(super) rescale_betas_zero_snr: bool,
    /// The share of signal at each training timestep, of a model that does not come from diffusers;
    /// takes the place of all betas.
    pub(super) cumulative_alphas: Option<Vec<f64>>,
}

/// What decides how the predicted clean sample is limited.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LimitKeys {
    pub(super) clip_sample: Option<bool>,
    pub(super) clip_sample_range: Option<f64>,
    pub(super) thresholding: bool,
    pub(super) dynamic_thresholding_ratio: Option<f64>,
    pub(super) sample_max_value: Option<f64>,
}

/// What decides the noise levels of the samplers that work with sigmas.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SigmaKeys {
    use_karras_sigmas: bool,
    use_exponential_sigmas: bool,
    use_beta_sigmas: bool,
    pub(super) use_lu_lambdas: bool,
    pub(super) sigma_min: Option<f64>,
    pub(super) sigma_max: Option<f64>,
    pub(super) final_sigmas_type: Option<String>,
    pub(super) interpolation_type: Option<String>,
    pub(super) timestep_type: Option<String>,
    pub(super) lambda_min_clipped: Option<f64>,
    /// The first key that asks for flow matching, which no sampler here does.
    flow: Option<&'static str>,
}

/// What decides the order and the form of a solver.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SolverKeys {
    pub(super) algorithm_type: Option<String>,
    pub(super) order: Option<usize>,
    pub(super) solver_type: Option<String>,
    pub(super) lower_order_final: Option<bool>,
    pub(super) euler_at_final: bool,
    pub(super) predict_x0: Option<bool>,
    pub(super) disable_corrector: Vec<i64>,
    pub(super) has_other_predictor: bool,
}

/// How the noise grows with the timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
    Sigmoid,
    Laplace,
    Exponential,
}

impl BetaSchedule {
    const NAMES: [(&'static str, Self); 6] = [
        ("linear", Self::Linear),
        ("scaled_linear", Self::ScaledLinear),
        ("squaredcos_cap_v2", Self::SquaredCosine),
        ("sigmoid", Self::Sigmoid),
        ("laplace", Self::Laplace),
        ("exp", Self::Exponential),
    ];

    /// The name in `scheduler_config.json`.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, schedule)| *schedule == self).map_or("", |(name, _)| name)
    }
}

/// What the model's output means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PredictionType {
    /// The noise in the sample.
    #[default]
    Epsilon,
    /// Salimans & Ho 2022, <https://arxiv.org/abs/2202.00512>: `signal · noise - noise level · clean sample`.
    Velocity,
    /// The clean sample.
    Sample,
}

impl PredictionType {
    const NAMES: [(&'static str, Self); 3] =
        [("epsilon", Self::Epsilon), ("v_prediction", Self::Velocity), ("sample", Self::Sample)];

    /// The name in `scheduler_config.json`.
    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, otherwise as [`from_json`](Self::from_json).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
        Self::from_json(path, &text)
    }

    /// Reads the text of a `scheduler_config.json`; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown, of the wrong type or out of range.
    /// A key that asks for what the sampler cannot do is found by [`trajectory`](Self::trajectory), because it
    /// depends on the sampler.
    pub fn from_json(path: impl AsRef<Path>, text: &str) -> Result<Self> {
        let file = path.as_ref();
        let entries = Entries::parse(file, text)?;
        let train_timesteps = entries.count("num_train_timesteps", MOST_TRAIN_TIMESTEPS)?.unwrap_or(1000);
        let spacings = [TimestepSpacing::Leading, TimestepSpacing::Linspace, TimestepSpacing::Trailing]
            .map(|spacing| (spacing.name(), spacing));
        let flow = ["use_flow_sigmas", "use_dynamic_shifting", "shift_terminal"];
        Ok(Self {
            file: file.to_owned(),
            class_name: entries.word("_class_name")?,
            train_timesteps,
            noise: NoiseKeys::read(&entries, train_timesteps)?,
            prediction_type: entries.choice("prediction_type", &PredictionType::NAMES)?.unwrap_or_default(),
            timestep_spacing: entries.choice("timestep_spacing", &spacings)?,
            steps_offset: entries.steps_offset()?,
            set_alpha_to_one: entries.flag("set_alpha_to_one")?,
            limits: LimitKeys {
                clip_sample: entries.flag("clip_sample")?,
                clip_sample_range: entries.number("clip_sample_range", is_positive, POSITIVE)?,
                thresholding: entries.flag("thresholding")?.unwrap_or(false),
                dynamic_thresholding_ratio: entries.number(
                    "dynamic_thresholding_ratio",
                    |ratio| (0.0..=1.0).contains(&ratio),
                    "a number from 0 to 1",
                )?,
                sample_max_value: entries.number("sample_max_value", is_positive, POSITIVE)?,
            },
            skip_prk_steps: entries.flag("skip_prk_steps")?.unwrap_or(false),
            variance_type: entries.word("variance_type")?,
            sigmas: SigmaKeys {
                use_karras_sigmas: entries.flag("use_karras_sigmas")?.unwrap_or(false),
                use_exponential_sigmas: entries.flag("use_exponential_sigmas")?.unwrap_or(false),
                use_beta_sigmas: entries.flag("use_beta_sigmas")?.unwrap_or(false),
                use_lu_lambdas: entries.flag("use_lu_lambdas")?.unwrap_or(false),
                sigma_min: entries.number("sigma_min", is_positive, POSITIVE)?,
                sigma_max: entries.number("sigma_max", is_positive, POSITIVE)?,
                final_sigmas_type: entries.word("final_sigmas_type")?,
                interpolation_type: entries.word("interpolation_type")?,
                timestep_type: entries.word("timestep_type")?,
                lambda_min_clipped: entries.number_or_minus_infinity("lambda_min_clipped")?,
                flow: flow.into_iter().find(|key| entries.asks(key)),
            },
            solver: SolverKeys {
                algorithm_type: entries.word("algorithm_type")?,
                order: entries.count("solver_order", MOST_SOLVER_ORDER)?,
                solver_type: entries.word("solver_type")?,
                lower_order_final: entries.flag("lower_order_final")?,
                euler_at_final: entries.flag("euler_at_final")?.unwrap_or(false),
                predict_x0: entries.flag("predict_x0")?,
                disable_corrector: entries.whole_numbers("disable_corrector")?,
                has_other_predictor: entries.asks("solver_p"),
            },
            original_inference_steps: entries.count("original_inference_steps", MOST_TRAIN_TIMESTEPS)?,
            timestep_scaling: entries.number("timestep_scaling", is_positive, POSITIVE)?,
        })
    }

    /// The diffusers class that the file was written for, if it says so.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.class_name.as_deref()
    }

    /// The sampler that the file was written for; `None` if it does not say so, or names a class that is not here.
    ///
    /// `DPMSolverMultistepScheduler` is the stochastic sampler where its `algorithm_type` starts with `sde-`, the
    /// one with three outputs where its `solver_order` is 3, and otherwise `dpmpp-2m`; used as this sampler, the
    /// file's own algorithm, order and form hold.
    #[must_use]
    pub fn kind(&self) -> Option<SchedulerKind> {
        let kind = SchedulerKind::from_class_name(self.class_name()?)?;
        if kind != SchedulerKind::DpmPlusPlus2m {
            return Some(kind);
        }
        let algorithm = self.solver.algorithm_type.as_deref();
        Some(match (algorithm, self.solver.order) {
            (Some(algorithm), _) if algorithm.starts_with("sde-") => SchedulerKind::DpmPlusPlus2mSde,
            (_, Some(3)) => SchedulerKind::DpmPlusPlus3m,
            _ => kind,
        })
    }

    /// The share of signal (variance) left at each training timestep, diffusers' `alphas_cumprod`: unitless, one
    /// per training timestep, falling from nearly 1.
    ///
    /// # Errors
    /// [`Error::Config`] if the sampler's class does not know the file's `beta_schedule`.
    pub fn cumulative_alphas(&self, kind: SchedulerKind) -> Result<Vec<f64>> {
        Ok(NoiseSchedule::new(self, kind)?.cumulative_alphas)
    }

    pub(super) fn refuse<T>(&self, key: &str, problem: impl Into<String>) -> Result<T> {
        Err(Error::config(&self.file, key, problem))
    }

    /// One of the values that a class knows for a key; the first where the key is absent.
    pub(super) fn choose<T: Copy>(
        &self,
        kind: SchedulerKind,
        key: &str,
        found: Option<&str>,
        choices: &[(&str, T)],
    ) -> Result<T> {
        let Some(word) = found else { return Ok(choices[0].1) };
        match choices.iter().find(|(name, _)| *name == word) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse(key, format!("{kind} supports {}; found \"{word}\"", names.join(", ")))
            }
        }
    }

    /// What the model's output means, if the sampler can work with it.
    pub(super) fn prediction(&self, kind: SchedulerKind) -> Result<PredictionType> {
        let known = kind.class().predictions;
        if known.contains(&self.prediction_type) {
            return Ok(self.prediction_type);
        }
        let names: Vec<String> = known.iter().map(|kind| format!("\"{}\"", kind.name())).collect();
        let found = self.prediction_type.name();
        self.refuse("prediction_type", format!("{kind} supports {}; found \"{found}\"", names.join(", ")))
    }

    /// How the predicted clean sample is limited: dynamic thresholding goes before clipping.
    pub(super) fn limit(&self, kind: SchedulerKind) -> Option<Limit> {
        let Class { thresholding, clip_sample, .. } = kind.class();
        let keys = &self.limits;
        if thresholding && keys.thresholding {
            let (ratio, most) = (keys.dynamic_thresholding_ratio, keys.sample_max_value);
            return Some(Limit::Quantile { ratio: ratio.unwrap_or(0.995), most: most.unwrap_or(1.0) });
        }
        let clips = clip_sample.is_some_and(|default| keys.clip_sample.unwrap_or(default));
        clips.then(|| Limit::Clamp { range: keys.clip_sample_range.unwrap_or(1.0) })
    }

    /// The spacing of the timesteps: the caller's, or the file's where the sampler knows it, or the class's.
    /// `None` for a class that has a rule of its own.
    pub(super) fn spacing(&self, options: &SamplerOptions) -> Option<TimestepSpacing> {
        let known = options.kind.class().spacings;
        let wanted = options.timestep_spacing.or(self.timestep_spacing);
        wanted.filter(|spacing| known.contains(spacing)).or_else(|| known.first().copied())
    }

    /// The spacing of the sigmas: the caller's or the file's.
    ///
    /// # Errors
    /// [`Error::Config`] if the file asks for two at once.
    pub(super) fn sigma_spacing(&self, options: &SamplerOptions) -> Result<Option<SigmaSpacing>> {
        let keys = &self.sigmas;
        let wanted: Vec<_> = [
            ("use_karras_sigmas", keys.use_karras_sigmas, SigmaSpacing::Karras),
            ("use_exponential_sigmas", keys.use_exponential_sigmas, SigmaSpacing::Exponential),
            ("use_beta_sigmas", keys.use_beta_sigmas, SigmaSpacing::Beta),
        ]
        .into_iter()
        .filter(|(_, wanted, _)| *wanted)
        .collect();
        match (options.sigmas, &wanted[..]) {
            (Some(spacing), _) | (None, &[(_, _, spacing)]) => Ok(Some(spacing)),
            (None, []) => Ok(None),
            (None, [(first, ..), (second, ..), ..]) => {
                self.refuse(first, format!("expected one spacing of the sigmas, found \"{second}\" too"))
            }
        }
    }

    /// # Errors
    /// [`Error::Config`] naming the key that asks for flow matching; for the classes that know it.
    pub(super) fn refuse_flow(&self) -> Result<()> {
        let problem = "flow matching is not supported: expected false or null";
        self.sigmas.flow.map_or(Ok(()), |key| self.refuse(key, problem))
    }
}

impl NoiseKeys {
    fn read(entries: &Entries<'_>, train_timesteps: usize) -> Result<Self> {
        let trained_betas = entries.trained_betas(train_timesteps)?;
        let beta_schedule = entries.choice("beta_schedule", &BetaSchedule::NAMES);
        Ok(Self {
            beta_start: entries.number("beta_start", is_beta, BETA)?,
            beta_end: entries.number("beta_end", is_beta, BETA)?,
            // With betas of its own, a model's file may name a schedule that nobody knows.
            beta_schedule: if trained_betas.is_some() {
                beta_schedule.unwrap_or(None)
            } else {
                beta_schedule?
            },
            trained_betas,
            rescale_betas_zero_snr: entries.flag("rescale_betas_zero_snr")?.unwrap_or(false),
            cumulative_alphas: None,
        })
    }
}

/// No solver of diffusers has a higher one; which orders a sampler can do is its own affair.
const MOST_SOLVER_ORDER: usize = 100;

pub(super) const BETA: &str = "a number above 0 and below 1";
const POSITIVE: &str = "a number above 0";

pub(super) fn is_beta(beta: f64) -> bool {
    beta > 0.0 && beta < 1.0
}

fn is_positive(number: f64) -> bool {
    number > 0.0
}
