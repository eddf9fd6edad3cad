//! LoRAs of a loaded model: what they change is packed again, and nothing else.

use std::collections::BTreeSet;

use super::DiffusionPipeline;
use crate::error::{Error, Result};
use crate::gpu::Memory;
use crate::weights::{Changes, Checkpoint, Lora, LoraFiles, Network, Pending};

/// A network whose weights can be changed: its files, still open, and the tensors that were made from them.
#[derive(Debug)]
pub(super) struct Changeable {
    pub(super) network: Network,
    pub(super) checkpoint: Checkpoint,
    pub(super) pending: Vec<Pending>,
}

impl Changeable {
    /// Packs and uploads everything that is made of these tensors of the file.
    fn write(&self, names: &BTreeSet<String>, memory: &mut Memory) -> Result<()> {
        for pending in self.pending.iter().filter(|pending| pending.reads_one_of(names)) {
            pending
                .write(&self.checkpoint, &mut |offset, bytes| memory.write(&pending.tensor, offset, bytes))?;
        }
        Ok(())
    }
}

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
    /// device is lost.
    ///
    /// Agrees with `load_lora_weights` and `fuse_lora` of diffusers, in 32 bits whatever the storage is.
    ///
    /// # Errors
    /// [`Error::Option`] if this is no Stable Diffusion model or a weight is not finite; [`Error::Io`] if a file cannot be
    /// read; [`Error::Weights`], which names file and tensor, if a file is damaged or no LoRA, if nothing of it fits this
    /// model, if a shape does not fit, or if values are not finite; faults of the device.
    pub fn set_loras(&mut self, loras: &[Lora]) -> Result<()> {
        if self.changeable.is_empty() {
            expect_no_loras(loras)?;
            return Ok(());
        }
        let files = LoraFiles::open(loras)?;
        let networks: Vec<(Network, &Checkpoint)> =
            self.changeable.iter().map(|part| (part.network, &part.checkpoint)).collect();
        let (changes, told) = files.fit(&networks)?;
        let before = self.exchange(changes);
        let affected: Vec<BTreeSet<String>> = before
            .iter()
            .zip(&self.changeable)
            .map(|(before, part)| before.keys().chain(part.checkpoint.changes().keys()).cloned().collect())
            .collect();
        if let Err(error) = self.write(&affected) {
            self.exchange(before);
            self.write(&affected)?;
            return Err(error);
        }
        self.loras = loras.to_vec();
        self.warnings.truncate(self.own_warnings);
        self.warnings.extend(told);
        Ok(())
    }

    fn exchange(&mut self, changes: Vec<Changes>) -> Vec<Changes> {
        let parts = self.changeable.iter_mut().zip(changes);
        parts.map(|(part, changes)| part.checkpoint.change(changes)).collect()
    }

    fn write(&mut self, affected: &[BTreeSet<String>]) -> Result<()> {
        for (part, names) in self.changeable.iter().zip(affected) {
            part.write(names, &mut self.memory)?;
        }
        self.memory.flush()
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
