//! `ldm.modules.diffusionmodules.openaimodel.UNetModel`, the U-Net of the original latent diffusion code
//! (<https://github.com/CompVis/latent-diffusion>): what its section of a YAML file may say.

use serde_json::json;

use super::UNetConfig;
use crate::error::Result;
use crate::models::config_reader::ConfigReader;

/// Groups and epsilon of every norm of a residual block, which no file can change.
const GROUPS: usize = 32;
const EPSILON: f32 = 1e-5;

/// Keys that change nothing: training, storage.
const HARMLESS: [&str; 4] = ["dropout", "use_checkpoint", "use_fp16", "legacy"];

pub(super) fn read(mut reader: ConfigReader) -> Result<UNetConfig> {
    refuse_other_networks(&mut reader)?;
    let base = reader.required_size("model_channels")?;
    let channels = reader.multiples("channel_mult", base)?;
    let levels = channels.len();
    // Distances of the levels that have attention: 1, 2, 4, 8 for the levels 0 to 3.
    let attended = reader.list("attention_resolutions")?;
    let attention: Vec<bool> = (0..levels).map(|level| attended.contains(&(1 << level))).collect();
    let image_size = reader.required_size("image_size")?;
    let config = UNetConfig {
        in_channels: reader.required_size("in_channels")?,
        out_channels: reader.required_size("out_channels")?,
        sample_size: Some([image_size; 2]),
        down_attention: attention.clone(),
        up_attention: attention,
        middle_attention: true,
        layers_per_block: reader.size_up_to("num_res_blocks", 2, 64)?,
        heads: heads(&mut reader, &channels)?,
        transformer_layers: vec![1; levels],
        text_time: None,
        guidance_channels: None,
        cross_attention_dim: Some(reader.required_size("context_dim")?),
        norm_num_groups: GROUPS,
        middle_norm_num_groups: GROUPS,
        norm_eps: EPSILON,
        time_embedding_channels: 4 * channels[0],
        flip_sin_to_cos: true,
        freq_shift: 0.0,
        downsample_padding: 1,
        block_out_channels: channels,
    };
    reader.expect_groups("model_channels", GROUPS, &config.block_out_channels)?;
    for level in 0..levels {
        if config.down_attention[level] || level + 1 == levels {
            reader.expect_heads("num_heads", config.heads[level], config.block_out_channels[level])?;
        }
    }
    reader.finish(&HARMLESS)?;
    Ok(config)
}

/// Heads of every level: so many, or heads of such a size.
fn heads(reader: &mut ConfigReader, channels: &[usize]) -> Result<Vec<usize>> {
    let absent = |reader: &mut ConfigReader, key: &str| reader.number(key, -1.0).map(|number| number == -1.0);
    if absent(reader, "num_head_channels")? {
        let heads = reader.required_size("num_heads")?;
        return Ok(vec![heads; channels.len()]);
    }
    reader.number("num_heads", -1.0)?;
    let size = reader.size("num_head_channels", 1)?;
    channels
        .iter()
        .map(|channels| {
            if channels.is_multiple_of(size) {
                return Ok(channels / size);
            }
            let problem = format!("found {size}, which does not divide {channels} channels");
            Err(reader.refuse("num_head_channels", problem))
        })
        .collect()
}

/// Keys that make another network of it.
fn refuse_other_networks(reader: &mut ConfigReader) -> Result<()> {
    for key in
        ["num_classes", "n_embed", "disable_self_attentions", "num_attention_blocks", "adm_in_channels"]
    {
        reader.only(key, &[])?;
    }
    for (key, value) in [("use_spatial_transformer", true), ("conv_resample", true)] {
        reader.only(key, &[json!(value)])?;
    }
    if !reader.has("use_spatial_transformer") {
        let problem = "is missing, supported is true: attention to the class or the prompt";
        return Err(reader.refuse("use_spatial_transformer", problem));
    }
    for key in ["resblock_updown", "use_scale_shift_norm", "use_new_attention_order"] {
        reader.only(key, &[json!(false)])?;
    }
    reader.only("dims", &[json!(2)])?;
    reader.only("transformer_depth", &[json!(1)])?;
    reader.only("num_heads_upsample", &[json!(-1)])
}
