//! The entries of one `scheduler_config.json`, with checks that name the key.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// More training timesteps than any model has, and few enough for a table.
pub(super) const MOST_TRAIN_TIMESTEPS: usize = 1_000_000;

const MINUS_INFINITY: &str = "-Infinity";

/// The entries of one file.
pub(super) struct Entries<'a> {
    file: &'a Path,
    entries: Map<String, Value>,
}

impl<'a> Entries<'a> {
    pub(super) fn parse(file: &'a Path, text: &str) -> Result<Self> {
        let entries = match serde_json::from_str(&quote_words_of_python(text)) {
            Ok(Value::Object(entries)) => entries,
            Ok(_) => return Err(Error::config_file(file, "expected a JSON object")),
            Err(error) => return Err(Error::config_file(file, format!("is not JSON: {error}"))),
        };
        let entries = Self { file, entries };
        entries.refuse_unknown_keys()?;
        Ok(entries)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key)
    }

    /// The value of a key; `None` also where it is `null`.
    fn present(&self, key: &str) -> Option<&Value> {
        self.get(key).filter(|value| !value.is_null())
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

    /// A truth value; `null` is false, as in Python.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(false)),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => self.refuse(key, "true or false", other),
        }
    }

    /// A number; `None` where it is absent or `null`.
    pub(super) fn number(
        &self,
        key: &str,
        valid: impl Fn(f64) -> bool,
        expected: &str,
    ) -> Result<Option<f64>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if valid(number) && number.is_finite() => Ok(Some(number)),
            _ => self.refuse(key, expected, value),
        }
    }

    /// A number, or minus infinity, which Python writes as a word of its own.
    pub(super) fn number_or_minus_infinity(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            Some(Value::String(word)) if word == MINUS_INFINITY => Ok(Some(f64::NEG_INFINITY)),
            _ => self.number(key, |_| true, "a number or -Infinity"),
        }
    }

    /// A whole number from 1 to a limit; `None` where it is absent or `null`.
    pub(super) fn count(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
            Some(count) if (1..=most).contains(&count) => Ok(Some(count)),
            _ => self.refuse(key, &format!("a whole number from 1 to {most}"), value),
        }
    }

    /// A word whose meaning depends on the class; `None` where it is absent or `null`.
    pub(super) fn word(&self, key: &str) -> Result<Option<String>> {
        match self.present(key) {
            None => Ok(None),
            Some(Value::String(word)) => Ok(Some(word.clone())),
            Some(other) => self.refuse(key, "a name in quotes", other),
        }
    }

    /// The named choice; `None` where the key is absent.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match choices.iter().find(|(name, _)| value.as_str() == Some(name)) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
                self.refuse(key, &format!("one of {}", names.join(", ")), value)
            }
        }
    }

    pub(super) fn steps_offset(&self) -> Result<i64> {
        let key = "steps_offset";
        let Some(value) = self.get(key) else { return Ok(0) };
        match value.as_i64() {
            Some(offset) if offset.unsigned_abs() <= MOST_TRAIN_TIMESTEPS as u64 => Ok(offset),
            _ => self.refuse(key, &format!("a whole number up to {MOST_TRAIN_TIMESTEPS}"), value),
        }
    }

    pub(super) fn trained_betas(&self, count: usize) -> Result<Option<Vec<f64>>> {
        let key = "trained_betas";
        let Some(value) = self.present(key) else { return Ok(None) };
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

    /// A list of whole numbers; empty where it is absent or `null`.
    pub(super) fn whole_numbers(&self, key: &str) -> Result<Vec<i64>> {
        let Some(value) = self.present(key) else { return Ok(Vec::new()) };
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_i64).collect());
        numbers.map_or_else(|| self.refuse(key, "a list of whole numbers", value), Ok)
    }

    /// Whether a key asks for anything: not absent, `null`, false or empty.
    pub(super) fn asks(&self, key: &str) -> bool {
        match self.present(key) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(_) => true,
        }
    }
}

/// Puts the words that Python's JSON writer has for numbers that are not finite, and JSON has not, into quotes.
fn quote_words_of_python(text: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = [MINUS_INFINITY, "Infinity", "NaN"];
    if !WORDS.iter().any(|word| text.contains(word)) {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    let (mut rest, mut in_string) = (text, false);
    while let Some(character) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(**word));
        let taken = match (word, character) {
            (Some(word), _) => {
                quoted.extend(["\"", word, "\""]);
                word.len()
            }
            (None, '\\') if in_string => {
                // What is escaped belongs to the backslash, also where it is a quotation mark.
                let pair = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                quoted.push_str(&rest[..pair]);
                pair
            }
            (None, _) => {
                in_string ^= character == '"';
                quoted.push(character);
                character.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    Cow::Owned(quoted)
}

/// The keys that a sampler here may honour, or refuse.
const OWN_KEYS: [&str; 42] = [
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "clip_sample_range",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "flow_shift",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "sample_max_value",
    "set_alpha_to_one",
    "shift_terminal",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "time_shift_type",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "trained_betas",
    "use_beta_sigmas",
    "use_dynamic_shifting",
    "use_exponential_sigmas",
    "use_flow_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
    "variance_type",
];

/// The keys of other schedulers of diffusers 0.42, without meaning for the samplers here.
const FOREIGN_KEYS: [&str; 60] = [
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
    "editing_threshold",
    "entropy_bound",
    "eps",
    "eta",
    "final_step_size_scale",
    "gamma",
    "gamma_cum_end",
    "gamma_cum_start",
    "invert_sigmas",
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
    "sigma_data",
    "sigma_schedule",
    "snr",
    "snr_shift_scale",
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
    "tsr_k",
    "tsr_sigma",
    "upscale_mode",
];
