//! `diffusers.UNet2DConditionModel`: what its `config.json` may say.

use serde_json::json;

use super::{TextTimeConfig, UNetConfig, downsample_padding, has_attention};
use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::unet::{REFINER_SIZES, SIZES};

const DOWN_BLOCKS: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
const UP_BLOCKS: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];

/// Reads a file but for what [`UNetConfig::check`] does with all of its kind.
pub(super) fn read(reader: &mut ConfigReader) -> Result<UNetConfig> {
    reader.class("UNet2DConditionModel")?;
    let channels = reader.channels("block_out_channels", &[320, 640, 1280, 1280], 2..=6)?;
    let levels = channels.len();
    refuse_other_networks(reader, &channels)?;

    let default = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
    let down = reader.blocks("down_block_types", &default, &DOWN_BLOCKS, levels)?;
    let default = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
    let up = reader.blocks("up_block_types", &default, &UP_BLOCKS, levels)?;
    reader.word("mid_block_type", "UNetMidBlock2DCrossAttn", &["UNetMidBlock2DCrossAttn"])?;
    // Attention is summed in f32 either way, and both kinds of projection are the same product.
    reader.flag("upcast_attention", false)?;
    reader.flag("use_linear_projection", false)?;

    let norm_num_groups = reader.size("norm_num_groups", 32)?;
    Ok(UNetConfig {
        in_channels: reader.size("in_channels", 4)?,
        out_channels: reader.size("out_channels", 4)?,
        sample_size: reader.extents("sample_size")?,
        down_attention: has_attention(down.into_iter()),
        up_attention: has_attention(up.into_iter().rev()),
        middle_attention: true,
        layers_per_block: layers_per_block(reader, levels)?,
        heads: heads(reader, levels)?,
        transformer_layers: transformer_layers(reader, levels)?,
        text_time: text_time(reader)?,
        guidance_channels: guidance_channels(reader)?,
        cross_attention_dim: Some(context_channels(reader, levels)?),
        norm_num_groups,
        middle_norm_num_groups: norm_num_groups,
        norm_eps: reader.epsilon("norm_eps", 1e-5)?,
        time_embedding_channels: 4 * channels[0],
        flip_sin_to_cos: reader.flag("flip_sin_to_cos", true)?,
        freq_shift: reader.number("freq_shift", 0.0)?,
        downsample_padding: downsample_padding(reader)?,
        block_out_channels: channels,
    })
}

/// Keys that make another network of it; image prompts and class labels among them.
fn refuse_other_networks(reader: &mut ConfigReader, channels: &[usize]) -> Result<()> {
    for key in [
        "class_embed_type",
        "num_class_embeds",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "reverse_transformer_layers_per_block",
        "time_embedding_act_fn",
        "timestep_post_act",
        "cross_attention_norm",
    ] {
        reader.only(key, &[])?;
    }
    for key in [
        "center_input_sample",
        "dual_cross_attention",
        "mid_block_only_cross_attention",
        "class_embeddings_concat",
        "resnet_skip_time_act",
    ] {
        reader.only(key, &[json!(false)])?;
    }
    for key in ["mid_block_scale_factor", "resnet_out_scale_factor"] {
        reader.only(key, &[json!(1)])?;
    }
    for key in ["conv_in_kernel", "conv_out_kernel"] {
        reader.only(key, &[json!(3)])?;
    }
    reader.only("act_fn", &[json!("silu"), json!("swish")])?;
    reader.only("resnet_time_scale_shift", &[json!("default")])?;
    reader.only("time_embedding_type", &[json!("positional")])?;
    reader.only("attention_type", &[json!("default")])?;
    let list = json!(vec![false; channels.len()]);
    reader.only("only_cross_attention", &[json!(false), list])?;
    reader.only("time_embedding_dim", &[json!(4 * channels[0])])
}

fn transformer_layers(reader: &mut ConfigReader, levels: usize) -> Result<Vec<usize>> {
    const KEY: &str = "transformer_layers_per_block";
    let layers = reader.sizes(KEY, levels, 1)?;
    match layers.iter().find(|count| **count > 64) {
        None => Ok(layers),
        Some(count) => Err(reader.refuse(KEY, format!("found {count}, supported are at most 64"))),
    }
}

/// Channels of the sinusoids of the guidance scale.
fn guidance_channels(reader: &mut ConfigReader) -> Result<Option<usize>> {
    const KEY: &str = "time_cond_proj_dim";
    if !reader.has(KEY) {
        reader.only(KEY, &[])?;
        return Ok(None);
    }
    let channels = reader.required_size(KEY)?;
    if channels.is_multiple_of(2) && channels >= 4 {
        return Ok(Some(channels));
    }
    Err(reader.refuse(KEY, format!("found {channels}, supported are even numbers from 4")))
}

/// SDXL's addition to the time embedding.
fn text_time(reader: &mut ConfigReader) -> Result<Option<TextTimeConfig>> {
    const INPUTS: &str = "projection_class_embeddings_input_dim";
    if !reader.has("addition_embed_type") {
        for key in ["addition_embed_type", "addition_time_embed_dim", INPUTS] {
            reader.only(key, &[])?;
        }
        return Ok(None);
    }
    reader.only("addition_embed_type", &[json!("text_time")])?;
    let time_channels = reader.required_size("addition_time_embed_dim")?;
    if !time_channels.is_multiple_of(2) {
        let problem = format!("found {time_channels}, supported are even numbers");
        return Err(reader.refuse("addition_time_embed_dim", problem));
    }
    let input_channels = reader.required_size(INPUTS)?;
    // At least as many as a refiner reads.
    let sizes = REFINER_SIZES * time_channels;
    if sizes >= input_channels {
        let problem = format!("found {time_channels}, so {sizes} channels of sizes, of {input_channels}");
        return Err(reader.refuse("addition_time_embed_dim", problem));
    }
    Ok(Some(TextTimeConfig { time_channels, input_channels, sizes: SIZES }))
}

fn layers_per_block(reader: &mut ConfigReader, levels: usize) -> Result<usize> {
    let layers = reader.sizes("layers_per_block", levels, 2)?;
    match layers.iter().find(|count| **count != layers[0] || **count > 64) {
        None => Ok(layers[0]),
        Some(_) => Err(reader.refuse(
            "layers_per_block",
            format!("found {layers:?}, supported is the same number, at most 64, for every level"),
        )),
    }
}

/// `attention_head_dim` is a count of heads in spite of its name, and `num_attention_heads` goes before it.
fn heads(reader: &mut ConfigReader, levels: usize) -> Result<Vec<usize>> {
    let misnamed = reader.sizes("attention_head_dim", levels, 8)?;
    let named = reader.optional_sizes("num_attention_heads", levels)?;
    Ok(named.unwrap_or(misnamed))
}

fn context_channels(reader: &mut ConfigReader, levels: usize) -> Result<usize> {
    let channels = reader.sizes("cross_attention_dim", levels, 1280)?;
    if channels.iter().all(|count| *count == channels[0]) {
        return Ok(channels[0]);
    }
    Err(reader.refuse(
        "cross_attention_dim",
        format!("found {channels:?}, supported is the same number for every level"),
    ))
}
