//! Tiny autoencoders, told from their tensors.

use super::TinyAutoencoderConfig;
use crate::error::Result;
use crate::models::from_tensors::expect_levels;
use crate::weights::Checkpoint;

impl TinyAutoencoderConfig {
    /// The shape of a decoder from its tensors, under the names of diffusers. Latents are not scaled.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing that must be there, or is of a shape that
    /// these decoders do not have.
    pub fn from_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        const FIRST: &str = "decoder.layers.0.weight";
        let [channels, latent_channels, ..] = checkpoint.extents::<4>(FIRST)?;
        let weight = |layer: usize| format!("decoder.layers.{layer}.weight");
        let has = |name: String| checkpoint.shape(&name).is_some();
        // Behind the first convolution and its ReLU, every level has blocks, then enlarges (which has no weights) unless
        // it is the last, then a convolution.
        let mut layer = 2;
        let mut num_decoder_blocks = Vec::new();
        loop {
            let blocks = checkpoint.count(|block| format!("decoder.layers.{}.conv.0.weight", layer + block));
            if blocks == 0 {
                // Says which is missing.
                checkpoint.extents::<4>(&format!("decoder.layers.{layer}.conv.0.weight"))?;
            }
            num_decoder_blocks.push(blocks);
            layer += blocks;
            if has(weight(layer)) {
                break;
            }
            checkpoint.extents::<4>(&weight(layer + 1))?;
            layer += 2;
        }
        expect_levels(checkpoint, FIRST, num_decoder_blocks.len(), 1)?;
        let [out_channels, ..] = checkpoint.extents::<4>(&weight(layer))?;
        Ok(Self { latent_channels, out_channels, channels, num_decoder_blocks, scaling_factor: 1.0 })
    }
}
