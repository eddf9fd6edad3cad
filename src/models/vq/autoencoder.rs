//! diffusers' `VQModel`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::token_embedding::token_embedding;
use crate::kernels::vector_quantize::vector_quantize;
use crate::models::vae::VaeDecoder;
use crate::models::vq::VqConfig;
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Checkpoint, Loader};

/// Latents to pictures, by way of the codebook.
#[derive(Debug)]
pub struct VqDecoder {
    config: VqConfig,
    /// `[K, D]`, f32: which entry is the nearest must not depend on how other values are stored.
    codebook: Tensor,
    /// `[K, D]`, as the decoder reads its input.
    entries: Tensor,
    decoder: VaeDecoder,
}

impl VqDecoder {
    /// Builds the decoder of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a tensor is missing or has another shape than the config says.
    pub fn load(config: VqConfig, checkpoint: &Checkpoint, loader: &mut Loader) -> Result<Self> {
        const NAME: &str = "embedding.weight";
        let at = checkpoint.root().child("quantize");
        let shape = [config.num_vq_embeddings, config.autoencoder.embed_channels];
        let codebook = at.table_of(loader, NAME, shape, ElementType::F32)?;
        let entries = match loader.element() {
            ElementType::F32 => codebook.clone(),
            element => at.table_of(loader, NAME, shape, element)?,
        };
        let decoder = VaeDecoder::load(config.autoencoder.clone(), checkpoint, loader)?;
        Ok(Self { config, codebook, entries, decoder })
    }

    /// The configuration that it was built from.
    #[must_use]
    pub fn config(&self) -> &VqConfig {
        &self.config
    }

    /// Records the decoder on latents `[N, h, w, D]` (f32), already divided by the scaling factor: a picture
    /// `[N, H, W, 3]` whose values are about -1 to 1. Each latent is replaced by the nearest entry of the codebook.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the latents do not fit.
    pub fn record(&self, recording: &mut Recording, latents: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = latents.image_extents("vq", "latents")?;
        let quantized = {
            let recording = &mut recording.scope("quantize");
            let indices = vector_quantize(recording, latents, &self.codebook)?; // [N, h, w]
            let indices = indices.reshape([batch, height * width])?; // [N, T]
            token_embedding(recording, &indices, std::slice::from_ref(&self.entries), None)? // [N, T, D]
        };
        let quantized = quantized.reshape([batch, height, width, channels])?; // [N, h, w, D]
        recording.scope("quantize").mark(&quantized);
        self.decoder.record(recording, &quantized) // [N, H, W, 3]
    }
}
