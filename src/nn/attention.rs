//! Self-attention and cross-attention with their projections.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::kernels::attention::{AttentionConfig, View, attention};
use crate::nn::Linear;
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Loader, Weights};

/// `1 / sqrt(head_size)`.
fn scale(head_size: usize) -> f32 {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "head sizes are small")]
    let scale = (1.0 / (head_size as f64).sqrt()) as f32;
    scale
}

fn heads(channels: usize, heads: usize, causal: bool) -> AttentionConfig {
    let head_size = channels / heads;
    AttentionConfig { heads, head_size, causal, scale: scale(head_size) }
}

/// Names of the four projections, which differ between diffusers and transformers.
#[derive(Clone, Copy, Debug)]
pub struct ProjectionNames {
    /// Queries, keys, values.
    pub inner: [&'static str; 3],
    /// Back to the stream.
    pub outer: &'static str,
    /// Whether queries, keys and values have biases.
    pub bias: bool,
}

/// diffusers' `Attention` in a U-Net.
pub(crate) const UNET: ProjectionNames =
    ProjectionNames { inner: ["to_q", "to_k", "to_v"], outer: "to_out.0", bias: false };
/// diffusers' `Attention` in an autoencoder or an unconditional U-Net.
pub(crate) const VAE: ProjectionNames = ProjectionNames { bias: true, ..UNET };
/// transformers' `CLIPAttention`.
pub(crate) const CLIP: ProjectionNames =
    ProjectionNames { inner: ["q_proj", "k_proj", "v_proj"], outer: "out_proj", bias: true };

/// Attention of tokens to themselves; queries, keys and values come from one product.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    name: String,
    to_queries_keys_values: Linear,
    to_output: Linear,
    channels: usize,
    config: AttentionConfig,
}

impl SelfAttention {
    /// The attention called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        names: ProjectionNames,
        channels: usize,
        head_count: usize,
        causal: bool,
    ) -> Result<Self> {
        let at = weights.child(name);
        let outputs = [channels; 3];
        Ok(Self {
            name: name.to_owned(),
            to_queries_keys_values: Linear::fused(
                &at,
                loader,
                "qkv",
                &names.inner,
                channels,
                &outputs,
                names.bias,
            )?,
            to_output: Linear::load(&at, loader, names.outer, channels, channels)?,
            channels,
            config: heads(channels, head_count, causal),
        })
    }

    /// Records `residual + attention(input)`; both `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let fused = self.to_queries_keys_values.record(recording, input)?; // [N, T, 3C]
        let [queries, keys, values] =
            [0, 1, 2].map(|part| View { tensor: &fused, first_channel: part * self.channels });
        let mixed = attention(recording, queries, keys, values, &self.config)?; // [N, T, C]
        self.to_output.record_fused(recording, &mixed, Activation::None, Some(residual)) // [N, T, C]
    }
}

/// Attention of tokens to the prompt, whose keys and values are computed once per run.
#[derive(Clone, Debug)]
pub struct CrossAttention {
    name: String,
    to_queries: Linear,
    to_keys_values: Linear,
    to_output: Linear,
    channels: usize,
    element: ElementType,
    config: AttentionConfig,
    index: usize,
}

impl CrossAttention {
    /// The attention called `name`, whose keys and values are number `index` among those of the model.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        channels: usize,
        context_channels: usize,
        head_count: usize,
        index: usize,
    ) -> Result<Self> {
        let at = weights.child(name);
        let [queries, keys, values] = UNET.inner;
        let outputs = [channels; 2];
        Ok(Self {
            name: name.to_owned(),
            to_queries: Linear::load_without_bias(&at, loader, queries, channels, channels)?,
            to_keys_values: Linear::fused(
                &at,
                loader,
                "kv",
                &[keys, values],
                context_channels,
                &outputs,
                false,
            )?,
            to_output: Linear::load(&at, loader, UNET.outer, channels, channels)?,
            channels,
            element: loader.element(),
            config: heads(channels, head_count, false),
            index,
        })
    }

    /// Memory for the keys and values of a prompt: `[N, T, 2C]`.
    #[must_use]
    pub fn keys_values(&self, label: &str, batch: usize, tokens: usize) -> Tensor {
        Tensor::external(format!("{label}/{}", self.name), [batch, tokens, 2 * self.channels], self.element)
    }

    /// Records keys and values of a prompt `[N, T, D]` into `destination`; `second` is read as if it lay behind the
    /// prompt's channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the prompt does not fit.
    pub fn record_keys_values(
        &self,
        recording: &mut Recording,
        prompt: &Tensor,
        second: Option<&Tensor>,
        destinations: &[Tensor],
    ) -> Result<()> {
        let recording = &mut recording.scope(&self.name);
        let keys_values = match second {
            Some(second) => self.to_keys_values.record_concatenated(recording, prompt, second)?, // [N, T, 2C]
            None => self.to_keys_values.record(recording, prompt)?,                              // [N, T, 2C]
        };
        recording.place(&keys_values, &destinations[self.index]);
        Ok(())
    }

    /// Records `residual + attention(input, prompt)`; tokens `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        keys_values: &[Tensor],
        residual: &Tensor,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let queries = self.to_queries.record(recording, input)?; // [N, T, C]
        let queries = View { tensor: &queries, first_channel: 0 };
        let [keys, values] =
            [0, 1].map(|part| View { tensor: &keys_values[self.index], first_channel: part * self.channels });
        let mixed = attention(recording, queries, keys, values, &self.config)?; // [N, T, C]
        self.to_output.record_fused(recording, &mixed, Activation::None, Some(residual)) // [N, T, C]
    }
}
