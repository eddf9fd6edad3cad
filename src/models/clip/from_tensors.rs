//! The text encoders of Stable Diffusion, told from their tensors.

use super::ClipConfig;
use crate::error::Result;
use crate::kernels::activation::Activation;
use crate::models::from_tensors::expect_divisible;
use crate::weights::Checkpoint;

/// Channels of one head in all models of this kind, which no tensor tells.
const HEAD: usize = 64;
const EPSILON: f32 = 1e-5;

impl ClipConfig {
    /// The shape of a text encoder of Stable Diffusion 1, 2 or XL from its tensors, under the names of transformers.
    /// What tensors do not tell is what CLIP ViT-L/14 has: heads of 64 channels, and "quick" GELU; or, where the
    /// file has `OpenCLIP`'s names, plain GELU.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing that must be there, or is of a shape that
    /// these models do not have.
    pub fn from_tensors(checkpoint: &Checkpoint) -> Result<Self> {
        const TOKENS: &str = "text_model.embeddings.token_embedding.weight";
        let layer = |number: usize| format!("text_model.encoder.layers.{number}.mlp.fc1.weight");
        let [vocab_size, hidden_size] = checkpoint.extents(TOKENS)?;
        let [positions, _] = checkpoint.extents("text_model.embeddings.position_embedding.weight")?;
        let [intermediate_size, _] = checkpoint.extents(&layer(0))?;
        expect_divisible(checkpoint, TOKENS, hidden_size, HEAD, "heads of 64 channels")?;
        let named = |part: &str| checkpoint.name_in_file(&layer(0)).is_some_and(|name| name.contains(part));
        let projection_dim = if checkpoint.shape("text_projection.transposed").is_some() {
            let [_, outputs] = checkpoint.extents("text_projection.transposed")?;
            outputs
        } else if checkpoint.shape("text_projection.weight").is_some() {
            let [outputs, _] = checkpoint.extents("text_projection.weight")?;
            outputs
        } else {
            hidden_size
        };
        Ok(Self {
            projection_dim,
            vocab_size,
            hidden_size,
            intermediate_size,
            num_hidden_layers: checkpoint.count(layer),
            num_attention_heads: hidden_size / HEAD,
            max_position_embeddings: positions,
            hidden_act: if named(".resblocks.") { Activation::Gelu } else { Activation::QuickGelu },
            layer_norm_eps: EPSILON,
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
        })
    }
}
