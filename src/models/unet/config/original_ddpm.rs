//! The U-Net of the original DDIM code (<https://github.com/ermongroup/ddim>), which is that of DDPM: what the
//! sections `data` and `model` of its YAML file may say.

use serde_json::json;

use super::UNetConfig;
use crate::error::Result;
use crate::models::config_reader::ConfigReader;

/// Groups and epsilon of every norm, which no file can change.
const GROUPS: usize = 32;
const EPSILON: f32 = 1e-6;

/// Keys that change nothing here: training, and what the samples are called.
const HARMLESS_DATA: [&str; 8] = [
    "dataset",
    "category",
    "random_flip",
    "gaussian_dequantization",
    "uniform_dequantization",
    "num_workers",
    "out_of_dist",
    "root",
];
const HARMLESS_MODEL: [&str; 5] = ["dropout", "ema_rate", "ema", "var_type", "type"];

pub(super) fn read(file: &mut ConfigReader) -> Result<UNetConfig> {
    let mut data = file.child("data")?;
    let size = data.required_size("image_size")?;
    data.only("logit_transform", &[json!(false)])?;
    data.only("rescaled", &[json!(true)])?;
    let mut model = file.child("model")?;
    model.only("resamp_with_conv", &[json!(true)])?;
    let base = model.required_size("ch")?;
    let channels = model.multiples("ch_mult", base)?;
    let levels = channels.len();
    // Heights of the feature maps that have attention.
    let attended = model.list("attn_resolutions")?;
    let attention: Vec<bool> = (0..levels).map(|level| attended.contains(&(size >> level))).collect();
    let config = UNetConfig {
        in_channels: model.required_size("in_channels")?,
        out_channels: model.required_size("out_ch")?,
        sample_size: Some([size; 2]),
        down_attention: attention.clone(),
        up_attention: attention,
        middle_attention: true,
        layers_per_block: model.size_up_to("num_res_blocks", 2, 64)?,
        heads: vec![1; levels],
        transformer_layers: vec![1; levels],
        text_time: None,
        guidance_channels: None,
        cross_attention_dim: None,
        norm_num_groups: GROUPS,
        middle_norm_num_groups: GROUPS,
        norm_eps: EPSILON,
        time_embedding_channels: 4 * base,
        flip_sin_to_cos: false,
        freq_shift: 1.0,
        downsample_padding: 0,
        block_out_channels: channels,
    };
    let colors = data.size("channels", config.in_channels)?;
    if colors != config.in_channels {
        let problem = format!("found {}, but data.channels is {colors}", config.in_channels);
        return Err(model.refuse("in_channels", problem));
    }
    model.expect_groups("ch", GROUPS, &config.block_out_channels)?;
    for level in 0..levels {
        if config.down_attention[level] || level + 1 == levels {
            model.expect_heads("ch", 1, config.block_out_channels[level])?;
        }
    }
    data.finish(&HARMLESS_DATA)?;
    model.finish(&HARMLESS_MODEL)?;
    Ok(config)
}
