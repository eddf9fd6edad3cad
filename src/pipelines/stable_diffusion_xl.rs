//! SDXL from its files: a diffusers directory, or one file.

use super::autoencoder::{Family, OpenedDecoder};
use super::embeddings::learn;
use super::loading::Site;
use super::model::{Conditioner, Model};
use super::stable_diffusion::{
    Opened, blame, expect_channels, expect_tokenizer, open_scheduler, open_tokenizer,
};
use super::two_texts::TwoTexts;
use super::wording::TextEncoder;
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, ClipTextModel};
use crate::models::unet::{REFINER_SIZES, UNet, UNetConfig};
use crate::tokenizer::ClipTokenizer;
use crate::weights::{Network, NetworkFiles, RefinerFiles, StableDiffusionXlFiles};

/// Loads the networks; what their files do not say is told from their tensors.
pub(super) fn load(files: &StableDiffusionXlFiles, site: &mut Site<'_>) -> Result<Model> {
    let scheduler = open_scheduler(&files.scheduler)?;
    let [first, second] = &files.text_encoders;
    let mut encoder = Opened::text_encoder(first)?;
    let mut encoder_2 = Opened::second_text_encoder(second)?;
    let [first, second] = files.tokenizers.each_ref().map(Option::as_deref);
    let mut tokenizers =
        [open_tokenizer(first, &encoder.config)?, open_tokenizer(second, &encoder_2.config)?];
    let mut unet = Opened::unet(&files.unet)?;
    let vae = OpenedDecoder::open(&files.vae, Family::Xl)?;
    check_fit(files, &tokenizers, [&encoder.config, &encoder_2.config], &unet.config, vae.latent_channels())?;

    let [tokenizer, tokenizer_2] = &mut tokenizers;
    learn(site.embeddings, &mut [(tokenizer, &mut encoder), (tokenizer_2, &mut encoder_2)], false)?;
    site.change(&mut [
        (Network::Unet, &mut unet.checkpoint),
        (Network::TextEncoder, &mut encoder.checkpoint),
        (Network::TextEncoder2, &mut encoder_2.checkpoint),
    ])?;
    let encoder = encoder.load_changeable(site, Network::TextEncoder, ClipTextModel::load)?;
    let encoder_2 =
        encoder_2.load_changeable(site, Network::TextEncoder2, ClipTextModel::load_with_projection)?;
    let unet = unet.load_changeable(site, Network::Unet, UNet::load)?;
    let (encoder_of_vae, decoder) = vae.load(site, Family::Xl)?;
    let zeros_for_empty = files.force_zeros_for_empty_prompt;
    let [tokenizer, tokenizer_2] = tokenizers;
    let first = Some(TextEncoder { tokenizer, model: encoder });
    let second = TextEncoder { tokenizer: tokenizer_2, model: encoder_2 };
    let texts = TwoTexts { first, second, zeros_for_empty };
    let conditioner = Conditioner::TwoTexts(Box::new(texts));
    Ok(Model { conditioner, unet, decoder, encoder: encoder_of_vae, preview: None, scheduler })
}

/// Models that were not made for each other are found before anything is loaded.
fn check_fit(
    files: &StableDiffusionXlFiles,
    tokenizers: &[ClipTokenizer; 2],
    encoders: [&ClipConfig; 2],
    unet: &UNetConfig,
    latent_channels: usize,
) -> Result<()> {
    let [first, second] = encoders.map(|encoder| encoder.hidden_size);
    if unet.cross_attention_dim != Some(first + second) {
        let found = unet.cross_attention_dim.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let problem = format!("found {found}, the text encoders make {first} and {second}");
        return Err(blame(&files.unet, "cross_attention_dim", problem));
    }
    expect_sizes(&files.unet, unet, encoders[1])?;
    expect_channels(&files.unet, unet, latent_channels)?;
    for ((tokenizer, encoder), files) in tokenizers.iter().zip(encoders).zip(&files.text_encoders) {
        expect_tokenizer(files, tokenizer, encoder)?;
    }
    let [first, second] = tokenizers.each_ref().map(ClipTokenizer::max_length);
    if first != second {
        let problem = format!("found {second}, the first tokenizer makes {first}");
        let folder = files.tokenizers.iter().rev().flatten().next().cloned().unwrap_or_default();
        return Err(Error::config(folder.join("tokenizer_config.json"), "model_max_length", problem));
    }
    Ok(())
}

/// A U-Net must be told the prompt as the vector that the second text encoder makes, and as many numbers as this kind of
/// model has.
fn expect_sizes(files: &NetworkFiles, unet: &UNetConfig, encoder: &ClipConfig) -> Result<()> {
    let Some(text_time) = unet.text_time else {
        let problem = "is missing, expected \"text_time\", since this is an SDXL pipeline".to_owned();
        return Err(blame(files, "addition_embed_type", problem));
    };
    let (pooled, sizes) = (encoder.projection_dim, text_time.sizes);
    if text_time.input_channels == pooled + sizes * text_time.time_channels {
        return Ok(());
    }
    let mut problem = format!(
        "found {}, expected the second text encoder's {pooled} and {sizes} times {}",
        text_time.input_channels, text_time.time_channels
    );
    if text_time.input_channels == pooled + REFINER_SIZES * text_time.time_channels {
        problem += &format!("; refiners, which have no first text encoder, are told {REFINER_SIZES} numbers");
    }
    Err(blame(files, "projection_class_embeddings_input_dim", problem))
}

/// Loads the networks of a refiner; what their files do not say is told from their tensors.
pub(super) fn load_refiner(files: &RefinerFiles, site: &mut Site<'_>) -> Result<Model> {
    let scheduler = open_scheduler(&files.scheduler)?;
    let mut encoder = Opened::second_text_encoder(&files.text_encoder_2)?;
    let mut tokenizer = open_tokenizer(files.tokenizer_2.as_deref(), &encoder.config)?;
    let unet = Opened::unet(&files.unet)?;
    let mut unet = Opened { config: unet.config.of_refiner(), ..unet };
    let vae = OpenedDecoder::open(&files.vae, Family::Xl)?;
    let width = encoder.config.hidden_size;
    if unet.config.cross_attention_dim != Some(width) {
        let found =
            unet.config.cross_attention_dim.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let problem = format!("found {found}, the text encoder makes {width}");
        return Err(blame(&files.unet, "cross_attention_dim", problem));
    }
    expect_sizes(&files.unet, &unet.config, &encoder.config)?;
    expect_channels(&files.unet, &unet.config, vae.latent_channels())?;
    expect_tokenizer(&files.text_encoder_2, &tokenizer, &encoder.config)?;
    learn(site.embeddings, &mut [(&mut tokenizer, &mut encoder)], true)?;
    site.change(&mut [
        (Network::Unet, &mut unet.checkpoint),
        (Network::TextEncoder2, &mut encoder.checkpoint),
    ])?;
    let model = encoder.load_changeable(site, Network::TextEncoder2, ClipTextModel::load_with_projection)?;
    let unet = unet.load_changeable(site, Network::Unet, UNet::load)?;
    let (encoder, decoder) = vae.load(site, Family::Xl)?;
    let second = TextEncoder { tokenizer, model };
    let texts = TwoTexts { first: None, second, zeros_for_empty: files.force_zeros_for_empty_prompt };
    let conditioner = Conditioner::TwoTexts(Box::new(texts));
    Ok(Model { conditioner, unet, decoder, encoder, preview: None, scheduler })
}
