//! The U-Net of Stable Diffusion 1, told from its tensors.

use super::UNetConfig;
use crate::error::Result;
use crate::models::from_tensors::{expect_divisible, expect_levels};
use crate::weights::Checkpoint;

/// What all models of this kind have and no tensor tells.
const GROUPS: usize = 32;
const HEADS: usize = 8;
const SAMPLE_SIZE: usize = 64;
const EPSILON: f32 = 1e-5;

impl UNetConfig {
    /// The shape of a Stable Diffusion 1 U-Net from its tensors, under the names of diffusers: channels, blocks,
    /// attention and the channels of the context. What tensors do not tell is what all of these models have: 32
    /// groups, 8 heads, samples of 64 by 64.
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
        let context = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight";
        let [_, context] = checkpoint.extents(context)?;
        let [_, in_channels, ..] = checkpoint.extents::<4>("conv_in.weight")?;
        let [out_channels, ..] = checkpoint.extents::<4>("conv_out.weight")?;
        Ok(Self {
            in_channels,
            out_channels,
            sample_size: Some([SAMPLE_SIZE; 2]),
            down_attention,
            up_attention,
            middle_attention: true,
            layers_per_block: checkpoint.count(|layer| format!("down_blocks.0.resnets.{layer}.conv1.weight")),
            heads: vec![HEADS; levels],
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
