//! What a `unet/config.json` may say.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;

const DOWN_BLOCKS: [&str; 2] = ["DownBlock2D", "CrossAttnDownBlock2D"];
const UP_BLOCKS: [&str; 2] = ["UpBlock2D", "CrossAttnUpBlock2D"];

/// Keys that change nothing: training only, or what an averaging of weights leaves behind.
const HARMLESS: [&str; 9] = [
    "dropout",
    "addition_embed_type_num_heads",
    "decay",
    "inv_gamma",
    "min_decay",
    "optimization_step",
    "power",
    "update_after_step",
    "use_ema_warmup",
];

/// The shape of a `diffusers.UNet2DConditionModel`.
///
/// Levels count from the outermost, which has the most pixels; up blocks run through them backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the noisy latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Height and width of the latents that the model was trained with.
    pub sample_size: Option<[usize; 2]>,
    /// Channels of every level.
    pub block_out_channels: Vec<usize>,
    /// For every level, whether its down block has attention.
    pub down_attention: Vec<bool>,
    /// For every level (not for every up block in its order), whether its up block has attention.
    pub up_attention: Vec<bool>,
    /// Residual blocks of a down block; an up block has one more.
    pub layers_per_block: usize,
    /// Attention heads of every level; the middle block has those of the last.
    pub heads: Vec<usize>,
    /// Channels of the text encoder's output.
    pub cross_attention_dim: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// The epsilon of the residual blocks' group norms and of the last one.
    pub norm_eps: f32,
    /// Whether the time embedding starts with its cosines.
    pub flip_sin_to_cos: bool,
    /// Shifts the frequencies of the time embedding: they fall to `10000^(-k / (half - shift))`.
    pub freq_shift: f64,
    /// Zero rows and columns around the input of a downsampling convolution; without, one after it.
    pub downsample_padding: usize,
    /// Whether transformers start and end with linear layers instead of convolutions of one pixel.
    pub use_linear_projection: bool,
}

impl UNetConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut reader = ConfigReader::open(path.as_ref())?;
        reader.class("UNet2DConditionModel")?;
        let channels = reader.channels("block_out_channels", &[320, 640, 1280, 1280], 2..=6)?;
        let levels = channels.len();
        refuse_other_networks(&mut reader, &channels)?;

        let default = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"];
        let down = reader.blocks("down_block_types", &default, &DOWN_BLOCKS, levels)?;
        let default = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"];
        let up = reader.blocks("up_block_types", &default, &UP_BLOCKS, levels)?;
        reader.word("mid_block_type", "UNetMidBlock2DCrossAttn", &["UNetMidBlock2DCrossAttn"])?;

        let config = Self {
            in_channels: reader.size("in_channels", 4)?,
            out_channels: reader.size("out_channels", 4)?,
            sample_size: reader.extents("sample_size")?,
            down_attention: down.iter().map(|block| *block == 1).collect(),
            up_attention: up.iter().rev().map(|block| *block == 1).collect(),
            layers_per_block: layers_per_block(&mut reader, levels)?,
            heads: heads(&mut reader, levels)?,
            cross_attention_dim: context_channels(&mut reader, levels)?,
            norm_num_groups: reader.size("norm_num_groups", 32)?,
            norm_eps: reader.epsilon("norm_eps", 1e-5)?,
            flip_sin_to_cos: reader.flag("flip_sin_to_cos", true)?,
            freq_shift: reader.number("freq_shift", 0.0)?,
            downsample_padding: downsample_padding(&mut reader)?,
            use_linear_projection: reader.flag("use_linear_projection", false)?,
            block_out_channels: channels,
        };
        // Attention is summed in f32 either way, so this key asks for nothing.
        reader.flag("upcast_attention", false)?;
        config.check(&mut reader)?;
        reader.finish(&HARMLESS)?;
        Ok(config)
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

    /// Channels of the time embedding that residual blocks read.
    #[must_use]
    pub fn time_embedding_channels(&self) -> usize {
        4 * self.block_out_channels[0]
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

    fn check(&self, reader: &mut ConfigReader) -> Result<()> {
        reader.expect_groups("norm_num_groups", self.norm_num_groups, &self.block_out_channels)?;
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
        let last = self.levels() - 1;
        for level in 0..self.levels() {
            // The middle block has attention on the last level, whatever the blocks there have.
            if self.down_attention[level] || self.up_attention[level] || level == last {
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

/// Keys that make another network of it; SDXL, image prompts, LCM and class labels among them.
fn refuse_other_networks(reader: &mut ConfigReader, channels: &[usize]) -> Result<()> {
    for key in [
        "addition_embed_type",
        "addition_time_embed_dim",
        "class_embed_type",
        "num_class_embeds",
        "projection_class_embeddings_input_dim",
        "encoder_hid_dim",
        "encoder_hid_dim_type",
        "reverse_transformer_layers_per_block",
        "time_embedding_act_fn",
        "timestep_post_act",
        "time_cond_proj_dim",
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
    for (key, value) in [("only_cross_attention", json!(false)), ("transformer_layers_per_block", json!(1))] {
        let list = json!(vec![value.clone(); channels.len()]);
        reader.only(key, &[value, list])?;
    }
    reader.only("time_embedding_dim", &[json!(4 * channels[0])])
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
