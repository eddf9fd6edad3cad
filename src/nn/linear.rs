//! Linear layers, alone or several side by side in one product.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::kernels::conv2d::{self, Conv2dConfig, Padding, conv2d};
use crate::kernels::matmul::{Epilogue, matmul, matmul_into, widest_of_gated};
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Loader, Weights};

/// `torch.nn.Linear`, or a 1x1 convolution: `[.., I]` to `[.., O]`.
#[derive(Clone, Debug)]
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// The layer called `name`, with a bias.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        Self::fused(weights, loader, name, &[name], inputs, &[outputs], true)
    }

    /// The layer called `name`, without a bias.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensor is missing or has another shape.
    pub fn load_without_bias(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> Result<Self> {
        Self::fused(weights, loader, name, &[name], inputs, &[outputs], false)
    }

    /// The layer called `name`, without a bias, whose weight the file holds as `stored`, `[inputs, outputs]`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensor is missing or has another shape.
    pub fn load_transposed(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        stored: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Self> {
        // Kernels read matrices in this order.
        let weight = weights.table(loader, stored, inputs, outputs)?; // [I, O]
        Ok(Self { name: name.to_owned(), weight, bias: None })
    }

    /// Several layers that read the same input, as one whose outputs lie side by side; labelled `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if their tensors are missing or have other shapes.
    pub fn fused(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        parts: &[&str],
        inputs: usize,
        outputs: &[usize],
        bias: bool,
    ) -> Result<Self> {
        let leaves =
            |leaf: &str| -> Vec<String> { parts.iter().map(|part| format!("{part}.{leaf}")).collect() };
        let names = leaves("weight");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let weight = weights.matrix(loader, &names, inputs, outputs)?;
        let bias = if bias {
            let names = leaves("bias");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Some(weights.vectors(loader, &names, outputs)?)
        } else {
            None
        };
        Ok(Self { name: name.to_owned(), weight, bias })
    }

    /// Records the layer.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        self.record_fused(recording, input, Activation::None, None)
    }

    /// Records the layer with an activation and a tensor that is added to the result.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input or the residual does not fit.
    pub fn record_fused(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        activation: Activation,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let epilogue = Epilogue { bias: self.bias.as_ref(), activation, residual, gated: false };
        matmul(recording, input, &self.weight, &epilogue)
    }

    /// Records the layer with a tensor that is added to the result, into some rows of a transient tensor: `[M, I]` to
    /// `[M, O]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if a tensor does not fit.
    pub fn record_into(
        &self,
        recording: &mut Recording,
        input: &Tensor,
        residual: &Tensor,
        output: &Tensor,
    ) -> Result<()> {
        let recording = &mut recording.scope(&self.name);
        let (bias, residual) = (self.bias.as_ref(), Some(residual));
        let epilogue = Epilogue { bias, residual, ..Epilogue::default() };
        matmul_into(recording, input, &self.weight, &epilogue, output)
    }

    /// Bytes of the widest row that [`record_gated`](Self::record_gated) makes.
    #[must_use]
    pub fn gated_row_bytes(&self, recording: &Recording, element: ElementType) -> u64 {
        widest_of_gated(recording, element, self.weight.shape().channels()) as u64 * element.bytes()
    }

    /// Records the layer with GEGLU: the second half of its outputs gates the first. `[.., I]` to `[.., O / 2]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record_gated(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let epilogue = Epilogue { bias: self.bias.as_ref(), gated: true, ..Epilogue::default() };
        matmul(recording, input, &self.weight, &epilogue)
    }

    /// Records the layer on `first [.., C1]` with `second [.., C2]` behind its channels, as a convolution of one pixel,
    /// which reads two inputs.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the inputs do not fit.
    pub fn record_concatenated(
        &self,
        recording: &mut Recording,
        first: &Tensor,
        second: &Tensor,
    ) -> Result<Tensor> {
        const PIXEL: Conv2dConfig = Conv2dConfig { kernel: [1, 1], stride: 1, padding: Padding::same(0) };
        let recording = &mut recording.scope(&self.name);
        let image =
            |tensor: &Tensor| tensor.reshape([1, tensor.shape().rows(), 1, tensor.shape().channels()]);
        let epilogue = conv2d::Epilogue { bias: self.bias.as_ref(), ..conv2d::Epilogue::default() };
        let output =
            conv2d(recording, &image(first)?, Some(&image(second)?), &self.weight, &PIXEL, &epilogue)?;
        let mut extents = first.shape().extents().to_vec();
        if let Some(last) = extents.last_mut() {
            *last = output.shape().channels();
        }
        output.reshape(&extents[..])
    }
}
