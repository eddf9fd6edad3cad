//! diffusers' `Attention` as it stands in autoencoders and unconditional U-Nets: a norm, self-attention, a residual.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::group_norm::GroupNormConfig;
use crate::nn::{GroupNorm, SelfAttention, attention};
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// Extents of one attention block.
#[derive(Clone, Copy, Debug)]
pub struct AttentionBlockConfig {
    /// C.
    pub channels: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Groups of the norm in front.
    pub groups: usize,
    /// Epsilon of the norm in front.
    pub epsilon: f32,
}

/// Attention of all pixels of an image to each other, behind a group norm and beside a residual.
#[derive(Clone, Debug)]
pub struct AttentionBlock {
    name: String,
    norm: GroupNorm,
    attention: SelfAttention,
}

impl AttentionBlock {
    /// The block called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        config: &AttentionBlockConfig,
    ) -> Result<Self> {
        let &AttentionBlockConfig { channels, heads, groups, epsilon } = config;
        let norm = GroupNormConfig { groups, epsilon, silu: false };
        Ok(Self {
            name: name.to_owned(),
            norm: GroupNorm::load(&weights.child(name), loader, "group_norm", channels, norm)?,
            attention: SelfAttention::load(weights, loader, name, attention::VAE, channels, heads, false)?,
        })
    }

    /// Records the block on `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = input.image_extents("attention block", "input")?;
        let residual = input.reshape([batch, height * width, channels])?; // [N, T, C]
        let normal = self.norm.record(&mut recording.scope(&self.name), &residual, None)?; // [N, T, C]
        let output = self.attention.record(recording, &normal, &residual)?; // [N, T, C]
        let output = output.reshape(input.shape().clone())?; // [N, H, W, C]
        recording.scope(&self.name).mark(&output);
        Ok(output)
    }
}
