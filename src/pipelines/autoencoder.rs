//! The decoder of Stable Diffusion from its files: of a VAE, or of a tiny autoencoder.

use std::path::Path;

use super::loading::Site;
use super::model::{Decoder, Model};
use super::residency::Part;
use crate::error::{Error, Result};
use crate::models::tiny_autoencoder::{TinyAutoencoderConfig, TinyDecoder};
use crate::models::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use crate::tensor::ElementType;
use crate::weights::{Checkpoint, NetworkFiles, vae_files};

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

    /// Builds the encoder of a VAE, if its files have one, and the decoder. That of SDXL is in 32 bits where its config
    /// says that it overflows 16. Of a tiny autoencoder there is the decoder only.
    pub(super) fn load(
        self,
        site: &mut Site<'_>,
        family: Family,
    ) -> Result<(Option<Box<VaeEncoder>>, Decoder)> {
        let Self { checkpoint, config } = self;
        match config {
            Config::Vae(config) => {
                let upcast = family == Family::Xl && config.force_upcast;
                let usual = if upcast { ElementType::F32 } else { site.element };
                let element = site.vae_element.unwrap_or(usual);
                let of_decoder = config.clone();
                let again = checkpoint.again();
                let vae = site.network_as(Part::Decoder, again, "vae", element, |file, loader| {
                    VaeDecoder::load(of_decoder, file, loader)
                })?;
                let encoder = load_encoder(checkpoint, config, site, element)?;
                Ok((encoder, Decoder::Vae(Box::new(vae))))
            }
            Config::Tiny(config) => {
                let vae = site.network(Part::Decoder, checkpoint, "vae", |file, loader| {
                    TinyDecoder::load(config, file, loader)
                })?;
                Ok((None, Decoder::Tiny(Box::new(vae))))
            }
        }
    }
}

/// Loads the encoder of a VAE, if its files have one.
fn load_encoder(
    checkpoint: Checkpoint,
    config: VaeConfig,
    site: &mut Site<'_>,
    element: ElementType,
) -> Result<Option<Box<VaeEncoder>>> {
    if !checkpoint.names().any(|name| name.starts_with("encoder.")) {
        return Ok(None);
    }
    let encoder = site.network_as(Part::Encoder, checkpoint, "vae_encoder", element, |file, loader| {
        VaeEncoder::load(config, file, loader)
    })?;
    Ok(Some(Box::new(encoder)))
}

/// Loads the tiny autoencoder that decodes previews of a model.
pub(super) fn load_preview(path: &Path, model: &Model, site: &mut Site<'_>) -> Result<Decoder> {
    const OPTION: &str = "preview vae";
    let latents = match &model.decoder {
        Decoder::Vae(_) | Decoder::Tiny(_) => model.unet.config().out_channels,
        Decoder::Vq(_) | Decoder::Pixels { .. } => {
            let problem = "is for the latents of Stable Diffusion, which this model has not";
            return Err(Error::option(OPTION, problem));
        }
    };
    let files = vae_files(OPTION, path, None)?;
    let OpenedDecoder { checkpoint, config } = OpenedDecoder::open(&files, Family::StableDiffusion)?;
    let Config::Tiny(config) = config else {
        let problem = format!("{} holds a VAE, expected a tiny autoencoder (TAESD)", path.display());
        return Err(Error::option(OPTION, problem));
    };
    if config.latent_channels != latents {
        let problem = format!(
            "{} reads latents of {} channels, the model makes {latents}",
            path.display(),
            config.latent_channels
        );
        return Err(Error::option(OPTION, problem));
    }
    // It is on the device while the U-Net is.
    let tiny = site.network(Part::Network, checkpoint, "preview_vae", |file, loader| {
        TinyDecoder::load(config, file, loader)
    })?;
    Ok(Decoder::Tiny(Box::new(tiny)))
}
