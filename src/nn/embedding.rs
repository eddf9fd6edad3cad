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
    linear_1: Linear,
    linear_2: Linear,
    config: TimestepEmbeddingConfig,
    element: ElementType,
}

impl TimestepEmbedding {
    /// The layer called `name`: sinusoids of `channels` values to embeddings of `width`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [channels, width]: [usize; 2],
        config: TimestepEmbeddingConfig,
    ) -> Result<Self> {
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            linear_1: Linear::load(&at, loader, "linear_1", channels, width)?,
            linear_2: Linear::load(&at, loader, "linear_2", width, width)?,
            config,
            element: loader.element(),
        })
    }

    /// Records the embeddings of timesteps `[S]` (f32), activated as every ResNet block needs them: `[S, D]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(
        &self,
        recording: &mut Recording,
        timesteps: &Tensor,
        frequencies: &Tensor,
    ) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let waves = timestep_embedding(recording, timesteps, frequencies, self.element, &self.config)?; // [S, C]
        let hidden = self.linear_1.record_fused(recording, &waves, Activation::Silu, None)?; // [S, D]
        let embedding = self.linear_2.record(recording, &hidden)?; // [S, D]
        recording.mark(&embedding);
        activation(recording, &embedding, Activation::Silu) // [S, D]
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
