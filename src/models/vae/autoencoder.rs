//! diffusers' `AutoencoderKL`, and the encoder and decoder of its `VQModel`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::conv2d::{Conv2dConfig, Padding};
use crate::kernels::group_norm::GroupNormConfig;
use crate::models::vae::VaeConfig;
use crate::nn::{
    AttentionBlock, AttentionBlockConfig, Convolution, Downsample, GroupNorm, Linear, ResnetBlock,
    ResnetConfig, Upsample,
};
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Checkpoint, Loader, Weights};

/// Epsilon of every norm in a VAE.
const EPSILON: f32 = 1e-6;

const THREE: Conv2dConfig = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };

/// Latents to pictures.
#[derive(Debug)]
pub struct VaeDecoder {
    config: VaeConfig,
    element: ElementType,
    post_quant_conv: Option<Linear>,
    conv_in: Convolution,
    middle: Middle,
    blocks: Vec<Block<Upsample>>,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
}

/// Pictures to the moments of latents.
#[derive(Debug)]
pub struct VaeEncoder {
    config: VaeConfig,
    element: ElementType,
    moments: usize,
    conv_in: Convolution,
    blocks: Vec<Block<Downsample>>,
    middle: Middle,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
    quant_conv: Option<Linear>,
}

/// ResNet blocks of one resolution, and the way to the next.
#[derive(Debug)]
struct Block<Resample> {
    name: String,
    resnets: Vec<ResnetBlock>,
    resample: Option<Resample>,
}

/// A ResNet block, single-head attention over the pixels, a ResNet block.
#[derive(Debug)]
struct Middle {
    first: ResnetBlock,
    attention: Option<AttentionBlock>,
    second: ResnetBlock,
}

fn resnet_config(config: &VaeConfig) -> ResnetConfig {
    ResnetConfig { groups: config.norm_num_groups, epsilon: EPSILON, time_channels: None }
}

fn norm_config(config: &VaeConfig, silu: bool) -> GroupNormConfig {
    GroupNormConfig { groups: config.norm_num_groups, epsilon: EPSILON, silu }
}

fn resnets(
    config: &VaeConfig,
    weights: &Weights<'_>,
    loader: &mut Loader,
    mut inputs: usize,
    channels: usize,
    count: usize,
) -> Result<Vec<ResnetBlock>> {
    let mut resnets = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("resnets.{number}");
        let config = resnet_config(config);
        resnets.push(ResnetBlock::load(weights, loader, &name, [inputs, channels], &config, 0)?);
        inputs = channels;
    }
    Ok(resnets)
}

impl Middle {
    fn load(config: &VaeConfig, weights: &Weights<'_>, loader: &mut Loader, channels: usize) -> Result<Self> {
        let block = |loader: &mut Loader, name| {
            ResnetBlock::load(weights, loader, name, [channels; 2], &resnet_config(config), 0)
        };
        let attention = if config.mid_block_add_attention {
            let groups = config.norm_num_groups;
            let shape = AttentionBlockConfig { channels, heads: 1, groups, epsilon: EPSILON };
            Some(AttentionBlock::load(weights, loader, "attentions.0", &shape)?)
        } else {
            None
        };
        Ok(Self { first: block(loader, "resnets.0")?, attention, second: block(loader, "resnets.1")? })
    }

    fn record(&self, recording: &mut Recording, hidden: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope("mid_block");
        let mut hidden = self.first.record(recording, hidden, None, None)?; // [N, h, w, C]
        if let Some(attention) = &self.attention {
            hidden = attention.record(recording, &hidden)?; // [N, h, w, C]
        }
        self.second.record(recording, &hidden, None, None) // [N, h, w, C]
    }
}

impl VaeDecoder {
    /// Builds the decoder of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing or has another shape than the config says.
    pub fn load(config: VaeConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        let root = checkpoint.root();
        let latents = config.latent_channels;
        let post_quant_conv = if config.use_post_quant_conv {
            Some(Linear::load(&root, loader, "post_quant_conv", config.embed_channels, latents)?)
        } else {
            None
        };
        let at = &root.child("decoder");
        let levels = config.block_out_channels.len();
        let deepest = config.block_out_channels[levels - 1];
        let conv_in = Convolution::load(at, loader, "conv_in", latents, deepest, THREE)?;
        let middle = Middle::load(&config, &at.child("mid_block"), loader, deepest)?;
        let mut blocks = Vec::with_capacity(levels);
        let mut inputs = deepest;
        for (number, &channels) in config.block_out_channels.iter().rev().enumerate() {
            let name = format!("up_blocks.{number}");
            let weights = &at.child(&name);
            let resnets = resnets(&config, weights, loader, inputs, channels, config.layers_per_block + 1)?;
            let resample = if number + 1 < levels {
                Some(Upsample::load(weights, loader, "upsamplers.0", channels)?)
            } else {
                None
            };
            blocks.push(Block { name, resnets, resample });
            inputs = channels;
        }
        let conv_norm_out = GroupNorm::load(at, loader, "conv_norm_out", inputs, norm_config(&config, true))?;
        let conv_out = Convolution::load(at, loader, "conv_out", inputs, config.out_channels, THREE)?;
        let element = loader.element();
        Ok(Self { config, element, post_quant_conv, conv_in, middle, blocks, conv_norm_out, conv_out })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
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
        let _ = latents.image_extents("vae", "latents")?;
        let hidden = match &self.post_quant_conv {
            Some(convolution) => convolution.record(recording, latents)?, // [N, h, w, C]
            None => latents.clone(),
        };
        let recording = &mut recording.scope("decoder");
        let hidden = self.conv_in.record(recording, &hidden)?; // [N, h, w, C]
        recording.scope("conv_in").mark(&hidden);
        let mut hidden = self.middle.record(recording, &hidden)?; // [N, h, w, C]
        for block in &self.blocks {
            let recording = &mut recording.scope(&block.name);
            for resnet in &block.resnets {
                hidden = resnet.record(recording, &hidden, None, None)?; // [N, H, W, C]
            }
            if let Some(upsample) = &block.resample {
                let [_, height, width, _] = hidden.image_extents("vae", "hidden")?;
                hidden = upsample.record(recording, &hidden, [2 * height, 2 * width])?; // [N, 2H, 2W, C]
            }
        }
        let normal = self.conv_norm_out.record(recording, &hidden, None)?; // [N, H, W, C]
        self.conv_out.record(recording, &normal) // [N, H, W, 3]
    }
}

impl VaeEncoder {
    /// Builds the encoder of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing or has another shape than the config says.
    pub fn load(config: VaeConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        let root = checkpoint.root();
        let at = &root.child("encoder");
        let levels = config.block_out_channels.len();
        let mut inputs = config.block_out_channels[0];
        let conv_in = Convolution::load(at, loader, "conv_in", config.in_channels, inputs, THREE)?;
        let mut blocks = Vec::with_capacity(levels);
        for (number, &channels) in config.block_out_channels.iter().enumerate() {
            let name = format!("down_blocks.{number}");
            let weights = &at.child(&name);
            let resnets = resnets(&config, weights, loader, inputs, channels, config.layers_per_block)?;
            let resample = if number + 1 < levels {
                Some(Downsample::load(weights, loader, "downsamplers.0", channels, 0)?)
            } else {
                None
            };
            blocks.push(Block { name, resnets, resample });
            inputs = channels;
        }
        let middle = Middle::load(&config, &at.child("mid_block"), loader, inputs)?;
        let conv_norm_out = GroupNorm::load(at, loader, "conv_norm_out", inputs, norm_config(&config, true))?;
        let parts = if config.double_z { 2 } else { 1 };
        let (moments, embedded) = (parts * config.latent_channels, parts * config.embed_channels);
        let conv_out = Convolution::load(at, loader, "conv_out", inputs, moments, THREE)?;
        let quant_conv = if config.use_quant_conv {
            Some(Linear::load(&root, loader, "quant_conv", moments, embedded)?)
        } else {
            None
        };
        let (element, moments) = (loader.element(), if config.use_quant_conv { embedded } else { moments });
        Ok(Self { config, element, moments, conv_in, blocks, middle, conv_norm_out, conv_out, quant_conv })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// How values are stored.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Values of a pixel of the moments: means and log-variances of the latents, or the latents.
    #[must_use]
    pub fn moments(&self) -> usize {
        self.moments
    }

    /// Records the encoder on pictures `[N, H, W, 3]` of values from -1 to 1: means and log-variances of the
    /// latents before they are multiplied by the scaling factor, `[N, h, w, 2C]`; the latents themselves,
    /// `[N, h, w, C]`, where the config says that there are no variances. diffusers clamps the log-variances to
    /// -30 and 20 when it draws from them.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the pictures do not fit.
    pub fn record(&self, recording: &mut Recording, pictures: &Tensor) -> Result<Tensor> {
        let _ = pictures.image_extents("vae", "pictures")?;
        let moments = self.record_encoder(&mut recording.scope("encoder"), pictures)?; // [N, h, w, 2C]
        match &self.quant_conv {
            Some(convolution) => convolution.record(recording, &moments), // [N, h, w, 2C]
            None => Ok(moments),
        }
    }

    fn record_encoder(&self, recording: &mut Recording, pictures: &Tensor) -> Result<Tensor> {
        let mut hidden = self.conv_in.record(recording, pictures)?; // [N, H, W, C]
        for block in &self.blocks {
            let recording = &mut recording.scope(&block.name);
            for resnet in &block.resnets {
                hidden = resnet.record(recording, &hidden, None, None)?; // [N, H, W, C]
            }
            if let Some(downsample) = &block.resample {
                hidden = downsample.record(recording, &hidden)?; // [N, H/2, W/2, C]
            }
        }
        let hidden = self.middle.record(recording, &hidden)?; // [N, h, w, C]
        let normal = self.conv_norm_out.record(recording, &hidden, None)?; // [N, h, w, C]
        self.conv_out.record(recording, &normal) // [N, h, w, 2C]
    }
}
