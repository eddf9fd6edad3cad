//! What the YAML file of a class-conditional latent diffusion model may say, such as `cin256-v2.yaml`.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::unet::UNetConfig;
use crate::models::vae::scaling_factor;
use crate::models::vq::VqConfig;

/// Keys of `model.params` that change nothing: training, logging, and names of what a data set holds.
const HARMLESS: [&str; 21] = [
    "ckpt_path",
    "channels",
    "clip_denoised",
    "concat_mode",
    "cond_stage_forward",
    "cond_stage_key",
    "cond_stage_trainable",
    "first_stage_key",
    "ignore_keys",
    "image_size",
    "l_simple_weight",
    "learn_logvar",
    "log_every_t",
    "logvar_init",
    "loss_type",
    "monitor",
    "num_timesteps_cond",
    "original_elbo_weight",
    "scheduler_config",
    "use_positional_encodings",
    "v_posterior",
];

/// A class-conditional latent diffusion model: `ldm.models.diffusion.ddpm.LatentDiffusion` with a
/// `ClassEmbedder` and a `VQModelInterface`.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentDiffusionConfig {
    /// The U-Net.
    pub unet: UNetConfig,
    /// The autoencoder.
    pub vq: VqConfig,
    /// Number of classes, the one that stands for none (the last) included.
    pub classes: usize,
    /// The first beta of the noise schedule, whose square roots are evenly spaced.
    pub linear_start: f64,
    /// The last beta of the noise schedule.
    pub linear_end: f64,
    /// Training timesteps.
    pub timesteps: usize,
    /// Whether averaged weights are used where the file has them.
    pub use_ema: bool,
}

impl LatentDiffusionConfig {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is missing, malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = ConfigReader::open_yaml(path.as_ref())?;
        let mut model = file.child("model")?;
        model.only("target", &[json!("ldm.models.diffusion.ddpm.LatentDiffusion")])?;
        let mut params = model.child("params")?;
        params.only("beta_schedule", &[json!("linear")])?;
        params.only("given_betas", &[])?;
        params.only("parameterization", &[json!("eps")])?;
        params.only("conditioning_key", &[json!("crossattn")])?;
        params.only("scale_by_std", &[json!(false)])?;
        let factor = scaling_factor(&mut params, "scale_factor", 1.0)?;

        let mut section = params.child("unet_config")?;
        section.only("target", &[json!("ldm.modules.diffusionmodules.openaimodel.UNetModel")])?;
        let unet = UNetConfig::from_latent_diffusion(section.child("params")?)?;

        let mut section = params.child("first_stage_config")?;
        let autoencoders = ["ldm.models.autoencoder.VQModelInterface", "ldm.models.autoencoder.VQModel"];
        section.only("target", &autoencoders.map(|name| json!(name)))?;
        let vq = VqConfig::from_latent_diffusion(section.child("params")?, factor)?;

        let mut section = params.child("cond_stage_config")?;
        section.only("target", &[json!("ldm.modules.encoders.modules.ClassEmbedder")])?;
        let mut embedder = section.child("params")?;
        let classes = embedder.size_up_to("n_classes", 1000, 1 << 20)?;
        let width = embedder.required_size("embed_dim")?;
        embedder.finish(&["key"])?;

        let config = Self {
            classes,
            linear_start: beta(&mut params, "linear_start", 1e-4)?,
            linear_end: beta(&mut params, "linear_end", 2e-2)?,
            timesteps: params.size("timesteps", 1000)?,
            use_ema: params.flag("use_ema", true)?,
            unet,
            vq,
        };
        config.check(&params, width)?;
        params.finish(&HARMLESS)?;
        Ok(config)
    }

    /// Checks that the parts fit together.
    fn check(&self, params: &ConfigReader, width: usize) -> Result<()> {
        let latents = self.vq.autoencoder.embed_channels;
        let refuse = |key: &str, problem: String| Err(params.refuse(key, problem));
        if self.unet.cross_attention_dim != Some(width) {
            return refuse(
                "cond_stage_config.params.embed_dim",
                format!("found {width}, which is not the U-Net's context_dim"),
            );
        }
        if self.unet.in_channels != latents || self.unet.out_channels != latents {
            let problem = format!(
                "found {} in and {} out, expected the autoencoder's embed_dim, {latents}",
                self.unet.in_channels, self.unet.out_channels
            );
            return refuse("unet_config.params.in_channels", problem);
        }
        if self.classes < 2 {
            let problem =
                format!("found {}, expected a class and the one that stands for none", self.classes);
            return refuse("cond_stage_config.params.n_classes", problem);
        }
        Ok(())
    }
}

/// A beta of a noise schedule.
pub(in crate::models) fn beta(reader: &mut ConfigReader, key: &str, default: f64) -> Result<f64> {
    let beta = reader.number(key, default)?;
    if beta > 0.0 && beta < 1.0 {
        return Ok(beta);
    }
    Err(reader.refuse(key, format!("found {beta}, expected a number above 0 and below 1")))
}
