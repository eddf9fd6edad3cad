//! The weights of a model: where they come from, and which of them are on the device.

use std::collections::BTreeSet;

use super::LoadOptions;
use super::recorded::{Recorded, Stage};
use super::streaming::{NetworkCall, Streaming};
use crate::error::Result;
use crate::gpu::{Executor, Memory, Play, Program, Purpose, packed_bytes};
use crate::weights::{Changes, Checkpoint, Network, Pending, write_all};

/// The part of a run that reads a network's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Text encoders.
    Text,
    /// The U-Net, and a table of classes, which is small.
    Network,
    /// The decoder.
    Decoder,
    /// The encoder of pictures, whose weights are on the device only while it runs.
    Encoder,
}

/// When weights are on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Residency {
    /// From loading on.
    Whole,
    /// In the stages of a run that read them.
    Staged,
    /// Those of the U-Net a part at a time, in every call, in a window of about so many bytes; the others as in
    /// [`Staged`](Self::Staged).
    Streamed { window: u64 },
}

impl Residency {
    pub(super) fn of(options: &LoadOptions) -> Self {
        match options {
            LoadOptions { stream_weights: Some(window), .. } => Self::Streamed { window: *window },
            LoadOptions { low_memory: true, .. } => Self::Staged,
            _ => Self::Whole,
        }
    }

    /// Whether a run keeps only the weights of its present stage on the device.
    pub(super) fn is_staged(self) -> bool {
        self != Self::Whole
    }
}

/// The weights of one network.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) part: Part,
    /// The first part of their labels.
    pub(super) name: String,
    /// What LoRAs know it as, if they can change it.
    network: Option<Network>,
    checkpoint: Option<Checkpoint>,
    pending: Vec<Pending>,
    resident: bool,
}

impl Stored {
    pub(super) fn new(part: Part, name: &str, checkpoint: Checkpoint, pending: Vec<Pending>) -> Self {
        let (name, checkpoint) = (name.to_owned(), Some(checkpoint));
        Self { part, name, network: None, checkpoint, pending, resident: false }
    }

    /// The same, of a network that LoRAs can change.
    pub(super) fn changeable(self, network: Network) -> Self {
        Self { network: Some(network), ..self }
    }

    /// Packs and uploads everything that is made of these tensors of the file; what is not on the device now will be
    /// made of them later.
    fn rewrite(&self, names: &BTreeSet<String>, memory: &mut Memory) -> Result<()> {
        let (true, Some(checkpoint)) = (self.resident, &self.checkpoint) else { return Ok(()) };
        let pending: Vec<_> = self.pending.iter().filter(|pending| pending.reads_one_of(names)).collect();
        write_all(&pending, checkpoint, &mut |tensor, offset, bytes| memory.write(tensor, offset, bytes))
    }

    /// The tensors that layers hold.
    pub(super) fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Where their values come from.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
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
        let pending: Vec<_> = self.pending.iter().collect();
        write_all(&pending, checkpoint, &mut |tensor, offset, bytes| memory.write(tensor, offset, bytes))?;
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
    pub(super) residency: Residency,
    /// What comes and goes in the present stage.
    streaming: Option<Streaming>,
}

impl ModelWeights {
    /// Weights that are uploaded now, or only while they are needed.
    pub(super) fn new(mut networks: Vec<Stored>, residency: Residency, memory: &mut Memory) -> Result<Self> {
        if !residency.is_staged() {
            for network in networks.iter_mut().filter(|network| network.part != Part::Encoder) {
                network.upload(memory)?;
                if network.network.is_none() {
                    network.checkpoint = None;
                }
            }
        }
        Ok(Self { networks, residency, streaming: None })
    }

    /// The networks that LoRAs can change, with their files.
    pub(super) fn changeable(&self) -> Vec<(Network, &Checkpoint)> {
        let networks = self.networks.iter();
        networks.filter_map(|stored| Some((stored.network?, stored.checkpoint.as_ref()?))).collect()
    }

    /// Puts changes in the place of those of each changeable network; those that were there.
    pub(super) fn exchange(&mut self, changes: Vec<Changes>) -> Vec<Changes> {
        let networks = self.networks.iter_mut().filter(|stored| stored.network.is_some());
        let files = networks.filter_map(|stored| stored.checkpoint.as_mut());
        files.zip(changes).map(|(file, changes)| file.change(changes)).collect()
    }

    /// Uploads what is made of these tensors of each changeable network, if the network is on the device.
    pub(super) fn rewrite(&self, affected: &[BTreeSet<String>], memory: &mut Memory) -> Result<()> {
        let networks = self.networks.iter().filter(|stored| stored.network.is_some());
        for (stored, names) in networks.zip(affected) {
            stored.rewrite(names, memory)?;
        }
        memory.flush()
    }

    /// Whether a run keeps only the weights of its present stage on the device.
    pub(super) fn are_staged(&self) -> bool {
        self.residency.is_staged()
    }

    /// Frees what a stage of a run does not read, then uploads what it does, or makes room for what will come and go.
    pub(super) fn enter(&mut self, stage: Stage, recorded: &Recorded, memory: &mut Memory) -> Result<()> {
        let (Residency::Streamed { window }, Stage::Denoising) = (self.residency, stage) else {
            return self.keep_only(stage, memory);
        };
        self.free(memory);
        memory.flush()?;
        let streaming = Streaming::new(recorded, &self.networks, window);
        let begun = streaming.begin(&self.networks, memory);
        begun.inspect_err(|_| streaming.end(&self.networks, memory))?;
        self.streaming = Some(streaming);
        Ok(())
    }

    /// Frees what is not on the device in a stage, then uploads what is.
    pub(super) fn keep_only(&mut self, stage: Stage, memory: &mut Memory) -> Result<()> {
        let staged = self.are_staged();
        self.end_streaming(memory);
        let (needed, other): (Vec<_>, Vec<_>) =
            self.networks.iter_mut().partition(|network| stage.holds(network.part, staged));
        other.into_iter().for_each(|network| network.free(memory));
        memory.flush()?;
        needed.into_iter().try_for_each(|network| network.upload(memory))
    }

    /// Frees what is on the device only during a run.
    pub(super) fn free(&mut self, memory: &mut Memory) {
        self.end_streaming(memory);
        let staged = self.are_staged();
        let temporary = self.networks.iter_mut().filter(|network| staged || network.part == Part::Encoder);
        temporary.for_each(|network| network.free(memory));
    }

    fn end_streaming(&mut self, memory: &mut Memory) {
        if let Some(streaming) = self.streaming.take() {
            streaming.end(&self.networks, memory);
        }
    }

    /// Plays a recording of the stage of denoising; `starts` tells where its commands are in the program, if there are
    /// others between them.
    pub(super) fn play(
        &mut self,
        played: NetworkCall,
        program: &Program,
        starts: Option<&[usize]>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Play> {
        match &mut self.streaming {
            Some(streaming) => streaming.play((played, starts), program, &self.networks, memory, executor),
            None => executor.play(program),
        }
    }
}

impl Stage {
    /// Whether the weights of a part are on the device in this stage, of a run that goes in stages or does not.
    pub(super) fn holds(self, part: Part, staged: bool) -> bool {
        match self {
            Self::Encoding => part == Part::Encoder || !staged,
            Self::Whole => part != Part::Encoder,
            Self::Text => part == Part::Text,
            Self::Denoising => part == Part::Network,
            Self::Decoding => part == Part::Decoder,
        }
    }
}
