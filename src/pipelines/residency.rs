//! The weights of a model: where they come from, and which of them are on the device.

use super::recorded::Stage;
use crate::error::Result;
use crate::gpu::{Memory, Purpose, packed_bytes};
use crate::weights::{Checkpoint, Pending};

/// The part of a run that reads a network's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text encoders.
    Text,
    /// The U-Net, and a table of classes, which is small.
    Network,
    /// The decoder.
    Decoder,
}

/// The weights of one network.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) part: Part,
    /// The first part of their labels.
    pub(super) name: String,
    checkpoint: Option<Checkpoint>,
    pending: Vec<Pending>,
    resident: bool,
}

impl Stored {
    pub(super) fn new(part: Part, name: &str, checkpoint: Checkpoint, pending: Vec<Pending>) -> Self {
        Self { part, name: name.to_owned(), checkpoint: Some(checkpoint), pending, resident: false }
    }

    /// Bytes that they take on the device.
    pub(super) fn bytes(&self) -> u64 {
        packed_bytes(self.pending.iter().map(|pending| &pending.tensor))
    }

    fn upload(&mut self, memory: &mut Memory) -> Result<()> {
        let (false, Some(checkpoint)) = (self.resident, &self.checkpoint) else { return Ok(()) };
        let tensors = || self.pending.iter().map(|pending| &pending.tensor);
        memory
            .allocate_packed(tensors(), Purpose::Weights)
            .inspect_err(|_| memory.release_packed(tensors()))?;
        self.resident = true;
        for pending in &self.pending {
            pending.write(checkpoint, &mut |offset, bytes| memory.write(&pending.tensor, offset, bytes))?;
        }
        memory.flush()
    }

    fn free(&mut self, memory: &mut Memory) {
        if self.resident {
            memory.release_packed(self.pending.iter().map(|pending| &pending.tensor));
            self.resident = false;
        }
    }
}

/// The weights of all networks.
#[derive(Debug)]
pub(super) struct ModelWeights {
    pub(super) networks: Vec<Stored>,
    low_memory: bool,
}

impl ModelWeights {
    /// Weights that are uploaded now, or with `low_memory` only while they are needed.
    pub(super) fn new(mut networks: Vec<Stored>, low_memory: bool, memory: &mut Memory) -> Result<Self> {
        if !low_memory {
            for network in &mut networks {
                network.upload(memory)?;
                network.checkpoint = None;
            }
        }
        Ok(Self { networks, low_memory })
    }

    /// Whether a run keeps only the weights of its present stage on the device.
    pub(super) fn are_staged(&self) -> bool {
        self.low_memory
    }

    /// Frees what a stage does not read, then uploads what it does.
    pub(super) fn keep_only(&mut self, stage: Stage, memory: &mut Memory) -> Result<()> {
        if !self.low_memory {
            return Ok(());
        }
        let (needed, other): (Vec<_>, Vec<_>) =
            self.networks.iter_mut().partition(|network| stage.reads(network.part));
        other.into_iter().for_each(|network| network.free(memory));
        memory.flush()?;
        needed.into_iter().try_for_each(|network| network.upload(memory))
    }

    /// Frees everything, where a run goes in stages.
    pub(super) fn free(&mut self, memory: &mut Memory) {
        if self.low_memory {
            self.networks.iter_mut().for_each(|network| network.free(memory));
        }
    }
}

impl Stage {
    /// Whether the weights of a part are on the device in this stage.
    pub(super) fn reads(self, part: Part) -> bool {
        match self {
            Self::Whole => true,
            Self::Text => part == Part::Text,
            Self::Denoising => part == Part::Network,
            Self::Decoding => part == Part::Decoder,
        }
    }
}
