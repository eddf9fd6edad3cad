//! Weights from their files onto the device.

use crate::error::{Error, Result};
use crate::gpu::{Memory, Purpose};
use crate::models::clip::ClipConfig;
use crate::models::unet::UNetConfig;
use crate::models::vae::VaeConfig;
use crate::tensor::ElementType;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{Checkpoint, Component, Loader, ModelDirectory};

/// Builds one model of a directory and uploads its weights, chunk by chunk.
///
/// `name` is the first part of its weights' labels; matrices are stored as `element`.
///
/// # Errors
/// [`Error::Weights`](crate::Error::Weights) and [`Error::Io`](crate::Error::Io) from the files,
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) and other faults of the device.
pub fn load_model<M>(
    component: &Component,
    memory: &mut Memory,
    name: &str,
    element: ElementType,
    build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<M>,
) -> Result<M> {
    let checkpoint = Checkpoint::open(&component.weights)?;
    let mut loader = Loader::new(name, element);
    let model = build(&checkpoint, &mut loader)?;
    let pending = loader.into_pending();
    memory.allocate_packed(pending.iter().map(|pending| &pending.tensor), Purpose::Weights)?;
    for pending in &pending {
        pending.write(&checkpoint, &mut |offset, bytes| memory.write(&pending.tensor, offset, bytes))?;
    }
    Ok(model)
}

/// Models that were not made for each other are found before anything is loaded.
pub(super) fn check_fit(
    directory: &ModelDirectory,
    tokenizer: &ClipTokenizer,
    clip: &ClipConfig,
    unet: &UNetConfig,
    vae: &VaeConfig,
) -> Result<()> {
    if unet.cross_attention_dim != Some(clip.hidden_size) {
        let problem =
            format!("found {:?}, the text encoder makes {}", unet.cross_attention_dim, clip.hidden_size);
        return Err(Error::config(&directory.unet.config, "cross_attention_dim", problem));
    }
    if unet.in_channels != vae.latent_channels || unet.out_channels != vae.latent_channels {
        let problem = format!(
            "found {} in and {} out, expected the VAE's {} latent channels",
            unet.in_channels, unet.out_channels, vae.latent_channels
        );
        return Err(Error::config(&directory.unet.config, "in_channels", problem));
    }
    if tokenizer.max_length() > clip.max_position_embeddings {
        let problem =
            format!("found {}, the tokenizer makes {}", clip.max_position_embeddings, tokenizer.max_length());
        return Err(Error::config(&directory.text_encoder.config, "max_position_embeddings", problem));
    }
    if tokenizer.vocabulary_size() > clip.vocab_size {
        let problem =
            format!("found {}, the tokenizer has {} tokens", clip.vocab_size, tokenizer.vocabulary_size());
        return Err(Error::config(&directory.text_encoder.config, "vocab_size", problem));
    }
    Ok(())
}
