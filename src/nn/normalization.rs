//! Norms with their scales and shifts.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::Affine;
use crate::kernels::group_norm::{GroupNormConfig, group_norm};
use crate::kernels::layer_norm::layer_norm;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

fn affine(weights: &Weights<'_>, loader: &mut Loader, name: &str, channels: usize) -> Result<Affine> {
    let at = weights.child(name);
    Ok(Affine { weight: at.vector(loader, "weight", channels)?, bias: at.vector(loader, "bias", channels)? })
}

/// `torch.nn.GroupNorm`, optionally followed by SiLU.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    name: String,
    affine: Affine,
    config: GroupNormConfig,
}

impl GroupNorm {
    /// The norm called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        channels: usize,
        config: GroupNormConfig,
    ) -> Result<Self> {
        Ok(Self { name: name.to_owned(), affine: affine(weights, loader, name, channels)?, config })
    }

    /// Records the norm of `input` with `second` behind its channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the inputs do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        second: Option<&Tensor>,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let output = group_norm(recording, input, second, &self.affine, &self.config)?;
        recording.mark(&output);
        Ok(output)
    }
}

/// `torch.nn.LayerNorm` over the channels.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    name: String,
    affine: Affine,
    epsilon: f32,
}

impl LayerNorm {
    /// The norm called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        channels: usize,
        epsilon: f32,
    ) -> Result<Self> {
        Ok(Self { name: name.to_owned(), affine: affine(weights, loader, name, channels)?, epsilon })
    }

    /// Records the norm.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        layer_norm(&mut recording.scope(&self.name), input, &self.affine, self.epsilon)
    }
}
