//! transformers' `CLIPTextModel`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::models::clip::ClipConfig;
use crate::nn::{LayerNorm, Mlp, SelfAttention, TokenEmbedding, attention};
use crate::tensor::Tensor;
use crate::weights::{Checkpoint, Loader};

/// The text encoder: token ids to one vector per token.
#[derive(Debug)]
pub struct ClipTextModel {
    config: ClipConfig,
    embedding: TokenEmbedding,
    layers: Vec<EncoderLayer>,
    final_norm: LayerNorm,
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
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing or has another shape than the config says.
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
        Ok(Self { config, embedding, layers, final_norm })
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
    /// [`Error::Shape`](crate::Error::Shape) if there are more tokens than positions.
    pub fn record(&self, recording: &mut Recording, ids: &Tensor) -> Result<Tensor> {
        let mut tokens = self.embedding.record(recording, ids)?; // [N, T, C]
        recording.scope("hidden_states.0").mark(&tokens);
        for (number, layer) in (1..).zip(&self.layers) {
            tokens = layer.record(recording, &tokens)?; // [N, T, C]
            recording.scope(&format!("hidden_states.{number}")).mark(&tokens);
        }
        self.final_norm.record(recording, &tokens) // [N, T, C]
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
