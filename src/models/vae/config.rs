//! What a `vae/config.json` may say.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::vae::tiling::TILE_STEP;

/// The side of training pictures of Stable Diffusion 1.
const USUAL_SIDE: usize = 512;

/// The shape of a `diffusers.AutoencoderKL`, or of the encoder and decoder of a `diffusers.VQModel`.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of an image that is encoded.
    pub in_channels: usize,
    /// Channels of an image that was decoded.
    pub out_channels: usize,
    /// Channels of the latents within the autoencoder, behind the encoder and before the decoder.
    pub latent_channels: usize,
    /// Channels of the latents outside, as they are denoised; the convolutions of one pixel lead there and back.
    pub embed_channels: usize,
    /// Whether the encoder gives means and log-variances instead of the latents themselves.
    pub double_z: bool,
    /// Height and width of the images that the model was trained with.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of every level, from the one with the most pixels.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of an encoder block; a decoder block has one more.
    pub layers_per_block: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// What latents are multiplied by after encoding, and divided by before decoding.
    pub scaling_factor: f32,
    /// Whether a convolution of one pixel follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a convolution of one pixel goes before the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle blocks have attention, with one head.
    pub mid_block_add_attention: bool,
    /// Whether values may be too large for 16-bit storage. diffusers heeds it in SDXL pipelines only, and so does this.
    pub force_upcast: bool,
}

impl VaeConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        reader.class("AutoencoderKL")?;
        reader.only("act_fn", &[json!("silu"), json!("swish")])?;
        for key in ["shift_factor", "latents_mean", "latents_std"] {
            reader.only(key, &[])?;
        }
        let channels = reader.channels("block_out_channels", &[64], 1..=6)?;
        let levels = channels.len();
        let latent_channels = reader.size("latent_channels", 4)?;
        reader.blocks("down_block_types", &["DownEncoderBlock2D"], &["DownEncoderBlock2D"], levels)?;
        reader.blocks("up_block_types", &["UpDecoderBlock2D"], &["UpDecoderBlock2D"], levels)?;
        let config = Self {
            in_channels: reader.size("in_channels", 3)?,
            out_channels: reader.size("out_channels", 3)?,
            latent_channels,
            embed_channels: latent_channels,
            double_z: true,
            sample_size: reader.extents("sample_size")?,
            layers_per_block: reader.size_up_to("layers_per_block", 1, 64)?,
            norm_num_groups: reader.size("norm_num_groups", 32)?,
            scaling_factor: scaling_factor(&mut reader, "scaling_factor", 0.18215)?,
            use_quant_conv: reader.flag("use_quant_conv", true)?,
            use_post_quant_conv: reader.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: reader.flag("mid_block_add_attention", true)?,
            force_upcast: reader.flag("force_upcast", true)?,
            block_out_channels: channels,
        };
        reader.expect_groups("norm_num_groups", config.norm_num_groups, &config.block_out_channels)?;
        reader.finish(&[])?;
        Ok(config)
    }

    /// The epsilon of every group norm.
    #[must_use]
    pub fn epsilon(&self) -> f32 {
        1e-6
    }

    /// How many levels there are.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.block_out_channels.len()
    }

    /// Pixels along one side for every latent pixel.
    #[must_use]
    pub fn upsampling(&self) -> usize {
        1 << (self.levels() - 1)
    }

    /// The side of the tiles that a picture is decoded in where that is asked for, in latents: those of a training
    /// picture, 512 pixels where the config does not say, as diffusers takes them; rounded down to a multiple of
    /// [`TILE_STEP`].
    #[must_use]
    pub fn tile_side(&self) -> usize {
        let side = self.sample_size.map_or(USUAL_SIDE, |[height, _]| height) / self.upsampling();
        (side - side % TILE_STEP).max(TILE_STEP)
    }
}

/// What latents are multiplied by after encoding: a positive number.
pub(in crate::models) fn scaling_factor(reader: &mut ConfigReader, key: &str, default: f64) -> Result<f32> {
    let number = reader.number(key, default)?;
    #[expect(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
    let factor = number as f32;
    if factor.is_normal() && factor > 0.0 {
        return Ok(factor);
    }
    Err(reader.refuse(key, format!("found {number}, expected a positive number")))
}
