//! Halving and enlarging of images.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::conv2d::{Conv2dConfig, Padding};
use crate::kernels::upsample_nearest::upsample_nearest;
use crate::nn::Convolution;
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

/// diffusers' `Downsample2D`: a convolution of stride 2.
#[derive(Clone, Debug)]
pub struct Downsample {
    name: String,
    convolution: Convolution,
}

impl Downsample {
    /// The layer called `name`. `padding` is 1, or 0 for the VAE encoder's, which pads right and bottom only.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        channels: usize,
        padding: usize,
    ) -> Result<Self> {
        let padding = match padding {
            0 => Padding { top: 0, left: 0, bottom: 1, right: 1 },
            around => Padding::same(around),
        };
        let config = Conv2dConfig { kernel: [3, 3], stride: 2, padding };
        let convolution =
            Convolution::load(&weights.child(name), loader, "conv", channels, channels, config)?;
        Ok(Self { name: name.to_owned(), convolution })
    }

    /// Records the layer: `[N, H, W, C]` to about half the height and width.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let output = self.convolution.record(recording, input)?; // [N, H/2, W/2, C]
        recording.mark(&output);
        Ok(output)
    }
}

/// diffusers' `Upsample2D`: nearest neighbour, then a convolution.
#[derive(Clone, Debug)]
pub struct Upsample {
    name: String,
    convolution: Convolution,
}

impl Upsample {
    /// The layer called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(weights: &Weights<'_>, loader: &mut Loader, name: &str, channels: usize) -> Result<Self> {
        let config = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };
        let convolution =
            Convolution::load(&weights.child(name), loader, "conv", channels, channels, config)?;
        Ok(Self { name: name.to_owned(), convolution })
    }

    /// Records the layer: `[N, h, w, C]` to `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input does not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, size: [usize; 2]) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let large = upsample_nearest(recording, input, size)?; // [N, H, W, C]
        let output = self.convolution.record(recording, &large)?; // [N, H, W, C]
        recording.mark(&output);
        Ok(output)
    }
}
