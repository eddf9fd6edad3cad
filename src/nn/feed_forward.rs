//! The wide layers behind attention.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// diffusers' `FeedForward` with GEGLU: `C` to `8C`, gated to `4C`, back to `C`.
#[derive(Clone, Debug)]
pub struct GegluFeedForward {
    name: String,
    widen: Linear,
    narrow: Linear,
}

impl GegluFeedForward {
    /// The layer called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(weights: &Weights<'_>, loader: &mut Loader, name: &str, channels: usize) -> Result<Self> {
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            widen: Linear::load(&at, loader, "net.0.proj", channels, 8 * channels)?,
            narrow: Linear::load(&at, loader, "net.2", 4 * channels, channels)?,
        })
    }

    /// Records `residual + feed_forward(input)`; both `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let gated = self.widen.record_gated(recording, input)?; // [N, T, 4C]
        self.narrow.record_fused(recording, &gated, Activation::None, Some(residual)) // [N, T, C]
    }
}

/// transformers' `CLIPMLP`.
#[derive(Clone, Debug)]
pub struct Mlp {
    name: String,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl Mlp {
    /// The layer called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [channels, inner]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            widen: Linear::load(&at, loader, "fc1", channels, inner)?,
            narrow: Linear::load(&at, loader, "fc2", inner, channels)?,
            activation,
        })
    }

    /// Records `residual + mlp(input)`; both `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let wide = self.widen.record_fused(recording, input, self.activation, None)?; // [N, T, inner]
        self.narrow.record_fused(recording, &wide, Activation::None, Some(residual)) // [N, T, C]
    }
}
