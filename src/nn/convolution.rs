//! Convolutions.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::kernels::conv2d::{Conv2dConfig, Epilogue, TimeRow, conv2d};
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// `torch.nn.Conv2d` on `[N, H, W, C]`.
#[derive(Clone, Debug)]
pub struct Convolution {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
}

impl Convolution {
    /// The convolution called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        inputs: usize,
        outputs: usize,
        config: Conv2dConfig,
    ) -> Result<Self> {
        let plain = Self::load_without_bias(weights, loader, name, [inputs, outputs], config)?;
        let bias = weights.child(name).vector(loader, "bias", outputs)?;
        Ok(Self { bias: Some(bias), ..plain })
    }

    /// The convolution called `name`, of so many channels in and out, which has no bias.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_without_bias(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [inputs, outputs]: [usize; 2],
        config: Conv2dConfig,
    ) -> Result<Self> {
        let weight = weights.child(name).convolution(loader, "weight", outputs, inputs, config.kernel)?;
        Ok(Self { name: name.to_owned(), weight, bias: None, config })
    }

    /// Records the convolution.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        self.record_fused(recording, input, None, None, None)
    }

    /// Records the convolution of `input` with `second` behind its channels, adding a row of time projections
    /// and a residual.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record_fused(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        second: Option<&Tensor>,
        time: Option<TimeRow<'_>>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let epilogue = Epilogue { bias: self.bias.as_ref(), time, residual, ..Epilogue::default() };
        conv2d(recording, input, second, &self.weight, &self.config, &epilogue)
    }

    /// Records the convolution, adding a residual, and what an activation makes of the sum.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record_activated(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        residual: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let epilogue = Epilogue { bias: self.bias.as_ref(), time: None, residual, activation };
        conv2d(recording, input, None, &self.weight, &self.config, &epilogue)
    }
}
