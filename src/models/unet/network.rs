//! The flow of the U-Net: down, through the middle, up; whole, or only the shallow part around a kept feature.
//!
//! Skip tensors are numbered in the order in which the way down leaves them; 0 is the output of `conv_in`.
//! The up unit `r` reads skip `r`. DeepCache's skip index `s` cuts the flow where up unit `s` begins.

use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::kernels::conv2d::{Conv2dConfig, Padding};
use crate::kernels::group_norm::GroupNormConfig;
use crate::kernels::timestep_embedding::{TimestepEmbeddingConfig, frequencies};
use crate::models::unet::UNetConfig;
use crate::nn::{Additions, Convolution, GroupNorm, ImageEmbeddings, TextTimeEmbedding, TimestepEmbedding};
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Checkpoint, Loader};

use super::blocks::{Attention, Counters, DownStep, DownUnit, Layer, Middle, Site, UpUnit};
use super::conditioning::TextTime;
use super::ways::{load_down, load_up};
use super::{Conditioning, Context};

/// diffusers' `UNet2DConditionModel` as Stable Diffusion v1, v2 and SDXL have it, or `UNet2DModel`.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    element: ElementType,
    time_embedding: TimestepEmbedding,
    text_time: Option<TextTimeEmbedding>,
    conv_in: Convolution,
    /// `down[i]` leaves skip `i + 1`.
    down: Vec<DownUnit>,
    middle: Middle,
    /// `up[r]` reads skip `r`.
    up: Vec<UpUnit>,
    conv_norm_out: GroupNorm,
    conv_out: Convolution,
    resnet_count: usize,
}

/// What a call of the network makes.
#[derive(Debug)]
pub struct Flow {
    /// The model's output `[N, h, w, C]`.
    pub prediction: Tensor,
    /// The skip tensors that were computed, in their order: all of them in a full call, those up to the skip index
    /// in a shallow one.
    pub skips: Vec<Tensor>,
}

impl UNet {
    /// Builds the network of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing, has another shape than the config says, or is left over.
    pub fn load(config: UNetConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        let root = checkpoint.root();
        let channels = config.block_out_channels.clone();
        let first = channels[0];
        let three = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };
        let time = TimestepEmbeddingConfig { flip_sin_to_cos: config.flip_sin_to_cos };
        let width = [first, config.time_embedding_channels];
        let time_embedding =
            TimestepEmbedding::load(&root, loader, "time_embedding", width, config.guidance_channels, time)?;
        let text_time = match &config.text_time {
            Some(inputs) => {
                let width = [inputs.input_channels, config.time_embedding_channels];
                Some(TextTimeEmbedding::load(&root, loader, "add_embedding", width, time)?)
            }
            None => None,
        };
        let conv_in = Convolution::load(&root, loader, "conv_in", config.in_channels, first, three)?;

        let mut counters = Counters::default();
        let (down, skips) = load_down(&config, &root, loader, &mut counters)?;
        let mut site =
            Site { config: &config, weights: root.child("mid_block"), loader, counters: &mut counters };
        let middle = Middle::load(&mut site)?;
        let up = load_up(&config, &root, loader, &mut counters, &skips)?;

        let norm = GroupNormConfig { groups: config.norm_num_groups, epsilon: config.norm_eps, silu: true };
        let conv_norm_out = GroupNorm::load(&root, loader, "conv_norm_out", first, norm)?;
        let conv_out = Convolution::load(&root, loader, "conv_out", first, config.out_channels, three)?;
        let resnet_count = counters.resnet_count();
        let element = loader.element();
        Ok(Self {
            config,
            element,
            time_embedding,
            text_time,
            conv_in,
            down,
            middle,
            up,
            conv_norm_out,
            conv_out,
            resnet_count,
        })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// Number of skip tensors; the skip index of DeepCache is below it.
    #[must_use]
    pub fn skip_count(&self) -> usize {
        self.up.len()
    }

    /// The values of [`Conditioning::frequencies`].
    #[must_use]
    pub fn frequencies(&self) -> Vec<f32> {
        frequencies(self.config.block_out_channels[0], self.config.freq_shift)
    }

    /// The values of [`TextTime::frequencies`]; none for a network that does not read sizes.
    #[must_use]
    pub fn size_frequencies(&self) -> Vec<f32> {
        self.config
            .text_time
            .map_or_else(Vec::new, |sizes| frequencies(sizes.time_channels, self.config.freq_shift))
    }

    /// The values of the second of [`Conditioning::guidance`]; none for a network that does not read the guidance
    /// scale.
    #[must_use]
    pub fn guidance_frequencies(&self) -> Vec<f32> {
        self.config.guidance_channels.map_or_else(Vec::new, |channels| frequencies(channels, 1.0))
    }

    /// Memory for what is computed once per run: `batch` images (both guidance halves counted), prompts of
    /// `tokens` tokens, `steps` timesteps.
    #[must_use]
    pub fn conditioning(&self, batch: usize, tokens: usize, steps: usize) -> Conditioning {
        let mut times = Vec::with_capacity(self.resnet_count);
        let mut keys_values = Vec::new();
        let text_time = self.config.text_time.map(|config| TextTime::new(&config, batch, steps));
        let rows = if text_time.is_some() { batch * steps } else { steps };
        self.visit(|block, layer| {
            times.push(layer.resnet.time_table(block, rows));
            if let Some(Attention::Transformer(transformer)) = &layer.attention {
                keys_values.extend(transformer.keys_values(block, batch, tokens));
            }
        });
        let half = self.config.block_out_channels[0] / 2;
        Conditioning {
            keys_values,
            times,
            step: Tensor::external("step", [1], ElementType::U32),
            timesteps: Tensor::external("timesteps", [steps], ElementType::F32),
            frequencies: Tensor::external("frequencies", [half], ElementType::F32),
            text_time,
            guidance: self.config.guidance_channels.map(|channels| {
                let scales = Tensor::external("guidance_scales", [steps], ElementType::F32);
                [scales, Tensor::external("guidance_frequencies", [channels / 2], ElementType::F32)]
            }),
            per_image: rows > steps,
        }
    }

    /// Calls `look` with every layer in the order of the counters.
    fn visit(&self, mut look: impl FnMut(&str, &Layer)) {
        for unit in &self.down {
            if let DownStep::Layer(layer) = &unit.step {
                look(&unit.block, layer);
            }
        }
        let (first, second) = self.middle.layers();
        look("mid_block", first);
        look("mid_block", &Layer { resnet: second.clone(), attention: None });
        for unit in self.up.iter().rev() {
            look(&unit.block, &unit.layer);
        }
    }

    /// Records what is computed once per run: time projections of all steps, and the keys and values of the
    /// context, which a network without cross-attention does not need.
    ///
    /// # Errors
    /// [`Error::Shape`] if the context's batch, length or width is another than the conditioning's, or it is missing.
    pub fn record_conditioning<'a>(
        &self,
        recording: &mut Recording,
        context: impl Into<Context<'a>>,
        conditioning: &Conditioning,
    ) -> Result<()> {
        let context = context.into();
        let images = self.record_text_time(recording, context.pooled, conditioning)?; // [N, D]
        let images = images.as_ref().zip(conditioning.text_time.as_ref());
        let images =
            images.map(|(embeddings, text_time)| ImageEmbeddings { embeddings, rows: &text_time.rows });
        let guidance = conditioning.guidance.as_ref().map(|[scales, frequencies]| [scales, frequencies]);
        let (timesteps, frequencies) = (&conditioning.timesteps, &conditioning.frequencies);
        let additions = Additions { guidance, images };
        let embeddings = self.time_embedding.record(recording, timesteps, frequencies, additions)?; // [S, D]
        let mut outcome = Ok(());
        self.visit(|block, layer| {
            let recording = &mut recording.scope(block);
            let mut record = || {
                layer.resnet.record_time(recording, &embeddings, &conditioning.times)?;
                let Some(Attention::Transformer(transformer)) = &layer.attention else { return Ok(()) };
                let prompt = context.hidden_states.ok_or_else(|| {
                    missing("encoder_hidden_states", "[N, T, D], since this network has cross-attention")
                })?;
                transformer.record_keys_values(recording, prompt, context.second, &conditioning.keys_values)
            };
            if outcome.is_ok() {
                outcome = record();
            }
        });
        outcome
    }

    /// Records what a network that reads it makes of the prompt as one vector, and of sizes: `[N, D]`.
    fn record_text_time(
        &self,
        recording: &mut Recording,
        pooled: Option<&Tensor>,
        conditioning: &Conditioning,
    ) -> Result<Option<Tensor>> {
        let (Some(layer), Some(tensors), Some(config)) =
            (&self.text_time, &conditioning.text_time, &self.config.text_time)
        else {
            return Ok(None);
        };
        let images = tensors.sizes.shape().count() / config.sizes;
        let channels = config.input_channels - config.sizes * config.time_channels;
        let pooled =
            pooled.ok_or_else(|| missing("text_embeds", "[N, P], since this network has text_time"))?;
        pooled.expect("unet", "text_embeds", &[images, channels])?;
        layer.record(recording, pooled, &tensors.sizes, &tensors.frequencies).map(Some) // [N, D]
    }

    /// Memory for the feature that a full step keeps for skip index `s`: what enters up unit `s`, before its
    /// skip tensor is put behind its channels. `[N, H, W, C]` for latents of `height` by `width`.
    ///
    /// # Errors
    /// [`Error::Option`] if there is no skip tensor `s`.
    pub fn kept_feature(
        &self,
        skip_index: usize,
        batch: usize,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        self.check_skip_index(skip_index)?;
        let mut size = [height, width];
        for unit in &self.down[..skip_index] {
            if let DownStep::Downsample(_) = unit.step {
                size = size.map(|extent| (extent + self.config.downsample_padding) / 2);
            }
        }
        let channels = self.kept_channels(skip_index);
        Ok(Tensor::external("kept_feature", [batch, size[0], size[1], channels], self.element))
    }

    /// Channels of what enters up unit `s`: those that up unit `s + 1`, or the middle, leaves.
    fn kept_channels(&self, skip_index: usize) -> usize {
        let levels = &self.config.block_out_channels;
        let per_block = self.config.layers_per_block + 1;
        let block = (self.up.len() - 1).saturating_sub(skip_index + 1) / per_block;
        levels[levels.len() - 1 - block]
    }

    /// Checks that there is a skip tensor `s`.
    ///
    /// # Errors
    /// [`Error::Option`] saying which there are.
    pub fn check_skip_index(&self, skip_index: usize) -> Result<()> {
        let count = self.skip_count();
        if skip_index < count {
            return Ok(());
        }
        let problem = format!("is {skip_index}, but this U-Net has the skip branches 0 to {}", count - 1);
        Err(Error::option("cache branch", problem))
    }

    /// Records the whole network on `sample` `[N, h, w, C]`, and keeps what enters up unit `s` in the given
    /// memory, for every `s` that is asked for.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sample does not fit, [`Error::Option`] if there is no skip tensor `s`.
    pub fn record_full(
        &self,
        recording: &mut Recording,
        sample: &Tensor,
        conditioning: &Conditioning,
        keep: &[(usize, &Tensor)],
    ) -> Result<Flow> {
        for (skip_index, _) in keep {
            self.check_skip_index(*skip_index)?;
        }
        // 1. down: each unit leaves its output on the skip stack
        let skips = self.record_down(recording, sample, conditioning, self.down.len())?;
        // 2. middle
        let deepest = &skips[skips.len() - 1];
        let mut hidden = self.middle.record(recording, deepest, conditioning)?; // [N, h/8, w/8, C]
        // 3. up: each unit reads its skip
        for index in (0..self.up.len()).rev() {
            if let Some((_, kept)) = keep.iter().find(|(skip_index, _)| *skip_index == index) {
                recording.place(&hidden, kept);
            }
            hidden = self.record_up(recording, &hidden, &skips, index, conditioning)?;
        }
        // 4. head
        let prediction = self.record_head(recording, &hidden)?; // [N, h, w, C]
        Ok(Flow { prediction, skips })
    }

    /// Records only what lies outside the cut of skip index `s`, around the kept feature.
    ///
    /// # Errors
    /// As [`UNet::record_full`].
    pub fn record_shallow(
        &self,
        recording: &mut Recording,
        sample: &Tensor,
        conditioning: &Conditioning,
        skip_index: usize,
        kept: &Tensor,
    ) -> Result<Flow> {
        self.check_skip_index(skip_index)?;
        let skips = self.record_down(recording, sample, conditioning, skip_index)?;
        let mut hidden = kept.clone(); // [N, H, W, C]
        for index in (0..=skip_index).rev() {
            hidden = self.record_up(recording, &hidden, &skips, index, conditioning)?;
        }
        let prediction = self.record_head(recording, &hidden)?; // [N, h, w, C]
        Ok(Flow { prediction, skips })
    }

    fn record_down(
        &self,
        recording: &mut Recording,
        sample: &Tensor,
        conditioning: &Conditioning,
        units: usize,
    ) -> Result<Vec<Tensor>> {
        let [_, _, _, channels] = sample.image_extents("unet", "sample")?;
        if channels != self.config.in_channels {
            return Err(sample.wrong("unet", "sample", &format!("{} channels", self.config.in_channels)));
        }
        let mut hidden = self.conv_in.record(recording, sample)?; // [N, h, w, C]
        recording.scope("conv_in").mark(&hidden);
        let mut skips = vec![hidden.clone()];
        for unit in &self.down[..units] {
            hidden = unit.record(recording, &hidden, conditioning)?; // [N, H, W, C]
            skips.push(hidden.clone());
        }
        Ok(skips)
    }

    fn record_up(
        &self,
        recording: &mut Recording,
        hidden: &Tensor,
        skips: &[Tensor],
        index: usize,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        // The picture grows to the size of the next skip, which need not be twice as large.
        let size = match index.checked_sub(1) {
            Some(next) => {
                let [_, height, width, _] = skips[next].image_extents("unet", "skip")?;
                Some([height, width])
            }
            None => None,
        };
        self.up[index].record(recording, hidden, &skips[index], size, conditioning) // [N, H, W, C]
    }

    fn record_head(&self, recording: &mut Recording, hidden: &Tensor) -> Result<Tensor> {
        let normal = self.conv_norm_out.record(recording, hidden, None)?; // [N, h, w, C]
        self.conv_out.record(recording, &normal) // [N, h, w, C]
    }
}

fn missing(tensor: &str, expected: &str) -> Error {
    Error::Shape {
        operation: "unet",
        tensor: tensor.to_owned(),
        expected: expected.to_owned(),
        found: "nothing".to_owned(),
    }
}
