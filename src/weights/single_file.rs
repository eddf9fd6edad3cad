//! Stable Diffusion in one file: which networks it holds, and what it says about its noise schedule.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::directory::{NetworkFiles, scheduler, tokenizer};
use super::recognition::CheckpointKind;
use super::replacements::{Replacements, vae_files};
use super::stable_diffusion::{RefinerFiles, SchedulerSource, StableDiffusionFiles, StableDiffusionXlFiles};
use crate::error::{Error, Result};

/// A norm of the last transformer of Stable Diffusion 2: its values spread in models that predict the velocity.
const VELOCITY_NORM: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
/// Above this standard deviation of [`VELOCITY_NORM`] a model predicts the velocity; the released ones lie on both
/// sides.
const VELOCITY_SPREAD: f32 = 0.09;

/// One file and what takes the place of parts of it.
pub(super) struct SingleFile<'a> {
    pub(super) path: &'a Path,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) replacements: &'a Replacements,
}

impl SingleFile<'_> {
    /// Stable Diffusion 1 or 2.
    pub(super) fn stable_diffusion(&self, kind: CheckpointKind) -> Result<StableDiffusionFiles> {
        self.check_configuration()?;
        let mut warnings = Vec::new();
        Ok(StableDiffusionFiles {
            unet: self.network("unet"),
            vae: self.vae()?,
            text_encoder: self.network("text_encoder"),
            tokenizer: self.tokenizer("tokenizer")?,
            scheduler: self.scheduler(kind, &mut warnings)?,
            warnings,
        })
    }

    /// Stable Diffusion XL.
    pub(super) fn stable_diffusion_xl(&self) -> Result<StableDiffusionXlFiles> {
        self.check_configuration()?;
        let mut warnings = Vec::new();
        Ok(StableDiffusionXlFiles {
            unet: self.network("unet"),
            vae: self.vae()?,
            text_encoders: ["text_encoder", "text_encoder_2"].map(|part| self.network(part)),
            tokenizers: [self.tokenizer("tokenizer")?, self.tokenizer("tokenizer_2")?],
            scheduler: self.scheduler(CheckpointKind::StableDiffusionXl, &mut warnings)?,
            force_zeros_for_empty_prompt: true,
            warnings,
        })
    }

    /// The refiner of Stable Diffusion XL.
    pub(super) fn refiner(&self) -> Result<RefinerFiles> {
        self.check_configuration()?;
        let mut warnings = Vec::new();
        Ok(RefinerFiles {
            unet: self.network("unet"),
            vae: self.vae()?,
            text_encoder_2: self.network("text_encoder_2"),
            tokenizer_2: self.tokenizer("tokenizer_2")?,
            scheduler: self.scheduler(CheckpointKind::StableDiffusionXl, &mut warnings)?,
            force_zeros_for_empty_prompt: false,
            warnings,
        })
    }

    fn config(&self, part: &str) -> Option<PathBuf> {
        let file = self.replacements.config.as_ref()?.join(part).join("config.json");
        file.is_file().then_some(file)
    }

    fn network(&self, part: &str) -> NetworkFiles {
        NetworkFiles { config: self.config(part), weights: vec![self.path.to_owned()] }
    }

    fn vae(&self) -> Result<NetworkFiles> {
        if let Some(path) = &self.replacements.vae {
            return vae_files("vae", path, self.config("vae"));
        }
        if self.checkpoint.names().any(|name| name.starts_with("first_stage_model.decoder.")) {
            return Ok(self.network("vae"));
        }
        let problem = format!(
            "{} holds no VAE (first_stage_model.*): give one, as a file or a folder",
            self.path.display()
        );
        Err(Error::option("vae", problem))
    }

    fn tokenizer(&self, part: &str) -> Result<Option<PathBuf>> {
        match &self.replacements.config {
            Some(folder) if folder.join(part).exists() => tokenizer(folder, part).map(Some),
            _ => Ok(None),
        }
    }

    /// The schedule of `--config`, or that of the released models and what the file says about its prediction.
    fn scheduler(&self, kind: CheckpointKind, warnings: &mut Vec<String>) -> Result<SchedulerSource> {
        if let Some(file) = self.replacements.config.as_deref().and_then(|folder| scheduler(folder).ok()) {
            return Ok(SchedulerSource::File(file));
        }
        // Two empty tensors that trainers leave in a file.
        let marked = |name: &str| self.checkpoint.shape(name).is_some();
        let mut velocity = marked("v_pred");
        if kind == CheckpointKind::StableDiffusion2 && !velocity {
            velocity = self.spreads()?;
            let found = if velocity { "the velocity (v_prediction)" } else { "the noise (epsilon)" };
            warnings.push(format!(
                "{} does not say what its U-Net predicts: {found} is assumed, by the values of one of its norms; \
                if the pictures are noise, give a directory with the right scheduler/scheduler_config.json (--config)",
                self.path.display()
            ));
        }
        Ok(SchedulerSource::Released { kind, velocity, zero_terminal_snr: marked("ztsnr") })
    }

    fn spreads(&self) -> Result<bool> {
        if self.checkpoint.shape(VELOCITY_NORM).is_none() {
            return Ok(false);
        }
        let values = self.checkpoint.values(VELOCITY_NORM)?;
        #[expect(clippy::cast_precision_loss, reason = "channels")]
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
        Ok(variance.sqrt() > VELOCITY_SPREAD)
    }

    /// Refuses a folder without any configuration, which is a mistake in its name.
    fn check_configuration(&self) -> Result<()> {
        const NETWORKS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];
        let Some(folder) = self.replacements.config.as_deref() else { return Ok(()) };
        let problem = if !folder.exists() {
            "does not exist"
        } else if !folder.is_dir() {
            "is not a directory"
        } else if NETWORKS.iter().all(|part| self.config(part).is_none())
            && self.tokenizer("tokenizer")?.is_none()
            && self.tokenizer("tokenizer_2")?.is_none()
            && scheduler(folder).is_err()
        {
            "holds no configuration"
        } else {
            return Ok(());
        };
        let problem = format!(
            "{} {problem}: expected unet/config.json, vae/config.json, text_encoder/config.json, \
             scheduler/scheduler_config.json and tokenizer/, or some of them",
            folder.display()
        );
        Err(Error::option("config", problem))
    }
}
