//! SDXL models from their files onto the device.

use super::loading::{Site, expect_channels, expect_tokenizer};
use super::model::{Conditioner, Decoder, Model};
use super::two_texts::TwoTexts;
use crate::error::{Error, Result};
use crate::models::clip::{ClipConfig, ClipTextModel};
use crate::models::unet::{SIZES, UNet, UNetConfig};
use crate::models::vae::{VaeConfig, VaeDecoder};
use crate::schedulers::SchedulerConfig;
use crate::tensor::ElementType;
use crate::tokenizer::ClipTokenizer;
use crate::weights::StableDiffusionXlFiles;

impl Site<'_> {
    pub(super) fn stable_diffusion_xl(&mut self, files: &StableDiffusionXlFiles) -> Result<Model> {
        let [first, second] = &files.tokenizers;
        let tokenizers = [ClipTokenizer::open(first)?, ClipTokenizer::open(second)?];
        let scheduler = SchedulerConfig::from_file(&files.scheduler)?;
        let [first, second] = &files.text_encoders;
        let configs = [ClipConfig::from_file(&first.config)?, ClipConfig::from_file(&second.config)?];
        let unet_config = UNetConfig::from_file(&files.unet.config)?;
        let vae_config = VaeConfig::from_file(&files.vae.config)?;
        check_fit(files, &tokenizers, &configs, &unet_config, &vae_config)?;

        let [config, config_2] = configs;
        let encoder =
            self.component(first, "text_encoder", |file, loader| ClipTextModel::load(config, file, loader))?;
        let encoder_2 = self.component(second, "text_encoder_2", |file, loader| {
            ClipTextModel::load_with_projection(config_2, file, loader)
        })?;
        let unet =
            self.component(&files.unet, "unet", |file, loader| UNet::load(unet_config, file, loader))?;
        // The decoder of the first models overflows 16 bits, as its config says.
        let element = if vae_config.force_upcast { ElementType::F32 } else { self.element };
        let vae = self.component_as(&files.vae, "vae", element, |file, loader| {
            VaeDecoder::load(vae_config, file, loader)
        })?;
        let zeros_for_empty = files.force_zeros_for_empty_prompt;
        let texts = TwoTexts { tokenizers, encoders: [encoder, encoder_2], zeros_for_empty };
        let conditioner = Conditioner::TwoTexts(Box::new(texts));
        Ok(Model { conditioner, unet, decoder: Decoder::Vae(Box::new(vae)), scheduler })
    }
}

/// Models that were not made for each other are found before anything is loaded.
fn check_fit(
    files: &StableDiffusionXlFiles,
    tokenizers: &[ClipTokenizer; 2],
    encoders: &[ClipConfig; 2],
    unet: &UNetConfig,
    vae: &VaeConfig,
) -> Result<()> {
    let file = &files.unet.config;
    let [first, second] = encoders.each_ref().map(|encoder| encoder.hidden_size);
    if unet.cross_attention_dim != Some(first + second) {
        let found = unet.cross_attention_dim.map_or_else(|| "none".to_owned(), |found| found.to_string());
        let problem = format!("found {found}, the text encoders make {first} and {second}");
        return Err(Error::config(file, "cross_attention_dim", problem));
    }
    let Some(text_time) = unet.text_time else {
        let problem = "is missing, expected \"text_time\", since this is an SDXL pipeline";
        return Err(Error::config(file, "addition_embed_type", problem));
    };
    let pooled = encoders[1].projection_dim;
    if text_time.input_channels != pooled + SIZES * text_time.time_channels {
        let problem = format!(
            "found {}, expected the second text encoder's {pooled} and {SIZES} times {}; refiners, which read an \
            aesthetic score, are not supported",
            text_time.input_channels, text_time.time_channels
        );
        return Err(Error::config(file, "projection_class_embeddings_input_dim", problem));
    }
    expect_channels(file, unet, vae.latent_channels)?;
    for ((tokenizer, encoder), files) in tokenizers.iter().zip(encoders).zip(&files.text_encoders) {
        expect_tokenizer(&files.config, tokenizer, encoder)?;
    }
    let [first, second] = tokenizers.each_ref().map(ClipTokenizer::max_length);
    if first != second {
        let problem = format!("found {second}, the first tokenizer makes {first}");
        let file = files.tokenizers[1].join("tokenizer_config.json");
        return Err(Error::config(file, "model_max_length", problem));
    }
    Ok(())
}
