//! diffusers' `Transformer2DModel` and `BasicTransformerBlock`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::kernels::group_norm::GroupNormConfig;
use crate::nn::{CrossAttention, GegluFeedForward, GroupNorm, LayerNorm, Linear, SelfAttention, attention};
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// Epsilon of the norm in front of a transformer, whatever the rest of the model has.
const GROUP_NORM_EPSILON: f32 = 1e-6;
/// torch's default, which diffusers keeps here.
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Extents of one transformer.
#[derive(Clone, Copy, Debug)]
pub struct TransformerConfig {
    /// C.
    pub channels: usize,
    /// Heads of both attentions.
    pub heads: usize,
    /// Channels of the prompt's tokens.
    pub context_channels: usize,
    /// Groups of the norm in front.
    pub groups: usize,
    /// Blocks, one behind the other.
    pub depth: usize,
}

/// Self-attention, cross-attention and a gated feed-forward layer, each beside a residual.
#[derive(Clone, Debug)]
pub struct BasicTransformerBlock {
    name: String,
    norm1: LayerNorm,
    self_attention: SelfAttention,
    norm2: LayerNorm,
    cross_attention: CrossAttention,
    norm3: LayerNorm,
    feed_forward: GegluFeedForward,
}

impl BasicTransformerBlock {
    fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        config: &TransformerConfig,
        index: usize,
    ) -> Result<Self> {
        let at = &weights.child(name);
        let TransformerConfig { channels, heads, context_channels, .. } = *config;
        let norm =
            |loader: &mut Loader, name| LayerNorm::load(at, loader, name, channels, LAYER_NORM_EPSILON);
        Ok(Self {
            name: name.to_owned(),
            norm1: norm(loader, "norm1")?,
            self_attention: SelfAttention::load(
                at,
                loader,
                "attn1",
                attention::UNET,
                channels,
                heads,
                false,
            )?,
            norm2: norm(loader, "norm2")?,
            cross_attention: CrossAttention::load(
                at,
                loader,
                "attn2",
                channels,
                context_channels,
                heads,
                index,
            )?,
            norm3: norm(loader, "norm3")?,
            feed_forward: GegluFeedForward::load(at, loader, "ff", channels)?,
        })
    }

    fn record(&self, recording: &mut Recording, tokens: &Tensor, keys_values: &[Tensor]) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let normal = self.norm1.record(recording, tokens)?; // [N, T, C]
        let tokens = self.self_attention.record(recording, &normal, tokens)?; // [N, T, C]
        let normal = self.norm2.record(recording, &tokens)?; // [N, T, C]
        let tokens = self.cross_attention.record(recording, &normal, keys_values, &tokens)?; // [N, T, C]
        let normal = self.norm3.record(recording, &tokens)?; // [N, T, C]
        self.feed_forward.record(recording, &normal, &tokens) // [N, T, C]
    }
}

/// A transformer over the pixels of an image.
#[derive(Clone, Debug)]
pub struct Transformer2D {
    name: String,
    norm: GroupNorm,
    project_in: Linear,
    blocks: Vec<BasicTransformerBlock>,
    project_out: Linear,
}

impl Transformer2D {
    /// The transformer called `name`, whose prompt keys and values begin with number `index` among those of the model:
    /// one for each of its blocks.
    ///
    /// The projections may be linear layers or 1x1 convolutions: both are the same product here.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        config: &TransformerConfig,
        index: usize,
    ) -> Result<Self> {
        let at = &weights.child(name);
        let channels = config.channels;
        let norm = GroupNormConfig { groups: config.groups, epsilon: GROUP_NORM_EPSILON, silu: false };
        let norm = GroupNorm::load(at, loader, "norm", channels, norm)?;
        let project_in = Linear::load(at, loader, "proj_in", channels, channels)?;
        let mut blocks = Vec::with_capacity(config.depth);
        for number in 0..config.depth {
            let name = format!("transformer_blocks.{number}");
            blocks.push(BasicTransformerBlock::load(at, loader, &name, config, index + number)?);
        }
        let project_out = Linear::load(at, loader, "proj_out", channels, channels)?;
        Ok(Self { name: name.to_owned(), norm, project_in, blocks, project_out })
    }

    /// Memory for the keys and values of a prompt, for every block.
    pub fn keys_values(&self, label: &str, batch: usize, tokens: usize) -> impl Iterator<Item = Tensor> {
        self.blocks.iter().map(move |block| {
            let label = format!("{label}/{}/{}", self.name, block.name);
            block.cross_attention.keys_values(&label, batch, tokens)
        })
    }

    /// Records the keys and values of a prompt `[N, T, D]` into their places; `second` is read as if it lay behind the
    /// prompt's channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the prompt does not fit.
    pub fn record_keys_values(
        &self,
        recording: &mut Recording,
        prompt: &Tensor,
        second: Option<&Tensor>,
        places: &[Tensor],
    ) -> Result<()> {
        let recording = &mut recording.scope(&self.name);
        for block in &self.blocks {
            let recording = &mut recording.scope(&block.name);
            block.cross_attention.record_keys_values(recording, prompt, second, places)?;
        }
        Ok(())
    }

    /// Records the transformer on `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        keys_values: &[Tensor],
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let [batch, height, width, channels] = input.image_extents("transformer", "input")?;
        let residual = input.reshape([batch, height * width, channels])?; // [N, T, C]
        let normal = self.norm.record(recording, &residual, None)?; // [N, T, C]
        let mut tokens = self.project_in.record(recording, &normal)?; // [N, T, C]
        for block in &self.blocks {
            tokens = block.record(recording, &tokens, keys_values)?; // [N, T, C]
        }
        let output = self.project_out.record_fused(recording, &tokens, Activation::None, Some(&residual))?; // [N, T, C]
        let output = output.reshape([batch, height, width, channels])?; // [N, H, W, C]
        recording.mark(&output);
        Ok(output)
    }
}
