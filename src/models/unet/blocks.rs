//! The units that the U-Net's flow is made of: each leaves, or consumes, one skip tensor.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::models::unet::UNetConfig;
use crate::nn::{
    AttentionBlock, AttentionBlockConfig, Downsample, ResnetBlock, ResnetConfig, Transformer2D,
    TransformerConfig, Upsample,
};
use crate::tensor::Tensor;
use crate::weights::{Loader, Weights};

use super::Conditioning;

/// Counts the blocks whose tables lie in the run's conditioning.
#[derive(Debug, Default)]
pub(super) struct Counters {
    resnets: usize,
    transformers: usize,
}

impl Counters {
    fn resnet(&mut self) -> usize {
        self.resnets += 1;
        self.resnets - 1
    }

    fn transformer(&mut self, blocks: usize) -> usize {
        self.transformers += blocks;
        self.transformers - blocks
    }

    pub(super) fn resnet_count(&self) -> usize {
        self.resnets
    }
}

/// What a layer attends to.
#[derive(Clone, Debug)]
pub(super) enum Attention {
    /// Its own pixels and the context: a `UNet2DConditionModel`.
    Transformer(Box<Transformer2D>),
    /// Its own pixels: a `UNet2DModel`.
    Plain(Box<AttentionBlock>),
}

/// A ResNet block, and attention where the block has any.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub(super) resnet: ResnetBlock,
    pub(super) attention: Option<Attention>,
}

/// Where a layer is made: the checkpoint's place, the loader, and the counters.
pub(super) struct Site<'a, 'w> {
    pub(super) config: &'a UNetConfig,
    pub(super) weights: Weights<'w>,
    pub(super) loader: &'a mut Loader,
    pub(super) counters: &'a mut Counters,
}

impl Site<'_, '_> {
    pub(super) fn resnet(&mut self, number: usize, channels: [usize; 2]) -> Result<ResnetBlock> {
        let config = ResnetConfig {
            groups: self.config.norm_num_groups,
            epsilon: self.config.norm_eps,
            time_channels: Some(self.config.time_embedding_channels),
        };
        let name = format!("resnets.{number}");
        ResnetBlock::load(&self.weights, self.loader, &name, channels, &config, self.counters.resnet())
    }

    /// The attention behind ResNet block `number` of a block with `channels` channels; `groups` are those of the
    /// norm in front of plain attention.
    pub(super) fn attention(
        &mut self,
        number: usize,
        channels: usize,
        level: usize,
        groups: usize,
    ) -> Result<Attention> {
        let heads = self.config.heads[level];
        let name = format!("attentions.{number}");
        let Some(context_channels) = self.config.cross_attention_dim else {
            let shape = AttentionBlockConfig { channels, heads, groups, epsilon: self.config.norm_eps };
            let attention = AttentionBlock::load(&self.weights, self.loader, &name, &shape)?;
            return Ok(Attention::Plain(Box::new(attention)));
        };
        let depth = self.config.transformer_layers[level];
        let groups = self.config.norm_num_groups;
        let config = TransformerConfig { channels, heads, context_channels, groups, depth };
        let index = self.counters.transformer(depth);
        let transformer = Transformer2D::load(&self.weights, self.loader, &name, &config, index)?;
        Ok(Attention::Transformer(Box::new(transformer)))
    }

    /// Layer `number` of a block; with attention, that of the given level.
    pub(super) fn layer(
        &mut self,
        number: usize,
        channels: [usize; 2],
        attention: Option<usize>,
    ) -> Result<Layer> {
        let resnet = self.resnet(number, channels)?;
        let attention = match attention {
            Some(level) => Some(self.attention(number, channels[1], level, self.config.norm_num_groups)?),
            None => None,
        };
        Ok(Layer { resnet, attention })
    }
}

impl Layer {
    fn record(
        &self,
        recording: &mut Recording,
        hidden: &Tensor,
        skip: Option<&Tensor>,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let hidden = self.resnet.record(recording, hidden, skip, Some(conditioning.time()))?; // [N, H, W, C]
        match &self.attention {
            Some(Attention::Transformer(transformer)) => {
                transformer.record(recording, &hidden, &conditioning.keys_values) // [N, H, W, C]
            }
            Some(Attention::Plain(attention)) => attention.record(recording, &hidden), // [N, H, W, C]
            None => Ok(hidden),
        }
    }
}

/// What one down unit does; its result is the next skip tensor.
#[derive(Clone, Debug)]
pub(super) enum DownStep {
    Layer(Box<Layer>),
    Downsample(Box<Downsample>),
}

/// One step on the way down.
#[derive(Clone, Debug)]
pub(super) struct DownUnit {
    /// `down_blocks.B`.
    pub(super) block: String,
    pub(super) step: DownStep,
    pub(super) ends_block: bool,
}

impl DownUnit {
    /// Records the unit: the returned tensor is the next skip.
    pub(super) fn record(
        &self,
        recording: &mut Recording,
        hidden: &Tensor,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.block);
        let output = match &self.step {
            DownStep::Layer(layer) => layer.record(recording, hidden, None, conditioning)?, // [N, H, W, C]
            DownStep::Downsample(downsample) => downsample.record(recording, hidden)?, // [N, H/2, W/2, C]
        };
        if self.ends_block {
            recording.mark(&output);
        }
        Ok(output)
    }
}

/// One layer on the way up, with the block's upsampler behind its last layer.
#[derive(Clone, Debug)]
pub(super) struct UpUnit {
    /// `up_blocks.B`.
    pub(super) block: String,
    pub(super) layer: Layer,
    pub(super) upsample: Option<Upsample>,
    pub(super) ends_block: bool,
}

impl UpUnit {
    /// Records the unit on the hidden state and the skip tensor that it consumes; `size` is the next skip's.
    pub(super) fn record(
        &self,
        recording: &mut Recording,
        hidden: &Tensor,
        skip: &Tensor,
        size: Option<[usize; 2]>,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.block);
        let mut output = self.layer.record(recording, hidden, Some(skip), conditioning)?; // [N, H, W, C]
        if let (Some(upsample), Some(size)) = (&self.upsample, size) {
            output = upsample.record(recording, &output, size)?; // [N, 2H, 2W, C]
        }
        if self.ends_block {
            recording.mark(&output);
        }
        Ok(output)
    }
}

/// The deepest part: a ResNet block, attention, a ResNet block.
#[derive(Clone, Debug)]
pub(super) struct Middle {
    first: Layer,
    second: ResnetBlock,
}

impl Middle {
    pub(super) fn load(site: &mut Site<'_, '_>) -> Result<Self> {
        let level = site.config.levels() - 1;
        let channels = site.config.block_out_channels[level];
        let resnet = site.resnet(0, [channels; 2])?;
        let attention = if site.config.middle_attention {
            Some(site.attention(0, channels, level, site.config.middle_norm_num_groups)?)
        } else {
            None
        };
        let first = Layer { resnet, attention };
        let second = site.resnet(1, [channels; 2])?;
        Ok(Self { first, second })
    }

    pub(super) fn record(
        &self,
        recording: &mut Recording,
        hidden: &Tensor,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope("mid_block");
        let hidden = self.first.record(recording, hidden, None, conditioning)?; // [N, H, W, C]
        let output = self.second.record(recording, &hidden, None, Some(conditioning.time()))?; // [N, H, W, C]
        recording.mark(&output);
        Ok(output)
    }

    /// Every layer, for what is computed once per run.
    pub(super) fn layers(&self) -> (&Layer, &ResnetBlock) {
        (&self.first, &self.second)
    }
}
