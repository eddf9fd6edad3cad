//! The U-Nets of Stable Diffusion, told from their tensors.

use super::{TextTimeConfig, UNetConfig};
use crate::error::Result;
use crate::models::from_tensors::{expect_divisible, expect_levels};
use crate::models::unet::SIZES;
use crate::weights::Checkpoint;

/// What all models of this kind have and no tensor tells.
const GROUPS: usize = 32;
const HEADS: usize = 8;
/// Channels of a head where projections are linear layers: Stable Diffusion 2 and XL.
const HEAD: usize = 64;
/// Channels of the sinusoids of one number of an SDXL model.
const TIME_CHANNELS: usize = 256;
const SAMPLE_SIZE: usize = 64;
const EPSILON: f32 = 1e-5;

impl UNetConfig {
    /// The shape of a Stable Diffusion U-Net from its tensors, under the names of diffusers: channels, blocks,
    /// attention, transformer blocks and the channels of the context. What tensors do not tell is what all of these
    /// models have: 32 groups; in Stable Diffusion 1, 8 heads; in 2 and XL, which project with linear layers, heads
    /// of 64 channels; in XL, 256 channels for every size. Samples are 64 by 64, in XL 128 by 128.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing that must be there, or is of a shape that
    /// these models do not have.
    pub fn from_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        let first = |level: usize| format!("down_blocks.{level}.resnets.0.conv1.weight");
        let levels = checkpoint.count(first);
        expect_levels(checkpoint, &first(0), levels, 2)?;
        let mut channels = Vec::with_capacity(levels);
        for level in 0..levels {
            let [outputs, ..] = checkpoint.extents::<4>(&first(level))?;
            expect_divisible(checkpoint, &first(level), outputs, GROUPS, "the 32 groups of a norm")?;
            channels.push(outputs);
        }
        let attends =
            |block: String| checkpoint.shape(&format!("{block}.attentions.0.norm.weight")).is_some();
        let down_attention: Vec<bool> =
            (0..levels).map(|level| attends(format!("down_blocks.{level}"))).collect();
        let up_attention: Vec<bool> =
            (0..levels).map(|level| attends(format!("up_blocks.{}", levels - 1 - level))).collect();
        let depth = |block: &str| {
            checkpoint.count(|number| format!("{block}.transformer_blocks.{number}.norm1.weight"))
        };
        let mut transformer_layers = Vec::with_capacity(levels);
        for level in 0..levels {
            let down = depth(&format!("down_blocks.{level}.attentions.0"));
            let up = depth(&format!("up_blocks.{}.attentions.0", levels - 1 - level));
            let middle = if level + 1 == levels { depth("mid_block.attentions.0") } else { 0 };
            transformer_layers.push(down.max(up).max(middle).max(1));
        }
        let linear =
            checkpoint.shape("mid_block.attentions.0.proj_in.weight").is_some_and(|shape| shape.len() == 2);
        let mut heads = vec![HEADS; levels];
        if linear {
            for (level, heads) in heads.iter_mut().enumerate() {
                if !(down_attention[level] || up_attention[level] || level + 1 == levels) {
                    continue;
                }
                expect_divisible(checkpoint, &first(level), channels[level], HEAD, "heads of 64 channels")?;
                *heads = channels[level] / HEAD;
            }
        }
        let sizes = "add_embedding.linear_1.weight";
        let text_time = if checkpoint.shape(sizes).is_some() {
            let [_, input_channels] = checkpoint.extents(sizes)?;
            Some(TextTimeConfig { time_channels: TIME_CHANNELS, input_channels, sizes: SIZES })
        } else {
            None
        };
        let sample_size = if text_time.is_some() { 2 * SAMPLE_SIZE } else { SAMPLE_SIZE };
        let guidance = "time_embedding.cond_proj.weight";
        let guidance_channels = match checkpoint.shape(guidance) {
            Some(_) => Some(checkpoint.extents::<2>(guidance)?[1]),
            None => None,
        };
        let context = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
        let [_, context] = checkpoint.extents(context)?;
        let [_, in_channels, ..] = checkpoint.extents::<4>("conv_in.weight")?;
        let [out_channels, ..] = checkpoint.extents::<4>("conv_out.weight")?;
        Ok(Self {
            in_channels,
            out_channels,
            sample_size: Some([sample_size; 2]),
            down_attention,
            up_attention,
            middle_attention: true,
            layers_per_block: checkpoint.count(|layer| format!("down_blocks.0.resnets.{layer}.conv1.weight")),
            heads,
            transformer_layers,
            text_time,
            guidance_channels,
            cross_attention_dim: Some(context),
            norm_num_groups: GROUPS,
            middle_norm_num_groups: GROUPS,
            norm_eps: EPSILON,
            time_embedding_channels: 4 * channels[0],
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            downsample_padding: 1,
            block_out_channels: channels,
        })
    }
}
