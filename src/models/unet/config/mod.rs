//! The shape of a U-Net, and the files that say it.

mod conditional;
mod from_tensors;
mod latent_diffusion;
mod original_ddpm;
mod unconditional;

use std::path::Path;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::unet::REFINER_SIZES;

/// Keys that change nothing: what an averaging of weights leaves behind in a diffusers file.
const AVERAGING: [&str; 7] =
    ["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"];

/// The shape of a `diffusers.UNet2DConditionModel` or a `diffusers.UNet2DModel`.
///
/// Levels count from the outermost, which has the most pixels; up blocks run through them backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the noisy sample.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Height and width of the samples that the model was trained with.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of every level.
    pub block_out_channels: Vec<usize>,
    /// For every level, whether its down block has attention.
    pub down_attention: Vec<bool>,
    /// For every level (not for every up block in its order), whether its up block has attention.
    pub up_attention: Vec<bool>,
    /// Whether the middle block has attention.
    pub middle_attention: bool,
    /// Residual blocks of a down block; an up block has one more.
    pub layers_per_block: usize,
    /// Attention heads of every level; the middle block has those of the last.
    pub heads: Vec<usize>,
    /// Transformer blocks behind each other in every attention of a level; the middle block has as many as the last.
    pub transformer_layers: Vec<usize>,
    /// Channels of the context that transformers attend to, a prompt's or a class's. `None` for a
    /// `UNet2DModel`, which has plain self-attention where others have transformers.
    pub cross_attention_dim: Option<usize>,
    /// Groups of every group norm, but perhaps one.
    pub norm_num_groups: usize,
    /// Groups of the norm in front of the middle block's plain attention.
    pub middle_norm_num_groups: usize,
    /// The epsilon of the residual blocks' group norms, of plain attention's, and of the last one.
    pub norm_eps: f32,
    /// Channels of the time embedding that residual blocks read.
    pub time_embedding_channels: usize,
    /// What is added to the time embedding besides; `None` but for SDXL.
    pub text_time: Option<TextTimeConfig>,
    /// `time_cond_proj_dim`: channels of the sinusoids of the guidance scale, which distilled networks read.
    pub guidance_channels: Option<usize>,
    /// Whether the time embedding starts with its cosines.
    pub flip_sin_to_cos: bool,
    /// Shifts the frequencies of the time embedding: they fall to `10000^(-k / (half - shift))`.
    pub freq_shift: f64,
    /// Zero rows and columns around the input of a downsampling convolution; without, one after it.
    pub downsample_padding: usize,
}

/// `addition_embed_type: text_time`: an embedding of the prompt as one vector, and of sizes of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextTimeConfig {
    /// Channels of the sinusoids of one number.
    pub time_channels: usize,
    /// Channels of the vector and of all sinusoids together.
    pub input_channels: usize,
    /// How many numbers there are: [`SIZES`](crate::models::unet::SIZES), or for a refiner
    /// [`REFINER_SIZES`](crate::models::unet::REFINER_SIZES). No configuration says it; it follows from the length of the
    /// vector.
    pub sizes: usize,
}

impl UNetConfig {
    /// The same network, taken for a refiner of SDXL, which is told an aesthetic score instead of a target size.
    #[must_use]
    pub fn of_refiner(self) -> Self {
        let text_time = self.text_time.map(|text_time| TextTimeConfig { sizes: REFINER_SIZES, ..text_time });
        Self { text_time, ..self }
    }

    /// Reads a `config.json` of diffusers; its `_class_name` says whether it is a `UNet2DModel`, which has no
    /// context, or a `UNet2DConditionModel`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        let config = if reader.class_name() == Some(unconditional::CLASS) {
            unconditional::read(&mut reader)?
        } else {
            conditional::read(&mut reader)?
        };
        config.check(&reader)?;
        reader.finish(&[&AVERAGING[..], &["dropout", "addition_embed_type_num_heads"]].concat())?;
        Ok(config)
    }

    /// Reads the section `unet_config.params` of an original latent diffusion model's YAML file.
    pub(in crate::models) fn from_latent_diffusion(section: ConfigReader) -> Result<Self> {
        latent_diffusion::read(section)
    }

    /// Reads a YAML file of `ermongroup/ddim`, the original DDIM code.
    pub(in crate::models) fn from_original_ddpm(file: &mut ConfigReader) -> Result<Self> {
        original_ddpm::read(file)
    }

    /// How many levels there are.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// How many tensors the down path leaves for the up path.
    #[must_use]
    pub fn skip_count(&self) -> usize {
        self.levels() * (self.layers_per_block + 1)
    }

    /// Channels of every tensor that the down path leaves, in the order in which it makes them.
    #[must_use]
    pub fn skip_channels(&self) -> Vec<usize> {
        let mut skips = vec![self.block_out_channels[0]];
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            let downsampled = usize::from(level + 1 < self.levels());
            skips.extend(std::iter::repeat_n(*channels, self.layers_per_block + downsampled));
        }
        skips
    }

    /// Channels of the sinusoidal time embedding, before its two linear layers.
    #[must_use]
    pub fn time_channels(&self) -> usize {
        self.block_out_channels[0]
    }

    /// Values of one attention head of a level.
    #[must_use]
    pub fn head_size(&self, level: usize) -> usize {
        self.block_out_channels[level] / self.heads[level]
    }

    /// By how much height and width shrink from the first level to the last.
    #[must_use]
    pub fn downsampling(&self) -> usize {
        1 << (self.levels() - 1)
    }

    /// Checks what several keys decide together; names are those of diffusers.
    fn check(&self, reader: &ConfigReader) -> Result<()> {
        reader.expect_groups("norm_num_groups", self.norm_num_groups, &self.block_out_channels)?;
        let last = self.levels() - 1;
        let deepest = [self.block_out_channels[last]];
        reader.expect_groups("attn_norm_num_groups", self.middle_norm_num_groups, &deepest)?;
        let half = self.block_out_channels[0] / 2;
        if !self.block_out_channels[0].is_multiple_of(2) {
            let problem = format!("found {} first, supported are even numbers", self.block_out_channels[0]);
            return Err(reader.refuse("block_out_channels", problem));
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 65536")]
        let half = half as f64;
        if !(0.0..half).contains(&self.freq_shift) {
            let problem = format!("found {}, expected at least 0 and less than {half}", self.freq_shift);
            return Err(reader.refuse("freq_shift", problem));
        }
        for level in 0..self.levels() {
            let middle = self.middle_attention && level == last;
            if self.down_attention[level] || self.up_attention[level] || middle {
                reader.expect_heads(
                    "attention_head_dim",
                    self.heads[level],
                    self.block_out_channels[level],
                )?;
            }
        }
        Ok(())
    }
}

/// `downsample_padding`, which is 0 or 1.
fn downsample_padding(reader: &mut ConfigReader) -> Result<usize> {
    let padding = reader.number("downsample_padding", 1.0)?;
    if padding == 0.0 {
        Ok(0)
    } else if padding == 1.0 {
        Ok(1)
    } else {
        Err(reader.refuse("downsample_padding", format!("found {padding}, supported are 0 and 1")))
    }
}

/// For every level, whether a list of block types has the one with attention (the second of those supported).
fn has_attention(blocks: impl Iterator<Item = usize>) -> Vec<bool> {
    blocks.map(|block| block == 1).collect()
}
