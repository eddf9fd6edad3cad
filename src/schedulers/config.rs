//! `scheduler_config.json`: read, checked, and nothing in it passed over in silence.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{SchedulerKind, ddim, pndm};
use crate::error::{Error, Result};

/// More training timesteps than any model has, and few enough for a table.
const MOST_TRAIN_TIMESTEPS: usize = 1_000_000;

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
    pub(super) beta_start: f64,
    pub(super) beta_end: f64,
    pub(super) beta_schedule: BetaSchedule,
    pub(super) trained_betas: Option<Vec<f64>>,
    pub(super) prediction_type: PredictionType,
    pub(super) timestep_spacing: TimestepSpacing,
    pub(super) steps_offset: i64,
    /// Absent: true for DDIM, false for PNDM.
    pub(super) set_alpha_to_one: Option<bool>,
    /// Absent: true for DDIM; PNDM has no such key.
    pub(super) clip_sample: Option<bool>,
    pub(super) clip_sample_range: f64,
    pub(super) rescale_betas_zero_snr: bool,
    pub(super) thresholding: bool,
    pub(super) skip_prk_steps: bool,
}

/// How the noise grows with the timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

/// What the model's output means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PredictionType {
    /// The noise in the sample.
    Epsilon,
    /// Salimans & Ho 2022, <https://arxiv.org/abs/2202.00512>: `signal · noise - noise level · clean sample`.
    Velocity,
    /// The clean sample.
    Sample,
}

/// Which timesteps a run visits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimestepSpacing {
    Linspace,
    Leading,
    Trailing,
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
    /// [`Error::Config`] naming the key that is unknown, of the wrong type, out of range, or asks for something
    /// unsupported.
    pub fn from_json(path: impl AsRef<Path>, text: &str) -> Result<Self> {
        let file = path.as_ref();
        let entries = match serde_json::from_str(text) {
            Ok(Value::Object(entries)) => entries,
            Ok(_) => return Err(Error::config_file(file, "expected a JSON object")),
            Err(error) => return Err(Error::config_file(file, format!("is not JSON: {error}"))),
        };
        let entries = Entries { file, entries };
        entries.refuse_unknown_keys()?;

        let train_timesteps = entries.train_timesteps()?;
        let trained_betas = entries.trained_betas(train_timesteps)?;
        let schedules = [
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
        ];
        let predictions = [
            ("epsilon", PredictionType::Epsilon),
            ("v_prediction", PredictionType::Velocity),
            ("sample", PredictionType::Sample),
        ];
        let spacings = [
            ("leading", TimestepSpacing::Leading),
            ("linspace", TimestepSpacing::Linspace),
            ("trailing", TimestepSpacing::Trailing),
        ];
        // With betas of its own, a model's file may name a schedule that nobody knows.
        let beta_schedule = match trained_betas {
            Some(_) => BetaSchedule::Linear,
            None => entries.choice("beta_schedule", &schedules)?,
        };
        Ok(Self {
            file: file.to_owned(),
            class_name: entries.get("_class_name").and_then(Value::as_str).map(str::to_owned),
            train_timesteps,
            beta_start: entries.number("beta_start", 0.0001, is_beta, BETA)?,
            beta_end: entries.number("beta_end", 0.02, is_beta, BETA)?,
            beta_schedule,
            trained_betas,
            prediction_type: entries.choice("prediction_type", &predictions)?,
            timestep_spacing: entries.choice("timestep_spacing", &spacings)?,
            steps_offset: entries.steps_offset()?,
            set_alpha_to_one: entries.flag("set_alpha_to_one")?,
            clip_sample: entries.flag("clip_sample")?,
            clip_sample_range: entries.number(
                "clip_sample_range",
                1.0,
                |range| range > 0.0,
                "a number above 0",
            )?,
            rescale_betas_zero_snr: entries.flag("rescale_betas_zero_snr")?.unwrap_or(false),
            thresholding: entries.flag("thresholding")?.unwrap_or(false),
            skip_prk_steps: entries.flag("skip_prk_steps")?.unwrap_or(false),
        })
    }

    /// The diffusers class that the file was written for, if it says so.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.class_name.as_deref()
    }

    /// The sampler that the file was written for; `None` if it does not say so, or names a class that is not here.
    #[must_use]
    pub fn kind(&self) -> Option<SchedulerKind> {
        self.class_name().and_then(SchedulerKind::from_class_name)
    }

    /// The share of signal (variance) left at each training timestep, diffusers' `alphas_cumprod`: unitless, one
    /// per training timestep, falling from nearly 1.
    #[must_use]
    pub fn cumulative_alphas(&self, kind: SchedulerKind) -> Vec<f64> {
        match kind {
            SchedulerKind::Ddim => ddim::noise_schedule(self).cumulative_alphas,
            SchedulerKind::Pndm => pndm::noise_schedule(self).cumulative_alphas,
        }
    }
}

const BETA: &str = "a number above 0 and below 1";

fn is_beta(beta: f64) -> bool {
    beta > 0.0 && beta < 1.0
}

/// The entries of one file, with checks that name the key.
struct Entries<'a> {
    file: &'a Path,
    entries: Map<String, Value>,
}

impl Entries<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    fn refuse<T>(&self, key: &str, expected: &str, found: &Value) -> Result<T> {
        let mut found = found.to_string();
        if found.chars().count() > 60 {
            found = found.chars().take(60).chain("...".chars()).collect();
        }
        Err(Error::config(self.file, key, format!("expected {expected}, found {found}")))
    }

    fn refuse_unknown_keys(&self) -> Result<()> {
        let known =
            |key: &str| key.starts_with('_') || OWN_KEYS.contains(&key) || FOREIGN_KEYS.contains(&key);
        match self.entries.keys().find(|key| !known(key)) {
            None => Ok(()),
            Some(key) => Err(Error::config(self.file, key, "no scheduler of diffusers has this key")),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => self.refuse(key, "true or false", other),
        }
    }

    fn number(&self, key: &str, default: f64, valid: impl Fn(f64) -> bool, expected: &str) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if valid(number) && number.is_finite() => Ok(number),
            _ => self.refuse(key, expected, value),
        }
    }

    /// The named choice; the first where the key is absent.
    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.get(key) else { return Ok(choices[0].1) };
        match choices.iter().find(|(name, _)| value.as_str() == Some(name)) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse(key, &format!("one of {}", names.join(", ")), value)
            }
        }
    }

    fn train_timesteps(&self) -> Result<usize> {
        let key = "num_train_timesteps";
        let Some(value) = self.get(key) else { return Ok(1000) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) if (1..=MOST_TRAIN_TIMESTEPS).contains(&count) => Ok(count),
            _ => self.refuse(key, &format!("a whole number from 1 to {MOST_TRAIN_TIMESTEPS}"), value),
        }
    }

    fn steps_offset(&self) -> Result<i64> {
        let key = "steps_offset";
        let Some(value) = self.get(key) else { return Ok(0) };
        match value.as_i64() {
            Some(offset) if offset.unsigned_abs() <= MOST_TRAIN_TIMESTEPS as u64 => Ok(offset),
            _ => self.refuse(key, &format!("a whole number up to {MOST_TRAIN_TIMESTEPS}"), value),
        }
    }

    fn trained_betas(&self, count: usize) -> Result<Option<Vec<f64>>> {
        let key = "trained_betas";
        let value = match self.get(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let expected = "null or a list of numbers above 0 and up to 1";
        let Some(list) = value.as_array() else { return self.refuse(key, expected, value) };
        if list.len() != count {
            let problem = format!("expected one number per training timestep, {count}; found {}", list.len());
            return Err(Error::config(self.file, key, problem));
        }
        let mut betas = Vec::with_capacity(count);
        for beta in list {
            match beta.as_f64() {
                Some(number) if number > 0.0 && number <= 1.0 => betas.push(number),
                _ => return self.refuse(key, expected, beta),
            }
        }
        Ok(Some(betas))
    }
}

/// The keys that a sampler here may honour.
const OWN_KEYS: [&str; 16] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
    "set_alpha_to_one",
    "clip_sample",
    "clip_sample_range",
    "rescale_betas_zero_snr",
    "thresholding",
    "skip_prk_steps",
    // These two have a meaning only where `thresholding` is true, which is refused.
    "dynamic_thresholding_ratio",
    "sample_max_value",
];

/// The keys of other schedulers of diffusers 0.42, without meaning for the samplers here.
const FOREIGN_KEYS: [&str; 86] = [
    "algorithm_type",
    "alpha_cum_end",
    "alpha_cum_start",
    "base_image_seq_len",
    "base_shift",
    "block_length",
    "clip_denoised",
    "correct_steps",
    "corrector_k",
    "corrector_order",
    "corrector_selection",
    "corrector_selection_tau",
    "corrector_steps",
    "disable_corrector",
    "editing_threshold",
    "entropy_bound",
    "eps",
    "eta",
    "euler_at_final",
    "final_sigmas_type",
    "final_step_size_scale",
    "flow_shift",
    "gamma",
    "gamma_cum_end",
    "gamma_cum_start",
    "interpolation_type",
    "invert_sigmas",
    "lambda_min_clipped",
    "lower_order_final",
    "mask_token_id",
    "masking_schedule",
    "max_image_seq_len",
    "max_shift",
    "minimal_topk",
    "n_grid",
    "noise_mode",
    "noise_sampler_seed",
    "num_inference_steps",
    "num_policy_substeps",
    "num_vec_classes",
    "original_inference_steps",
    "predict_x0",
    "predictor_order",
    "rho",
    "s",
    "s_noise",
    "sampling_eps",
    "scale_factors",
    "scaler",
    "schedule_mode",
    "scheduler_type",
    "shift",
    "shift_terminal",
    "sigma_data",
    "sigma_max",
    "sigma_min",
    "sigma_schedule",
    "snr",
    "snr_shift_scale",
    "solver_order",
    "solver_p",
    "solver_type",
    "stage_range",
    "stages",
    "stochastic_sampling",
    "t_lim_ode",
    "t_lim_ode_below",
    "t_max",
    "t_min",
    "tail_step_multiplier",
    "tail_steps",
    "tau_func",
    "threshold",
    "time_shift_type",
    "timestep_scaling",
    "timestep_type",
    "tsr_k",
    "tsr_sigma",
    "upscale_mode",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];
