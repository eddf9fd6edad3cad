//! What the `config.json` of a `VQModel` may say, and the section `first_stage_config` of a latent diffusion model.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::vae::{VaeConfig, scaling_factor};

/// `force_upcast` asks for sums in f32, and all of ours are.
const HARMLESS: [&str; 1] = ["force_upcast"];

/// The shape of a `diffusers.VQModel`.
#[derive(Clone, Debug, PartialEq)]
pub struct VqConfig {
    /// The encoder and the decoder.
    pub autoencoder: VaeConfig,
    /// Entries of the codebook.
    pub num_vq_embeddings: usize,
}

impl VqConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        reader.class("VQModel")?;
        reader.only("act_fn", &[json!("silu"), json!("swish")])?;
        reader.only("norm_type", &[json!("group")])?;
        reader.only("lookup_from_codebook", &[json!(false)])?;
        let channels = reader.channels("block_out_channels", &[64], 1..=6)?;
        let levels = channels.len();
        reader.blocks("down_block_types", &["DownEncoderBlock2D"], &["DownEncoderBlock2D"], levels)?;
        reader.blocks("up_block_types", &["UpDecoderBlock2D"], &["UpDecoderBlock2D"], levels)?;
        let latent_channels = reader.size("latent_channels", 3)?;
        let embed = reader.optional_sizes("vq_embed_dim", 1)?;
        let autoencoder = VaeConfig {
            in_channels: reader.size("in_channels", 3)?,
            out_channels: reader.size("out_channels", 3)?,
            latent_channels,
            embed_channels: embed.map_or(latent_channels, |sizes| sizes[0]),
            double_z: false,
            sample_size: reader.extents("sample_size")?,
            layers_per_block: reader.size_up_to("layers_per_block", 1, 64)?,
            norm_num_groups: reader.size("norm_num_groups", 32)?,
            scaling_factor: scaling_factor(&mut reader, "scaling_factor", 0.18215)?,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: reader.flag("mid_block_add_attention", true)?,
            force_upcast: false,
            block_out_channels: channels,
        };
        let groups = autoencoder.norm_num_groups;
        reader.expect_groups("norm_num_groups", groups, &autoencoder.block_out_channels)?;
        let num_vq_embeddings = reader.size_up_to("num_vq_embeddings", 256, 1 << 20)?;
        reader.finish(&HARMLESS)?;
        Ok(Self { autoencoder, num_vq_embeddings })
    }

    /// Reads the section `first_stage_config.params` of an original latent diffusion model's YAML file
    /// (`ldm.models.autoencoder.VQModelInterface`), whose norms have 32 groups.
    pub(in crate::models) fn from_latent_diffusion(
        mut section: ConfigReader,
        scaling_factor: f32,
    ) -> Result<Self> {
        let embed_channels = section.required_size("embed_dim")?;
        let num_vq_embeddings = section.required_size("n_embed")?;
        section.only("remap", &[])?;
        section.only("sane_index_shape", &[json!(false)])?;
        let mut shape = section.child("ddconfig")?;
        shape.only("double_z", &[json!(false)])?;
        shape.only("attn_resolutions", &[json!([])])?;
        shape.only("resamp_with_conv", &[json!(true)])?;
        shape.only("attn_type", &[json!("vanilla")])?;
        shape.only("tanh_out", &[json!(false)])?;
        let base = shape.required_size("ch")?;
        let channels = shape.multiples("ch_mult", base)?;
        let autoencoder = VaeConfig {
            in_channels: shape.required_size("in_channels")?,
            out_channels: shape.required_size("out_ch")?,
            latent_channels: shape.required_size("z_channels")?,
            embed_channels,
            double_z: false,
            sample_size: Some([shape.required_size("resolution")?; 2]),
            layers_per_block: shape.size_up_to("num_res_blocks", 2, 64)?,
            norm_num_groups: 32,
            scaling_factor,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            force_upcast: false,
            block_out_channels: channels,
        };
        shape.expect_groups("ch", autoencoder.norm_num_groups, &autoencoder.block_out_channels)?;
        shape.finish(&["dropout"])?;
        section.finish(&["lossconfig", "monitor", "ckpt_path", "image_key", "colorize_nlabels"])?;
        Ok(Self { autoencoder, num_vq_embeddings })
    }
}
