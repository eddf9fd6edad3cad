//! The decoder of Stable Diffusion from its files: of a VAE, or of a tiny autoencoder.

use super::loading::Site;
use super::model::Decoder;
use super::residency::Part;
use crate::error::Result;
use crate::models::tiny_autoencoder::{TinyAutoencoderConfig, TinyDecoder};
use crate::models::vae::{VaeConfig, VaeDecoder};
use crate::tensor::ElementType;
use crate::weights::{Checkpoint, NetworkFiles};

/// A decoder whose files are open and whose shape is known; nothing of it is on the device.
pub(super) struct OpenedDecoder {
    checkpoint: Checkpoint,
    config: Config,
}

enum Config {
    Vae(VaeConfig),
    Tiny(TinyAutoencoderConfig),
}

/// What a VAE without a configuration is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Stable Diffusion 1 and 2.
    StableDiffusion,
    Xl,
}

impl OpenedDecoder {
    /// Opens the decoder of these files; which of them it is, its tensors tell.
    pub(super) fn open(files: &NetworkFiles, family: Family) -> Result<Self> {
        let checkpoint = Checkpoint::open(&files.weights)?;
        if checkpoint.has_tiny_autoencoder() {
            return Self::tiny(files, checkpoint.into_tiny_decoder()?);
        }
        let checkpoint = Checkpoint::open_vae(&files.weights)?;
        let config = match (&files.config, family) {
            (Some(file), _) => VaeConfig::from_file(file)?,
            (None, Family::StableDiffusion) => VaeConfig::from_tensors(&checkpoint)?,
            (None, Family::Xl) => VaeConfig::xl_from_tensors(&checkpoint)?,
        };
        Ok(Self { checkpoint, config: Config::Vae(config) })
    }

    fn tiny(files: &NetworkFiles, checkpoint: Checkpoint) -> Result<Self> {
        let config = match &files.config {
            Some(file) => TinyAutoencoderConfig::from_file(file)?,
            None => TinyAutoencoderConfig::from_tensors(&checkpoint)?,
        };
        Ok(Self { checkpoint, config: Config::Tiny(config) })
    }

    /// Channels of the latents that it reads.
    pub(super) fn latent_channels(&self) -> usize {
        match &self.config {
            Config::Vae(config) => config.latent_channels,
            Config::Tiny(config) => config.latent_channels,
        }
    }

    /// Builds the decoder. That of SDXL is in 32 bits where its config says that it overflows 16.
    pub(super) fn load(self, site: &mut Site<'_>, family: Family) -> Result<Decoder> {
        let Self { checkpoint, config } = self;
        match config {
            Config::Vae(config) => {
                let upcast = family == Family::Xl && config.force_upcast;
                let element = if upcast { ElementType::F32 } else { site.element };
                let vae = site.network_as(Part::Decoder, checkpoint, "vae", element, |file, loader| {
                    VaeDecoder::load(config, file, loader)
                })?;
                Ok(Decoder::Vae(Box::new(vae)))
            }
            Config::Tiny(config) => {
                let vae = site.network(Part::Decoder, checkpoint, "vae", |file, loader| {
                    TinyDecoder::load(config, file, loader)
                })?;
                Ok(Decoder::Tiny(Box::new(vae)))
            }
        }
    }
}
