//! What the `config.json` of a tiny autoencoder may say.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::vae::scaling_factor;
use crate::models::vae::tiling::TILE_STEP;

/// Keys of the encoder, and of ways to store latents as bytes, which the decoder does not read.
const OTHERS: [&str; 8] = [
    "block_out_channels",
    "encoder_block_out_channels",
    "force_upcast",
    "in_channels",
    "latent_magnitude",
    "latent_shift",
    "num_encoder_blocks",
    "sample_size",
];

/// The side of a tile in pixels, of all tiny autoencoders.
const TILE_PIXELS: usize = 512;

/// The shape of the decoder of a `diffusers.AutoencoderTiny`.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyAutoencoderConfig {
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of the picture.
    pub out_channels: usize,
    /// Channels of everything between.
    pub channels: usize,
    /// Residual blocks of every level, from the one with the fewest pixels.
    pub num_decoder_blocks: Vec<usize>,
    /// What latents are divided by before decoding; 1, since these decoders read latents as the U-Net makes them.
    pub scaling_factor: f32,
}

impl TinyAutoencoderConfig {
    /// Reads a `config.json`.
    ///
    /// `latent_magnitude` and `latent_shift` are for latents that are stored as bytes; decoding does not read them, in
    /// diffusers neither: latents are limited to `3 tanh(x / 3)` whatever they say.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        reader.class("AutoencoderTiny")?;
        reader.only("act_fn", &[json!("relu")])?;
        reader.only("upsample_fn", &[json!("nearest")])?;
        reader.only("upsampling_scaling_factor", &[json!(2)])?;
        reader.only("shift_factor", &[json!(0), json!(0.0)])?;
        let widths = reader.channels("decoder_block_out_channels", &[64, 64, 64, 64], 1..=6)?;
        if let Some(other) = widths.iter().find(|width| **width != widths[0]) {
            let problem = format!("found {} and {other}, supported is one width for all levels", widths[0]);
            return Err(reader.refuse("decoder_block_out_channels", problem));
        }
        let num_decoder_blocks = if reader.has("num_decoder_blocks") {
            reader.list("num_decoder_blocks")?
        } else {
            vec![3, 3, 3, 1]
        };
        if num_decoder_blocks.len() != widths.len() || num_decoder_blocks.iter().any(|count| *count > 64) {
            let problem = format!(
                "found {num_decoder_blocks:?}, expected a number from 1 to 64 for each of {} levels",
                widths.len()
            );
            return Err(reader.refuse("num_decoder_blocks", problem));
        }
        let config = Self {
            latent_channels: reader.size("latent_channels", 4)?,
            out_channels: reader.size("out_channels", 3)?,
            channels: widths[0],
            num_decoder_blocks,
            scaling_factor: scaling_factor(&mut reader, "scaling_factor", 1.0)?,
        };
        if config.out_channels != 3 {
            let problem = format!("found {}, supported is 3", config.out_channels);
            return Err(reader.refuse("out_channels", problem));
        }
        reader.finish(&OTHERS)?;
        Ok(config)
    }

    /// How many levels there are.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.num_decoder_blocks.len()
    }

    /// Pixels along one side for every latent pixel.
    #[must_use]
    pub fn upsampling(&self) -> usize {
        1 << (self.levels() - 1)
    }

    /// The side of the tiles that a picture is decoded in where that is asked for, in latents: 512 pixels, rounded down
    /// to a multiple of [`TILE_STEP`].
    #[must_use]
    pub fn tile_side(&self) -> usize {
        let side = TILE_PIXELS / self.upsampling();
        (side - side % TILE_STEP).max(TILE_STEP)
    }
}
