//! The decoder of diffusers' `AutoencoderTiny`: convolutions and ReLU, without norms or attention.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::{Activation, activation};
use crate::kernels::conv2d::{Conv2dConfig, Padding};
use crate::kernels::upsample_nearest::upsample_nearest;
use crate::models::tiny_autoencoder::TinyAutoencoderConfig;
use crate::nn::Convolution;
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Checkpoint, Loader, Weights};

const THREE: Conv2dConfig = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };

/// Latents to pictures. `diffusers.AutoencoderTiny.decode`.
#[derive(Debug)]
pub struct TinyDecoder {
    config: TinyAutoencoderConfig,
    element: ElementType,
    conv_in: Convolution,
    levels: Vec<Level>,
    conv_out: Convolution,
}

/// Residual blocks of one resolution, and the convolution behind the enlargement to the next.
#[derive(Debug)]
struct Level {
    blocks: Vec<Block>,
    enlarged: Option<Convolution>,
}

/// `AutoencoderTinyBlock`: three convolutions whose sum with the input is activated.
#[derive(Debug)]
struct Block {
    name: String,
    convolutions: [Convolution; 3],
}

impl Block {
    fn load(weights: &Weights<'_>, loader: &mut Loader, layer: usize, channels: usize) -> Result<Self> {
        let name = layer.to_string();
        let at = &weights.child(&name);
        let mut convolution = |name: &str| Convolution::load(at, loader, name, channels, channels, THREE);
        let convolutions = [convolution("conv.0")?, convolution("conv.2")?, convolution("conv.4")?];
        Ok(Self { name, convolutions })
    }

    fn record(&self, recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let [first, second, third] = &self.convolutions;
        let hidden = first.record_activated(recording, input, None, Activation::Relu)?; // [N, h, w, C]
        let hidden = second.record_activated(recording, &hidden, None, Activation::Relu)?; // [N, h, w, C]
        let output = third.record_activated(recording, &hidden, Some(input), Activation::Relu)?; // [N, h, w, C]
        recording.mark(&output);
        Ok(output)
    }
}

impl TinyDecoder {
    /// Builds the decoder of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing, has another shape than the config says, or is
    /// one that these decoders do not have.
    pub fn load(config: TinyAutoencoderConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        const LAYERS: &str = "decoder.layers";
        let at = &checkpoint.root().child(LAYERS);
        let channels = config.channels;
        let conv_in = Convolution::load(at, loader, "0", config.latent_channels, channels, THREE)?;
        let mut layer = 2;
        let mut levels = Vec::with_capacity(config.levels());
        for (number, &count) in config.num_decoder_blocks.iter().enumerate() {
            let blocks = (layer..layer + count).map(|layer| Block::load(at, loader, layer, channels));
            let blocks = blocks.collect::<Result<_>>()?;
            layer += count;
            let enlarged = if number + 1 < config.levels() {
                let name = (layer + 1).to_string();
                layer += 2;
                Some(Convolution::load_without_bias(at, loader, &name, [channels; 2], THREE)?)
            } else {
                None
            };
            levels.push(Level { blocks, enlarged });
        }
        let conv_out =
            Convolution::load(at, loader, &layer.to_string(), channels, config.out_channels, THREE)?;
        if let Some(other) = loader.unused(checkpoint).iter().find(|name| name.starts_with(LAYERS)) {
            return Err(checkpoint.problem(other, "is no part of the decoder of a tiny autoencoder"));
        }
        let element = loader.element();
        Ok(Self { config, element, conv_in, levels, conv_out })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &TinyAutoencoderConfig {
        &self.config
    }

    /// How values are stored.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Records the decoder on latents `[N, h, w, C]`, already divided by the scaling factor: a picture
    /// `[N, H, W, 3]` whose values are about -1 to 1.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the latents do not fit.
    pub fn record(&self, recording: &mut Recording, latents: &Tensor) -> Result<Tensor> {
        let _ = latents.image_extents("tiny_autoencoder", "latents")?;
        let recording = &mut recording.scope("decoder");
        let recording = &mut recording.scope("layers");
        let limited = activation(recording, latents, Activation::SoftLimit)?; // [N, h, w, c]
        let mut hidden = self.conv_in.record_activated(recording, &limited, None, Activation::Relu)?; // [N, h, w, C]
        for level in &self.levels {
            for block in &level.blocks {
                hidden = block.record(recording, &hidden)?; // [N, h, w, C]
            }
            if let Some(convolution) = &level.enlarged {
                let [_, height, width, _] = hidden.image_extents("tiny_autoencoder", "hidden")?;
                let large = upsample_nearest(recording, &hidden, [2 * height, 2 * width])?; // [N, 2h, 2w, C]
                hidden = convolution.record(recording, &large)?; // [N, 2h, 2w, C]
            }
        }
        self.conv_out.record_activated(recording, &hidden, None, Activation::FromUnit) // [N, H, W, 3]
    }
}
