//! What a run of the U-Net computes once.

use super::TextTimeConfig;
use crate::nn::TimeTables;
use crate::tensor::{ElementType, Tensor};

/// Numbers that SDXL is told about a picture: original height and width, top and left of the crop, target height and
/// width.
pub const SIZES: usize = 6;

/// Numbers that a refiner of SDXL is told: original height and width, top and left of the crop, and an aesthetic score.
pub const REFINER_SIZES: usize = 5;

/// What a network attends to, and what else it is told of the prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// `encoder_hidden_states`, `[N, T, D]`.
    pub hidden_states: Option<&'a Tensor>,
    /// More channels of them, `[N, T, E]`, which are read as if they lay behind the others.
    pub second: Option<&'a Tensor>,
    /// `text_embeds` of SDXL: the prompt as one vector, `[N, P]`.
    pub pooled: Option<&'a Tensor>,
}

impl<'a> From<Option<&'a Tensor>> for Context<'a> {
    fn from(hidden_states: Option<&'a Tensor>) -> Self {
        Self { hidden_states, ..Self::default() }
    }
}

/// What a network with `addition_embed_type: text_time` reads besides.
#[derive(Clone, Debug)]
pub struct TextTime {
    /// The numbers of every image, [`SIZES`] or for a refiner [`REFINER_SIZES`]: `[N * I]`, f32. Written once.
    pub sizes: Tensor,
    /// Frequencies of their sinusoids, f32. Written once with
    /// [`UNet::size_frequencies`](super::UNet::size_frequencies).
    pub frequencies: Tensor,
    /// `[S, N]`, u32. Written once with [`TextTime::row_values`].
    pub rows: Tensor,
}

impl TextTime {
    pub(super) fn new(config: &TextTimeConfig, batch: usize, steps: usize) -> Self {
        Self {
            sizes: Tensor::external("sizes", [batch * config.sizes], ElementType::F32),
            frequencies: Tensor::external("size_frequencies", [config.time_channels / 2], ElementType::F32),
            rows: Tensor::external("time_rows", [steps, batch], ElementType::U32),
        }
    }

    /// How many numbers every image is described by.
    #[must_use]
    pub fn told(&self) -> usize {
        self.sizes.shape().count() / self.rows.shape().channels().max(1)
    }

    /// The values of [`TextTime::rows`]: the number of the step, for every image.
    #[must_use]
    pub fn row_values(&self) -> Vec<u32> {
        let [steps, images] = [self.rows.shape().rows(), self.rows.shape().channels()];
        (0..).take(steps).flat_map(|step| std::iter::repeat_n(step, images)).collect()
    }

    fn tensors(&self) -> [&Tensor; 3] {
        [&self.sizes, &self.frequencies, &self.rows]
    }
}

/// What a run computes once, in memory that outlives recordings.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Keys and values of the prompt for every cross-attention: `[N, T, 2C]`.
    pub(super) keys_values: Vec<Tensor>,
    /// Projections of every step's time embedding for every ResNet block: `[S, C]`.
    pub(super) times: Vec<Tensor>,
    /// The row of the tables that belongs to the current step: `[1]`, u32.
    pub(super) step: Tensor,
    /// Timesteps: `[S]`, f32.
    pub(super) timesteps: Tensor,
    /// Frequencies of the sinusoids: `[C/2]`, f32.
    pub(super) frequencies: Tensor,
    pub(super) text_time: Option<TextTime>,
    pub(super) guidance: Option<[Tensor; 2]>,
    /// Whether every image has time projections of its own: `[S * N, C]`.
    pub(super) per_image: bool,
}

impl Conditioning {
    pub(super) fn time(&self) -> TimeTables<'_> {
        TimeTables { tables: &self.times, step: &self.step, per_image: self.per_image }
    }

    /// What a network with `addition_embed_type: text_time` reads besides.
    #[must_use]
    pub fn text_time(&self) -> Option<&TextTime> {
        self.text_time.as_ref()
    }

    /// What a network that reads the guidance scale needs, f32, each written once: the scale less 1, times 1000, for
    /// every call, `[S]`, and [`UNet::guidance_frequencies`](super::UNet::guidance_frequencies), `[K / 2]`.
    ///
    /// Agrees with `diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding`.
    #[must_use]
    pub fn guidance(&self) -> Option<&[Tensor; 2]> {
        self.guidance.as_ref()
    }

    /// The row of the tables that belongs to the current step: `[1]`, u32. Written before each play.
    #[must_use]
    pub fn step(&self) -> &Tensor {
        &self.step
    }

    /// Timesteps of all calls: `[S]`, f32. Written once.
    #[must_use]
    pub fn timesteps(&self) -> &Tensor {
        &self.timesteps
    }

    /// Frequencies of the sinusoids: `[C/2]`, f32. Written once with [`UNet::frequencies`](super::UNet::frequencies).
    #[must_use]
    pub fn frequencies(&self) -> &Tensor {
        &self.frequencies
    }

    /// All tensors, to be allocated.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let text_time = self.text_time.iter().flat_map(TextTime::tensors);
        let own = [&self.step, &self.timesteps, &self.frequencies];
        let guidance = self.guidance.iter().flatten();
        self.keys_values.iter().chain(&self.times).chain(own).chain(text_time).chain(guidance)
    }
}
