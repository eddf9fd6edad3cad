//! Convolutions.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::conv2d::{Conv2dConfig, Epilogue, TimeRow, conv2d};
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// `torch.nn.Conv2d` on `[N, H, W, C]`.
#[derive(Clone, Debug)]
pub struct Convolution {
    name: String,
    weight: Tensor,
    bias: Tensor,
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
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            weight: at.convolution(loader, "weight", outputs, inputs, config.kernel)?,
            bias: at.vector(loader, "bias", outputs)?,
            config,
        })
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
        let epilogue = Epilogue { bias: Some(&self.bias), time, residual };
        conv2d(recording, input, second, &self.weight, &self.config, &epilogue)
    }
}
