//! Embeddings of timesteps and of tokens.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::{Activation, activation};
use crate::kernels::timestep_embedding::{TimestepEmbeddingConfig, timestep_embedding};
use crate::kernels::token_embedding::token_embedding;
use crate::nn::Linear;
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Loader, Weights};

/// diffusers' `Timesteps` and `TimestepEmbedding`.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    name: String,
    /// What the guidance scale becomes, before it is added to the sinusoids.
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
    config: TimestepEmbeddingConfig,
    element: ElementType,
}

/// The guidance scale has its sines first, whatever the timesteps have.
const GUIDANCE_WAVES: TimestepEmbeddingConfig = TimestepEmbeddingConfig { flip_sin_to_cos: false };

impl TimestepEmbedding {
    /// The layer called `name`: sinusoids of `channels` values to embeddings of `width`. With `guidance`, sinusoids of
    /// the guidance scale of so many values are read too.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [channels, width]: [usize; 2],
        guidance: Option<usize>,
        config: TimestepEmbeddingConfig,
    ) -> Result<Self> {
        let at = weights.child(name);
        loader.as_activations(|loader| {
            let cond_proj = match guidance {
                Some(values) => Some(Linear::load_without_bias(&at, loader, "cond_proj", values, channels)?),
                None => None,
            };
            Ok(Self {
                name: name.to_owned(),
                cond_proj,
                linear_1: Linear::load(&at, loader, "linear_1", channels, width)?,
                linear_2: Linear::load(&at, loader, "linear_2", width, width)?,
                config,
                element: loader.element(),
            })
        })
    }

    /// Records the embeddings of timesteps `[S]` (f32), activated as every ResNet block needs them: `[S, D]`.
    ///
    /// A layer that reads the guidance scale needs it. With `images`, embeddings `[N, D]` of another origin are added, and for every step there are N rows:
    /// `[S * N, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        timesteps: &Tensor,
        frequencies: &Tensor,
        additions: Additions<'_>,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let mut waves = timestep_embedding(recording, timesteps, frequencies, self.element, &self.config)?; // [S, C]
        if let (Some(layer), Some([scales, frequencies])) = (&self.cond_proj, additions.guidance) {
            let guidance = timestep_embedding(recording, scales, frequencies, self.element, &GUIDANCE_WAVES)?; // [S, K]
            waves = layer.record_fused(recording, &guidance, Activation::None, Some(&waves))?; // [S, C]
        }
        let hidden = self.linear_1.record_fused(recording, &waves, Activation::Silu, None)?; // [S, D]
        let embedding = self.linear_2.record(recording, &hidden)?; // [S, D]
        recording.mark(&embedding);
        let Some(ImageEmbeddings { embeddings, rows }) = additions.images else {
            return activation(recording, &embedding, Activation::Silu); // [S, D]
        };
        let width = embedding.shape().channels();
        // Row s of the one beside row n of the other: as tokens s at positions n.
        let sums = token_embedding(recording, rows, &[embedding], Some(embeddings))?; // [S, N, D]
        let sums = sums.reshape([sums.shape().rows(), width])?; // [S * N, D]
        activation(recording, &sums, Activation::Silu) // [S * N, D]
    }
}

/// What a time embedding is made of besides timesteps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Additions<'a> {
    /// The guidance scale less 1, times 1000, for every timestep, `[S]`, and the frequencies of its sinusoids, both f32.
    pub guidance: Option<[&'a Tensor; 2]>,
    /// Embeddings of every image.
    pub images: Option<ImageEmbeddings<'a>>,
}

/// Embeddings of every image that are added to those of the timesteps.
#[derive(Clone, Copy, Debug)]
pub struct ImageEmbeddings<'a> {
    /// `[N, D]`.
    pub embeddings: &'a Tensor,
    /// `[S, N]`, u32: `s` everywhere in row `s`.
    pub rows: &'a Tensor,
}

/// diffusers' `add_time_proj` and `add_embedding` of SDXL: a prompt as one vector, and sizes of the picture.
#[derive(Clone, Debug)]
pub struct TextTimeEmbedding {
    name: String,
    linear_1: Linear,
    linear_2: Linear,
    config: TimestepEmbeddingConfig,
    element: ElementType,
}

impl TextTimeEmbedding {
    /// The layer called `name`: `inputs` values of vector and sizes to embeddings of `width`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [inputs, width]: [usize; 2],
        config: TimestepEmbeddingConfig,
    ) -> Result<Self> {
        let at = weights.child(name);
        loader.as_activations(|loader| {
            Ok(Self {
                name: name.to_owned(),
                linear_1: Linear::load(&at, loader, "linear_1", inputs, width)?,
                linear_2: Linear::load(&at, loader, "linear_2", width, width)?,
                config,
                element: loader.element(),
            })
        })
    }

    /// Records the embeddings of prompts `[N, P]` and of their sizes `[N * I]` (f32): `[N, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        prompts: &Tensor,
        sizes: &Tensor,
        frequencies: &Tensor,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let waves = timestep_embedding(recording, sizes, frequencies, self.element, &self.config)?; // [N * I, C]
        let images = prompts.shape().rows();
        let waves = waves.reshape([images, waves.shape().count() / images])?; // [N, I * C]
        let hidden = self.linear_1.record_concatenated(recording, prompts, &waves)?; // [N, D]
        let hidden = activation(recording, &hidden, Activation::Silu)?; // [N, D]
        let embedding = self.linear_2.record(recording, &hidden)?; // [N, D]
        recording.mark(&embedding);
        Ok(embedding)
    }
}

/// transformers' `CLIPTextEmbeddings`.
#[derive(Clone, Debug)]
pub struct TokenEmbedding {
    tables: Vec<Tensor>,
    positions: Tensor,
}

impl TokenEmbedding {
    /// The embeddings below `weights`: `vocabulary` tokens and `length` positions of `channels` values.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        [vocabulary, length, channels]: [usize; 3],
    ) -> Result<Self> {
        let tables = weights.tables(loader, "token_embedding.weight", vocabulary, channels)?;
        let positions = weights.table(loader, "position_embedding.weight", length, channels)?;
        Ok(Self { tables, positions })
    }

    /// Records the embedding of token ids `[N, T]`: `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if there are more tokens than positions.
    pub fn record(&self, recording: &mut Recording, ids: &Tensor) -> Result<Tensor> {
        token_embedding(&mut recording.scope("embeddings"), ids, &self.tables, Some(&self.positions))
    }
}
