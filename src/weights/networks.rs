//! One network of a file that may hold several, under the names of diffusers.

use std::path::PathBuf;

use super::checkpoint::Checkpoint;
use super::names_latent_diffusion as names;
use super::names_open_clip;
use super::originals_latent_diffusion as originals;
use crate::error::Result;

/// The most blocks that a network is looked through for.
const MOST: usize = 512;

impl Checkpoint {
    /// Opens the U-Net in these files: of a diffusers directory, or of a latent diffusion model in one file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_unet(paths: &[PathBuf]) -> Result<Self> {
        let file = Self::open(paths)?;
        if !file.starts("model.diffusion_model.") {
            return Ok(file);
        }
        let has = |name: String| file.shape(&format!("model.diffusion_model.{name}")).is_some();
        // The first downsampler follows the residual blocks of the first level.
        let first = (1..MOST).find(|block| has(format!("input_blocks.{block}.0.op.weight")));
        let layers = first.map_or(2, |block| block - 1);
        let renamed = file.renamed(|name| names::unet(name, layers));
        let levels = renamed.count(|level| format!("down_blocks.{level}.resnets.0.conv1.weight"));
        let up_attention: Vec<bool> = (0..levels)
            .map(|level| has(format!("output_blocks.{}.1.norm.weight", (levels - 1 - level) * (layers + 1))))
            .collect();
        Ok(renamed.with_original_names(move |name| originals::unet(name, layers, &up_attention)))
    }

    /// Opens the text encoder in these files: of a diffusers directory, or the first of Stable Diffusion 1, 2 or XL
    /// in one file.
    ///
    /// Stable Diffusion 2 reads what enters the last layer of its encoder, so the last layer is left out, as
    /// diffusers does.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_text_encoder(paths: &[PathBuf]) -> Result<Self> {
        let file = Self::open(paths)?;
        for prefix in ["cond_stage_model.transformer.", "conditioner.embedders.0.transformer."] {
            if file.starts(prefix) {
                let renamed = file.renamed(|name| names::text_encoder(name.strip_prefix(prefix)?));
                return Ok(renamed.with_original_names(move |name| Some(format!("{prefix}{name}"))));
            }
        }
        const OPEN_CLIP: &str = "cond_stage_model.model.";
        if !file.starts(OPEN_CLIP) {
            return Ok(file);
        }
        let layers = file.count(|layer| format!("{OPEN_CLIP}transformer.resblocks.{layer}.ln_1.weight"));
        let last = format!("transformer.resblocks.{}.", layers.saturating_sub(1));
        Ok(file.open_clip(OPEN_CLIP, |name| name.starts_with(&last)))
    }

    /// Opens the second text encoder in these files: of a diffusers directory, or of SDXL in one file, or the only one
    /// of a refiner in one file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_second_text_encoder(paths: &[PathBuf]) -> Result<Self> {
        let file = Self::open(paths)?;
        for prefix in ["conditioner.embedders.1.model.", "conditioner.embedders.0.model."] {
            if file.starts(prefix) {
                return Ok(file.open_clip(prefix, |_| false));
            }
        }
        Ok(file)
    }

    /// One of `OpenCLIP`'s text encoders without the tensors that are `left_out`.
    fn open_clip(&self, prefix: &'static str, left_out: impl Fn(&str) -> bool) -> Self {
        let own = |name: &str| {
            let name = name.strip_prefix(prefix).filter(|name| !left_out(name))?;
            names_open_clip::text_encoder(name)
        };
        let cut = self.renamed(own).cut_apart(|name| {
            let (layer, leaf) = name.split_once(".qkv_proj.")?;
            Some(["q", "k", "v"].map(|part| format!("{layer}.{part}_proj.{leaf}")))
        });
        cut.with_original_names(move |name| Some(format!("{prefix}{}", names_open_clip::original(name)?)))
    }

    /// Opens the VAE in these files: of a diffusers directory, under the original names by itself, or of a latent
    /// diffusion model in one file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], and [`Error::Weights`](crate::Error::Weights) if there is no VAE.
    pub fn open_vae(paths: &[PathBuf]) -> Result<Self> {
        let file = Self::open(paths)?;
        if file.starts("decoder.up_blocks.") || file.starts("decoder.mid_block.") {
            return Ok(file);
        }
        let prefix = if file.starts("first_stage_model.") { "first_stage_model." } else { "" };
        if !file.starts(&format!("{prefix}decoder.")) {
            let problem = "holds no VAE by the names of its tensors: looked for decoder.up_blocks.* (diffusers), \
                decoder.up.* and first_stage_model.decoder.up.* (the original code)";
            return Err(file.refuse(problem));
        }
        let levels = file.count(|level| format!("{prefix}decoder.up.{level}.block.0.norm1.weight"));
        // Where there is a prefix, tensors without it belong to other networks.
        let renamed = file
            .renamed(|name| if name.starts_with(prefix) { names::autoencoder(name, levels) } else { None });
        Ok(renamed.with_original_names(move |name| {
            Some(format!("{prefix}{}", originals::autoencoder(name, levels)?))
        }))
    }

    /// How many of the names for 0, 1, 2, … are there before one is not.
    #[must_use]
    pub fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..MOST).take_while(|number| self.shape(&name(*number)).is_some()).count()
    }

    fn starts(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }
}
