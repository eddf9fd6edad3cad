//! The VAEs of Stable Diffusion, told from their tensors.

use super::VaeConfig;
use crate::error::Result;
use crate::models::from_tensors::{expect_divisible, expect_levels};
use crate::weights::Checkpoint;

/// What all models of this kind have and no tensor tells.
const GROUPS: usize = 32;
const SCALING_FACTOR: f32 = 0.18215;
const XL_SCALING_FACTOR: f32 = 0.13025;
/// The side of its training pictures.
const XL_SIDE: usize = 1024;

impl VaeConfig {
    /// The shape of a VAE of Stable Diffusion 1 or 2 from its decoder's tensors, under the names of diffusers. What tensors
    /// do not tell is what all of these models have: 32 groups, and latents that are scaled by 0.18215.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing that must be there, or is of a shape that
    /// these models do not have.
    pub fn from_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        let first = |block: usize| format!("decoder.up_blocks.{block}.resnets.0.conv1.weight");
        let levels = checkpoint.count(first);
        expect_levels(checkpoint, &first(0), levels, 1)?;
        let mut channels = Vec::with_capacity(levels);
        for block in (0..levels).rev() {
            let [outputs, ..] = checkpoint.extents::<4>(&first(block))?;
            expect_divisible(checkpoint, &first(block), outputs, GROUPS, "the 32 groups of a norm")?;
            channels.push(outputs);
        }
        let [_, latents, ..] = checkpoint.extents::<4>("decoder.conv_in.weight")?;
        let [out_channels, ..] = checkpoint.extents::<4>("decoder.conv_out.weight")?;
        let has = |name: &str| checkpoint.shape(name).is_some();
        let resnets = checkpoint.count(|number| format!("decoder.up_blocks.0.resnets.{number}.conv1.weight"));
        Ok(Self {
            in_channels: out_channels,
            out_channels,
            latent_channels: latents,
            embed_channels: latents,
            double_z: true,
            sample_size: None,
            layers_per_block: resnets - 1,
            norm_num_groups: GROUPS,
            scaling_factor: SCALING_FACTOR,
            force_upcast: false,
            use_quant_conv: has("quant_conv.weight"),
            use_post_quant_conv: has("post_quant_conv.weight"),
            mid_block_add_attention: has("decoder.mid_block.attentions.0.group_norm.weight"),
            block_out_channels: channels,
        })
    }

    /// As [`from_tensors`](Self::from_tensors), of SDXL: latents are scaled by 0.13025, and the decoder runs in 32
    /// bits, because that of the released models overflows 16; training pictures have 1024 pixels a side.
    ///
    /// # Errors
    /// As [`from_tensors`](Self::from_tensors).
    pub fn xl_from_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        let sample_size = Some([XL_SIDE; 2]);
        let shape = Self::from_tensors(checkpoint)?;
        Ok(Self { scaling_factor: XL_SCALING_FACTOR, force_upcast: true, sample_size, ..shape })
    }
}
