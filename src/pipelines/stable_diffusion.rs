//! Stable Diffusion 1 and 2 from their files: a diffusers directory, or one file.

use std::path::Path;

use super::autoencoder::{Family, OpenedDecoder};
use super::embeddings::learn;
use super::loading::Site;
use super::model::{Conditioner, Model};
use super::one_text::OneText;
use super::wording::TextEncoder;
use crate::error::{Error, Result};
use crate::kernels::activation::Activation;
use crate::models::clip::{ClipConfig, ClipTextModel};
use crate::models::unet::{UNet, UNetConfig};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{
    Checkpoint, CheckpointKind, Loader, Network, NetworkFiles, SchedulerSource, StableDiffusionFiles,
};

/// Loads the networks; what their files do not say is told from their tensors.
pub(super) fn load(files: &StableDiffusionFiles, site: &mut Site<'_>) -> Result<Model> {
    let scheduler = open_scheduler(&files.scheduler)?;
    let mut encoder = Opened::text_encoder(&files.text_encoder)?;
    let mut tokenizer = open_tokenizer(files.tokenizer.as_deref(), &encoder.config)?;
    let mut unet = Opened::unet(&files.unet)?;
    let vae = OpenedDecoder::open(&files.vae, Family::StableDiffusion)?;
    check_fit(files, &tokenizer, &encoder.config, &unet.config, vae.latent_channels())?;
    learn(site.embeddings, &mut [(&mut tokenizer, &mut encoder)], false)?;
    site.change(&mut [
        (Network::Unet, &mut unet.checkpoint),
        (Network::TextEncoder, &mut encoder.checkpoint),
    ])?;
    let encoder = encoder.load_changeable(site, Network::TextEncoder, ClipTextModel::load)?;
    let unet = unet.load_changeable(site, Network::Unet, UNet::load)?;
    let (encoder_of_vae, decoder) = vae.load(site, Family::StableDiffusion)?;
    let text = OneText(TextEncoder { tokenizer, model: encoder });
    let conditioner = Conditioner::Text(Box::new(text));
    Ok(Model { conditioner, unet, decoder, encoder: encoder_of_vae, preview: None, scheduler })
}

/// The tokenizer of a folder, or CLIP's own, which fills up with its end, or for the encoders of `OpenCLIP` (those with
/// plain GELU) with the token of id 0.
pub(super) fn open_tokenizer(folder: Option<&Path>, encoder: &ClipConfig) -> Result<ClipTokenizer> {
    match (folder, encoder.hidden_act) {
        (Some(folder), _) => ClipTokenizer::open(folder),
        (None, Activation::Gelu) => ClipTokenizer::embedded()?.padded_with("!"),
        (None, _) => ClipTokenizer::embedded(),
    }
}

/// The noise schedule of a file, or of the released models.
pub(super) fn open_scheduler(source: &SchedulerSource) -> Result<SchedulerConfig> {
    let (kind, velocity, zero_terminal_snr) = match source {
        SchedulerSource::File(file) => return SchedulerConfig::from_file(file),
        SchedulerSource::Released { kind, velocity, zero_terminal_snr } => {
            (kind, velocity, zero_terminal_snr)
        }
    };
    let mut scheduler = match kind {
        CheckpointKind::StableDiffusionXl => SchedulerConfig::stable_diffusion_xl()?,
        CheckpointKind::StableDiffusion2 => SchedulerConfig::stable_diffusion_2()?,
        _ => SchedulerConfig::stable_diffusion_1()?,
    };
    if *velocity {
        scheduler = scheduler.predicting_velocity();
    }
    Ok(if *zero_terminal_snr { scheduler.with_zero_terminal_snr() } else { scheduler })
}

/// A network whose files are open and whose shape is known; nothing of it is on the device.
pub(super) struct Opened<C> {
    pub(super) checkpoint: Checkpoint,
    pub(super) config: C,
}

impl Opened<ClipConfig> {
    pub(super) fn text_encoder(files: &NetworkFiles) -> Result<Self> {
        Self::of_text(files, Checkpoint::open_text_encoder(&files.weights)?)
    }

    pub(super) fn second_text_encoder(files: &NetworkFiles) -> Result<Self> {
        Self::of_text(files, Checkpoint::open_second_text_encoder(&files.weights)?)
    }

    fn of_text(files: &NetworkFiles, checkpoint: Checkpoint) -> Result<Self> {
        let config = match &files.config {
            Some(file) => ClipConfig::from_file(file)?,
            None => ClipConfig::from_tensors(&checkpoint)?,
        };
        Ok(Self { checkpoint, config })
    }
}

impl Opened<UNetConfig> {
    pub(super) fn unet(files: &NetworkFiles) -> Result<Self> {
        let checkpoint = Checkpoint::open_unet(&files.weights)?;
        let config = match &files.config {
            Some(file) => UNetConfig::from_file(file)?,
            None => UNetConfig::from_tensors(&checkpoint)?,
        };
        Ok(Self { checkpoint, config })
    }
}

impl<C> Opened<C> {
    /// Uploads the weights of a network that can be changed later.
    pub(super) fn load_changeable<N>(
        self,
        site: &mut Site<'_>,
        network: Network,
        build: impl FnOnce(C, &Checkpoint, &mut Loader) -> Result<N>,
    ) -> Result<N> {
        let config = self.config;
        site.changeable(network, self.checkpoint, |file, loader| build(config, file, loader))
    }
}

/// Models that were not made for each other are found before anything is loaded.
fn check_fit(
    files: &StableDiffusionFiles,
    tokenizer: &ClipTokenizer,
    clip: &ClipConfig,
    unet: &UNetConfig,
    latent_channels: usize,
) -> Result<()> {
    if unet.cross_attention_dim != Some(clip.hidden_size) {
        let found = unet.cross_attention_dim.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let problem = format!("found {found}, the text encoder makes {}", clip.hidden_size);
        return Err(blame(&files.unet, "cross_attention_dim", problem));
    }
    if unet.text_time.is_some() {
        let problem = "found \"text_time\", which only an SDXL pipeline provides for".to_owned();
        return Err(blame(&files.unet, "addition_embed_type", problem));
    }
    expect_channels(&files.unet, unet, latent_channels)?;
    expect_tokenizer(&files.text_encoder, tokenizer, clip)
}

/// A U-Net must make what it reads, and the decoder must read that; one for inpainting also reads a mask and the latents
/// of a masked picture.
pub(super) fn expect_channels(files: &NetworkFiles, unet: &UNetConfig, latents: usize) -> Result<()> {
    if [latents, 2 * latents + 1].contains(&unet.in_channels) && unet.out_channels == latents {
        return Ok(());
    }
    let problem = format!(
        "found {} in and {} out, expected the VAE's {latents} latent channels, or {} in for inpainting",
        unet.in_channels,
        unet.out_channels,
        2 * latents + 1
    );
    Err(blame(files, "in_channels", problem))
}

/// A text encoder must have a place for every token, and an embedding of it.
pub(super) fn expect_tokenizer(
    files: &NetworkFiles,
    tokenizer: &ClipTokenizer,
    clip: &ClipConfig,
) -> Result<()> {
    if tokenizer.max_length() > clip.max_position_embeddings {
        let problem =
            format!("found {}, the tokenizer makes {}", clip.max_position_embeddings, tokenizer.max_length());
        return Err(blame(files, "max_position_embeddings", problem));
    }
    if tokenizer.vocabulary_size() > clip.vocab_size {
        let problem =
            format!("found {}, the tokenizer has {} tokens", clip.vocab_size, tokenizer.vocabulary_size());
        return Err(blame(files, "vocab_size", problem));
    }
    Ok(())
}

/// An error about what a network's configuration says, or else its tensors.
pub(super) fn blame(files: &NetworkFiles, key: &str, problem: String) -> Error {
    match (&files.config, files.weights.first()) {
        (None, Some(weights)) => Error::weights_file(weights, format!("{key}, by its tensors: {problem}")),
        (config, _) => Error::config(config.clone().unwrap_or_default(), key, problem),
    }
}
