//! Stable Diffusion from its files: a diffusers directory, or one file.

use super::loading::Site;
use super::model::{Conditioner, Decoder, Model};
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, ClipTextModel};
use crate::models::unet::{UNet, UNetConfig};
use crate::models::vae::{VaeConfig, VaeDecoder};
use crate::schedulers::SchedulerConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{Checkpoint, NetworkFiles, StableDiffusionFiles};

/// Loads the networks; what their files do not say is told from their tensors.
pub(super) fn load(files: &StableDiffusionFiles, site: &mut Site<'_>) -> Result<Model> {
    let tokenizer = match &files.tokenizer {
        Some(folder) => ClipTokenizer::open(folder)?,
        None => ClipTokenizer::embedded()?,
    };
    let scheduler = match &files.scheduler {
        Some(file) => SchedulerConfig::from_file(file)?,
        None => SchedulerConfig::stable_diffusion_1()?,
    };
    let encoder_file = Checkpoint::open_text_encoder(&files.text_encoder.weights)?;
    let unet_file = Checkpoint::open_unet(&files.unet.weights)?;
    let vae_file = Checkpoint::open_vae(&files.vae.weights)?;
    let clip = match &files.text_encoder.config {
        Some(file) => ClipConfig::from_file(file)?,
        None => ClipConfig::from_tensors(&encoder_file)?,
    };
    let unet = match &files.unet.config {
        Some(file) => UNetConfig::from_file(file)?,
        None => UNetConfig::from_tensors(&unet_file)?,
    };
    let vae = match &files.vae.config {
        Some(file) => VaeConfig::from_file(file)?,
        None => VaeConfig::from_tensors(&vae_file)?,
    };
    check_fit(files, &tokenizer, &clip, &unet, &vae)?;
    let encoder =
        site.network(&encoder_file, "text_encoder", |file, loader| ClipTextModel::load(clip, file, loader))?;
    let unet = site.network(&unet_file, "unet", |file, loader| UNet::load(unet, file, loader))?;
    let vae = site.network(&vae_file, "vae", |file, loader| VaeDecoder::load(vae, file, loader))?;
    let (tokenizer, encoder) = (Box::new(tokenizer), Box::new(encoder));
    let conditioner = Conditioner::Text { tokenizer, encoder };
    Ok(Model { conditioner, unet, decoder: Decoder::Vae(Box::new(vae)), scheduler })
}

/// Models that were not made for each other are found before anything is loaded.
fn check_fit(
    files: &StableDiffusionFiles,
    tokenizer: &ClipTokenizer,
    clip: &ClipConfig,
    unet: &UNetConfig,
    vae: &VaeConfig,
) -> Result<()> {
    if unet.cross_attention_dim != Some(clip.hidden_size) {
        let found = unet.cross_attention_dim.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let problem = format!("found {found}, the text encoder makes {}", clip.hidden_size);
        return Err(blame(&files.unet, "cross_attention_dim", problem));
    }
    if unet.in_channels != vae.latent_channels || unet.out_channels != vae.latent_channels {
        let problem = format!(
            "found {} in and {} out, expected the VAE's {} latent channels",
            unet.in_channels, unet.out_channels, vae.latent_channels
        );
        return Err(blame(&files.unet, "in_channels", problem));
    }
    if tokenizer.max_length() > clip.max_position_embeddings {
        let problem =
            format!("found {}, the tokenizer makes {}", clip.max_position_embeddings, tokenizer.max_length());
        return Err(blame(&files.text_encoder, "max_position_embeddings", problem));
    }
    if tokenizer.vocabulary_size() > clip.vocab_size {
        let problem =
            format!("found {}, the tokenizer has {} tokens", clip.vocab_size, tokenizer.vocabulary_size());
        return Err(blame(&files.text_encoder, "vocab_size", problem));
    }
    Ok(())
}

/// An error about what a network's configuration says, or else its tensors.
fn blame(files: &NetworkFiles, key: &str, problem: String) -> Error {
    match (&files.config, files.weights.first()) {
        (None, Some(weights)) => Error::weights_file(weights, format!("{key}, by its tensors: {problem}")),
        (config, _) => Error::config(config.clone().unwrap_or_default(), key, problem),
    }
}
