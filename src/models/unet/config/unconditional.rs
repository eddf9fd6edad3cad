//! `diffusers.UNet2DModel`: what its `config.json` may say.

use serde_json::json;

use super::{UNetConfig, downsample_padding, has_attention};
use crate::error::Result;
use crate::models::config_reader::ConfigReader;

/// The class in diffusers.
pub(super) const CLASS: &str = "UNet2DModel";

const DOWN_BLOCKS: [&str; 2] = ["DownBlock2D", "AttnDownBlock2D"];
const UP_BLOCKS: [&str; 2] = ["UpBlock2D", "AttnUpBlock2D"];

/// Reads a file but for what [`UNetConfig::check`] does with all of its kind.
pub(super) fn read(reader: &mut ConfigReader) -> Result<UNetConfig> {
    reader.class(CLASS)?;
    let channels = reader.channels("block_out_channels", &[224, 448, 672, 896], 1..=8)?;
    let levels = channels.len();
    refuse_other_networks(reader)?;

    let default = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"];
    let down = reader.blocks("down_block_types", &default, &DOWN_BLOCKS, levels)?;
    let default = ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"];
    let up = reader.blocks("up_block_types", &default, &UP_BLOCKS, levels)?;
    reader.word("mid_block_type", "UNetMidBlock2D", &["UNetMidBlock2D"])?;

    let norm_num_groups = reader.size("norm_num_groups", 32)?;
    let middle_groups = reader.optional_sizes("attn_norm_num_groups", 1)?;
    let time_channels = reader.optional_sizes("time_embedding_dim", 1)?;
    Ok(UNetConfig {
        in_channels: reader.size("in_channels", 3)?,
        out_channels: reader.size("out_channels", 3)?,
        sample_size: reader.extents("sample_size")?,
        down_attention: has_attention(down.into_iter()),
        up_attention: has_attention(up.into_iter().rev()),
        middle_attention: reader.flag("add_attention", true)?,
        layers_per_block: reader.size_up_to("layers_per_block", 2, 64)?,
        heads: heads(reader, &channels)?,
        transformer_layers: vec![1; levels],
        text_time: None,
        guidance_channels: None,
        cross_attention_dim: None,
        norm_num_groups,
        middle_norm_num_groups: middle_groups.map_or(norm_num_groups, |groups| groups[0]),
        norm_eps: reader.epsilon("norm_eps", 1e-5)?,
        time_embedding_channels: time_channels.map_or(4 * channels[0], |channels| channels[0]),
        flip_sin_to_cos: reader.flag("flip_sin_to_cos", true)?,
        freq_shift: reader.number("freq_shift", 0.0)?,
        downsample_padding: downsample_padding(reader)?,
        block_out_channels: channels,
    })
}

/// Keys that make another network of it: class labels, learned time embeddings, residual resampling.
fn refuse_other_networks(reader: &mut ConfigReader) -> Result<()> {
    for key in ["class_embed_type", "num_class_embeds"] {
        reader.only(key, &[])?;
    }
    reader.only("center_input_sample", &[json!(false)])?;
    reader.only("mid_block_scale_factor", &[json!(1)])?;
    reader.only("act_fn", &[json!("silu"), json!("swish")])?;
    reader.only("resnet_time_scale_shift", &[json!("default")])?;
    reader.only("time_embedding_type", &[json!("positional")])?;
    for key in ["downsample_type", "upsample_type"] {
        reader.only(key, &[json!("conv")])?;
    }
    // Only learned time embeddings read it.
    reader.optional_sizes("num_train_timesteps", 1).map(|_| ())
}

/// Heads of every level: `attention_head_dim` is the size of one here, and one head has all channels without it.
fn heads(reader: &mut ConfigReader, channels: &[usize]) -> Result<Vec<usize>> {
    const KEY: &str = "attention_head_dim";
    let size = if reader.given_as_null(KEY) { None } else { Some(reader.size(KEY, 8)?) };
    let Some(size) = size else { return Ok(vec![1; channels.len()]) };
    channels
        .iter()
        .map(|channels| {
            if channels.is_multiple_of(size) {
                return Ok(channels / size);
            }
            let problem = format!("found {size}, which does not divide {channels} channels");
            Err(reader.refuse(KEY, problem))
        })
        .collect()
}
