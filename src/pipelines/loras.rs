//! LoRAs of a loaded model: what they change is packed again, and nothing else.

use std::collections::BTreeSet;

use super::DiffusionPipeline;
use crate::error::{Error, Result};
use crate::weights::{Lora, LoraFiles};

impl DiffusionPipeline {
    /// The LoRAs that are in the weights, in their order.
    #[must_use]
    pub fn loras(&self) -> &[Lora] {
        &self.loras
    }

    /// Puts these LoRAs into the weights, in the place of those that are there; none takes them out.
    ///
    /// Only tensors that a LoRA changes, or has changed, are made again, from the model's own files, which are kept open:
    /// the weights are the same, to the bit, as those of a model that is loaded with these LoRAs. The warnings of the
    /// pipeline tell of tensors of a LoRA that fit nothing. After an error everything is as it was before, unless the
    /// device is lost. With [low memory](super::LoadOptions::low_memory) the sums are made, and values that are not finite
    /// found, in the next run.
    ///
    /// Agrees with `load_lora_weights` and `fuse_lora` of diffusers, in 32 bits whatever the storage is.
    ///
    /// # Errors
    /// [`Error::Option`] if this is no Stable Diffusion model or a weight is not finite; [`Error::Io`] if a file cannot be
    /// read; [`Error::Weights`], which names file and tensor, if a file is damaged or no LoRA, if nothing of it fits this
    /// model, if a shape does not fit, or if values are not finite; faults of the device.
    pub fn set_loras(&mut self, loras: &[Lora]) -> Result<()> {
        if self.weights.changeable().is_empty() {
            expect_no_loras(loras)?;
            return Ok(());
        }
        let files = LoraFiles::open(loras)?;
        let (changes, told) = files.fit(&self.weights.changeable())?;
        let before = self.weights.exchange(changes);
        let affected: Vec<BTreeSet<String>> = before
            .iter()
            .zip(self.weights.changeable())
            .map(|(before, (_, file))| before.keys().chain(file.changes().keys()).cloned().collect())
            .collect();
        if let Err(error) = self.weights.rewrite(&affected, &mut self.memory) {
            self.weights.exchange(before);
            self.weights.rewrite(&affected, &mut self.memory)?;
            return Err(error);
        }
        self.loras = loras.to_vec();
        self.warnings.truncate(self.own_warnings);
        self.warnings.extend(told);
        Ok(())
    }
}

/// Refuses LoRAs for a model that has no place for them.
pub(super) fn expect_no_loras(loras: &[Lora]) -> Result<()> {
    match loras.first() {
        None => Ok(()),
        Some(lora) => {
            let problem =
                format!("{} is for a Stable Diffusion model, which this is not", lora.path.display());
            Err(Error::option("lora", problem))
        }
    }
}
