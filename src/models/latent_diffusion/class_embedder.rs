//! `ldm.modules.encoders.modules.ClassEmbedder`.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::token_embedding::token_embedding;
use crate::tensor::Tensor;
use crate::weights::{Checkpoint, Loader};

/// A table of classes, each of which becomes a context of one token. The last class stands for none.
#[derive(Debug)]
pub struct ClassEmbedder {
    table: Tensor,
}

impl ClassEmbedder {
    /// Builds the embedder of a checkpoint; values are uploaded afterwards from the loader's list.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if the table is missing or has another shape.
    pub fn load(
        [classes, channels]: [usize; 2],
        checkpoint: &Checkpoint,
        loader: &mut Loader,
    ) -> Result<Self> {
        let table = checkpoint.root().table(loader, "embedding.weight", classes, channels)?;
        Ok(Self { table })
    }

    /// Number of classes, the one that stands for none included.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.table.shape().rows()
    }

    /// Records the embedding of class labels `[N, 1]` (u32): `[N, 1, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the labels have another shape.
    pub fn record(&self, recording: &mut Recording, labels: &Tensor) -> Result<Tensor> {
        token_embedding(recording, labels, std::slice::from_ref(&self.table), None)
    }
}
