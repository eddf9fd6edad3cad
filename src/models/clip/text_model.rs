//! transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`.

use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::kernels::token_embedding::token_embedding;
use crate::models::clip::ClipConfig;
use crate::nn::{LayerNorm, Linear, Mlp, SelfAttention, TokenEmbedding, attention};
use crate::tensor::Tensor;
use crate::weights::{Checkpoint, Loader};

/// The text encoder: token ids to one vector per token.
#[derive(Debug)]
pub struct ClipTextModel {
    config: ClipConfig,
    embedding: TokenEmbedding,
    layers: Vec<EncoderLayer>,
    final_norm: LayerNorm,
    projection: Option<Linear>,
}

/// What a text encoder makes of prompts.
#[derive(Clone, Debug)]
pub struct TextStates {
    /// What enters the last layer, `[N, T, C]`: `hidden_states[-2]`.
    pub penultimate: Tensor,
    /// What leaves the last layer, behind the final norm, `[N, T, C]`: `last_hidden_state`.
    pub last: Tensor,
}

#[derive(Debug)]
struct EncoderLayer {
    name: String,
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    mlp: Mlp,
}

impl ClipTextModel {
    /// Builds the model of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing or has another shape than the config says.
    pub fn load(config: ClipConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        let root = checkpoint.root().child("text_model");
        let channels = config.hidden_size;
        let extents = [config.vocab_size, config.max_position_embeddings, channels];
        let embedding = TokenEmbedding::load(&root.child("embeddings"), loader, extents)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for number in 0..config.num_hidden_layers {
            let name = format!("encoder.layers.{number}");
            let at = &root.child(&name);
            let epsilon = config.layer_norm_eps;
            let names = attention::CLIP;
            let heads = config.num_attention_heads;
            let inner = [channels, config.intermediate_size];
            layers.push(EncoderLayer {
                name,
                norm1: LayerNorm::load(at, loader, "layer_norm1", channels, epsilon)?,
                attention: SelfAttention::load(at, loader, "self_attn", names, channels, heads, true)?,
                norm2: LayerNorm::load(at, loader, "layer_norm2", channels, epsilon)?,
                mlp: Mlp::load(at, loader, "mlp", inner, config.hidden_act)?,
            });
        }
        let final_norm = LayerNorm::load(&root, loader, "final_layer_norm", channels, config.layer_norm_eps)?;
        Ok(Self { config, embedding, layers, final_norm, projection: None })
    }

    /// As [`load`](Self::load), a `CLIPTextModelWithProjection`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_projection(
        config: ClipConfig,
        checkpoint: &Checkpoint,
        loader: &mut Loader,
    ) -> Result<Self> {
        let (root, inputs, outputs) = (checkpoint.root(), config.hidden_size, config.projection_dim);
        const TRANSPOSED: &str = "text_projection.transposed";
        let projection = if root.has(TRANSPOSED) {
            Linear::load_transposed(&root, loader, "text_projection", TRANSPOSED, [inputs, outputs])?
        } else {
            loader.as_activations(|loader| {
                Linear::load_without_bias(&root, loader, "text_projection", inputs, outputs)
            })?
        };
        Ok(Self { projection: Some(projection), ..Self::load(config, checkpoint, loader)? })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// Records the model on token ids `[N, T]` (u32): the last hidden state behind the final norm, `[N, T, C]`.
    ///
    /// The hidden states between the layers are marked `hidden_states.0`, `hidden_states.1`, …
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more tokens than positions.
    pub fn record(&self, recording: &mut Recording, ids: &Tensor) -> Result<Tensor> {
        self.record_states(recording, ids).map(|states| states.last) // [N, T, C]
    }

    /// As [`record`](Self::record), with what enters the last layer.
    ///
    /// # Errors
    /// As [`record`](Self::record).
    pub fn record_states(&self, recording: &mut Recording, ids: &Tensor) -> Result<TextStates> {
        let count = self.layers.len();
        let states = self.record_layers(recording, ids, &[count.saturating_sub(1), count])?; // [N, T, C] each
        let last = self.record_final_norm(recording, &states[1])?; // [N, T, C]
        Ok(TextStates { penultimate: states[0].clone(), last })
    }

    /// Records the hidden states of these numbers, `[N, T, C]` each, and no layer above the highest: 0 is what enters
    /// the first layer, `n` what leaves the n-th, without the final norm. transformers' `hidden_states`.
    ///
    /// # Errors
    /// [`Error::Shape`] if there are more tokens than positions, or not so many layers.
    pub fn record_layers(
        &self,
        recording: &mut Recording,
        ids: &Tensor,
        numbers: &[usize],
    ) -> Result<Vec<Tensor>> {
        let highest = numbers.iter().copied().max().unwrap_or(0);
        if highest > self.layers.len() {
            return Err(Error::Shape {
                operation: "text_encoder",
                tensor: "hidden_states".to_owned(),
                expected: format!("a number up to {}", self.layers.len()),
                found: highest.to_string(),
            });
        }
        let mut tokens = self.embedding.record(recording, ids)?; // [N, T, C]
        recording.scope("hidden_states.0").mark(&tokens);
        let mut states = vec![tokens.clone(); numbers.len()];
        for (number, layer) in (1..=highest).zip(&self.layers) {
            tokens = layer.record(recording, &tokens)?; // [N, T, C]
            recording.scope(&format!("hidden_states.{number}")).mark(&tokens);
            for (state, wanted) in states.iter_mut().zip(numbers) {
                if *wanted == number {
                    *state = tokens.clone();
                }
            }
        }
        Ok(states)
    }

    /// Records the norm behind the last layer, of hidden states `[N, T, C]` of any layer.
    ///
    /// # Errors
    /// [`Error::Shape`] if the channels are not those of the model.
    pub fn record_final_norm(&self, recording: &mut Recording, states: &Tensor) -> Result<Tensor> {
        self.final_norm.record(recording, states) // [N, T, C]
    }

    /// Number of transformer layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Records the prompts as one vector each, `[N, P]`, from their last hidden states and `ends`, `[N, 1]` (u32): for
    /// every prompt, the row of `[N * T, C]` that is its [end](ClipConfig::end_of). Zeros for a row that is not there.
    ///
    /// Without a projection, the hidden state itself: transformers' `pooler_output`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensors do not fit.
    pub fn record_pooled(&self, recording: &mut Recording, last: &Tensor, ends: &Tensor) -> Result<Tensor> {
        let (rows, channels) = (last.shape().rows(), last.shape().channels());
        let table = last.reshape([rows, channels])?; // [N * T, C]
        let pooled = token_embedding(&mut recording.scope("pooled"), ends, &[table], None)?; // [N, 1, C]
        let pooled = pooled.reshape([ends.shape().rows(), channels])?; // [N, C]
        match &self.projection {
            Some(projection) => projection.record(recording, &pooled), // [N, P]
            None => Ok(pooled),
        }
    }
}

impl EncoderLayer {
    fn record(&self, recording: &mut Recording, tokens: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let normal = self.norm1.record(recording, tokens)?; // [N, T, C]
        let tokens = self.attention.record(recording, &normal, tokens)?; // [N, T, C]
        let normal = self.norm2.record(recording, &tokens)?; // [N, T, C]
        self.mlp.record(recording, &normal, &tokens) // [N, T, C]
    }
}
