//! The noise schedules of models that do not come from diffusers, whose code makes its tables in another way.

use super::config::{BETA, LimitKeys, NoiseKeys, PredictionType, SchedulerConfig, is_beta};
use super::entries::MOST_TRAIN_TIMESTEPS;
use super::kind::SchedulerKind;
use super::noise_schedule::{running_products, single};
use super::options::TimestepSpacing;
use super::timesteps::linspace;
use crate::error::{Error, Result};

/// What `scheduler_config.json` says in the repositories of Stable Diffusion 1.
const STABLE_DIFFUSION_1: &str = r#"{
    "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
    "clip_sample": false
}"#;

/// The same of Stable Diffusion 2.1.
const STABLE_DIFFUSION_2: &str = r#"{
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000, "set_alpha_to_one": false, "steps_offset": 1, "clip_sample": false
}"#;

/// The same of Stable Diffusion XL.
const STABLE_DIFFUSION_XL: &str = r#"{
    "_class_name": "EulerDiscreteScheduler", "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "steps_offset": 1, "timestep_spacing": "leading"
}"#;

impl SchedulerConfig {
    /// The schedule of Stable Diffusion 1, for a model that comes in one file; the sampler is PNDM.
    ///
    /// # Errors
    /// None: the text is this library's own.
    pub fn stable_diffusion_1() -> Result<Self> {
        Self::from_json("Stable Diffusion 1", STABLE_DIFFUSION_1)
    }

    /// The schedule of Stable Diffusion 2, for a model that comes in one file; the sampler is DDIM.
    ///
    /// # Errors
    /// None: the text is this library's own.
    pub fn stable_diffusion_2() -> Result<Self> {
        Self::from_json("Stable Diffusion 2", STABLE_DIFFUSION_2)
    }

    /// The schedule of Stable Diffusion XL, for a model that comes in one file; the sampler is Euler's.
    ///
    /// # Errors
    /// None: the text is this library's own.
    pub fn stable_diffusion_xl() -> Result<Self> {
        Self::from_json("Stable Diffusion XL", STABLE_DIFFUSION_XL)
    }

    /// The same schedule for a model that predicts the velocity (`v_prediction`). Salimans & Ho 2022,
    /// <https://arxiv.org/abs/2202.00512>.
    #[must_use]
    pub fn predicting_velocity(self) -> Self {
        Self { prediction_type: PredictionType::Velocity, ..self }
    }

    /// The same betas, stretched so that the last training timestep is all noise. Lin, Liu, Li & Yang 2023,
    /// <https://arxiv.org/abs/2305.08891>.
    #[must_use]
    pub fn with_zero_terminal_snr(mut self) -> Self {
        self.noise.rescale_betas_zero_snr = true;
        self
    }

    /// The schedule of the models of latent diffusion, which come without a `scheduler_config.json`: betas whose
    /// square roots lie evenly between those of `linear_start` and `linear_end` (unitless, the shares of noise
    /// that the first and the last of `timesteps` training timesteps add), computed in f64 and rounded once.
    ///
    /// The sampler is DDIM without clipping, over [uniform](TimestepSpacing::Uniform) timesteps from 1, and the run
    /// ends at the first training timestep.
    /// Rombach, Blattmann, Lorenz, Esser & Ommer 2022, <https://arxiv.org/abs/2112.10752>.
    ///
    /// # Errors
    /// [`Error::Option`] naming the number that is out of range.
    pub fn latent_diffusion(linear_start: f64, linear_end: f64, timesteps: usize) -> Result<Self> {
        check_betas([("linear_start", linear_start), ("linear_end", linear_end)], timesteps)?;
        let roots = linspace(linear_start.sqrt(), linear_end.sqrt(), timesteps);
        let betas = roots.into_iter().map(|root| root * root);
        let alphas = running_products(betas.map(|beta| 1.0 - beta));
        Ok(Self {
            steps_offset: 1,
            set_alpha_to_one: Some(false),
            ..Self::original("latent diffusion", alphas)?
        })
    }

    /// The schedule of the models that came with DDIM, which come without a `scheduler_config.json`: betas evenly
    /// from `beta_start` to `beta_end` (unitless, the shares of noise that the first and the last of `timesteps`
    /// training timesteps add), rounded to f32 as that code does.
    ///
    /// The sampler is DDIM without clipping, over [uniform](TimestepSpacing::Uniform) timesteps from 0, and the run
    /// ends without noise.
    /// Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>.
    ///
    /// # Errors
    /// [`Error::Option`] naming the number that is out of range.
    pub fn original_ddpm(beta_start: f64, beta_end: f64, timesteps: usize) -> Result<Self> {
        check_betas([("beta_start", beta_start), ("beta_end", beta_end)], timesteps)?;
        let betas = linspace(beta_start, beta_end, timesteps).into_iter();
        let alphas = running_products(betas.map(|beta| single(1.0 - single(beta))));
        Ok(Self { set_alpha_to_one: Some(true), ..Self::original("ddim", alphas)? })
    }

    /// What the models that do not come from diffusers have in common; `name` stands for the file in errors.
    fn original(name: &str, cumulative_alphas: Vec<f64>) -> Result<Self> {
        let empty = Self::from_json(name, "{}")?;
        Ok(Self {
            class_name: Some(SchedulerKind::Ddim.class_name().to_owned()),
            train_timesteps: cumulative_alphas.len(),
            noise: NoiseKeys { cumulative_alphas: Some(cumulative_alphas), ..empty.noise },
            timestep_spacing: Some(TimestepSpacing::Uniform),
            limits: LimitKeys { clip_sample: Some(false), ..empty.limits },
            ..empty
        })
    }
}

fn check_betas(betas: [(&str, f64); 2], timesteps: usize) -> Result<()> {
    for (option, beta) in betas {
        if !is_beta(beta) {
            return Err(Error::option(option, format!("expected {BETA}, found {beta}")));
        }
    }
    if !(1..=MOST_TRAIN_TIMESTEPS).contains(&timesteps) {
        let problem = format!("expected a whole number from 1 to {MOST_TRAIN_TIMESTEPS}, found {timesteps}");
        return Err(Error::option("timesteps", problem));
    }
    Ok(())
}
