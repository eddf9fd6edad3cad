//! Weights of the U-Net that come and go while it runs: a window of memory in which they take turns.

use std::collections::{BTreeMap, BTreeSet};

use super::recorded::Recorded;
use super::residency::{Part, Stored};
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, Play, Program, Purpose, Segments, packed_bytes, plan_segments};
use crate::tensor::{External, Tensor};
use crate::weights::{Pending, write_all};

/// Smaller tensors, norms and biases, stay on the device, unless the window is smaller than sixteen of them.
const SMALL: u64 = 64 << 10;

/// What shallow calls read stays on the device if it is no more than so many windows, so that they wait for nothing.
const SHALLOW: u64 = 2;

/// Which weights of the U-Net take turns, and which stay on the device.
#[derive(Debug)]
pub(super) struct Streaming {
    segments: Segments,
    /// Network and position in its list of every tensor of every segment.
    places: Vec<Vec<[usize; 2]>>,
    /// The same of those that stay.
    stays: Vec<[usize; 2]>,
    /// What is in the window.
    present: Option<usize>,
}

/// What the U-Net's weights are read for, in the order in which [`Streaming`] knows the recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetworkCall {
    Condition,
    Full,
    Shallow,
}

impl Streaming {
    /// Plans a run with a window of about so many bytes: nothing is allocated.
    pub(super) fn new(recorded: &Recorded, networks: &[Stored], window: u64) -> Self {
        let network = [&recorded.condition, &recorded.full];
        let recordings: Vec<&Recording> = network.into_iter().chain(&recorded.shallow).collect();
        let mut positions = BTreeMap::new();
        for (number, network) in
            networks.iter().enumerate().filter(|(_, network)| network.part == Part::Network)
        {
            for (position, pending) in network.pending().iter().enumerate() {
                if let Some(external) = pending.tensor.as_external() {
                    positions.insert(external.id(), [number, position]);
                }
            }
        }
        let is_weight = |external: &External| positions.contains_key(&external.id());
        let shallow = recorded.shallow.as_ref().map(|shallow| read(shallow, &is_weight)).unwrap_or_default();
        let bytes: u64 = shallow.values().sum();
        let keeps_shallow = bytes <= SHALLOW.saturating_mul(window);
        let small = SMALL.min(window / 16);
        let comes_and_goes = |external: &External| {
            is_weight(external)
                && external.bytes() >= small
                && !(keeps_shallow && shallow.contains_key(&external.id()))
        };
        let segments = plan_segments(&recordings, &comes_and_goes, window);
        let moving: BTreeSet<u64> = segments.tensors.iter().flatten().map(|(id, _)| *id).collect();
        let places = segments.tensors.iter();
        let places = places.map(|segment| segment.iter().map(|(id, _)| positions[id]).collect()).collect();
        let mut stays: Vec<_> =
            positions.iter().filter(|(id, _)| !moving.contains(id)).map(|(_, place)| *place).collect();
        stays.sort_unstable();
        Self { segments, places, stays, present: None }
    }

    fn staying<'a>(&'a self, networks: &'a [Stored]) -> impl Iterator<Item = &'a Pending> {
        self.stays.iter().map(|&[network, position]| &networks[network].pending()[position])
    }

    /// The tensors that take turns, with their offsets.
    fn moving<'a>(&'a self, networks: &'a [Stored]) -> impl Iterator<Item = (&'a Tensor, u64)> {
        let tensors = self
            .places
            .iter()
            .flatten()
            .map(|&[network, position]| &networks[network].pending()[position].tensor);
        tensors.zip(self.segments.tensors.iter().flatten().map(|(_, offset)| *offset))
    }

    /// Bytes on the device.
    pub(super) fn bytes(&self, networks: &[Stored]) -> u64 {
        packed_bytes(self.staying(networks).map(|pending| &pending.tensor)) + self.segments.window
    }

    /// Allocates the window, and uploads what stays.
    pub(super) fn begin(&self, networks: &[Stored], memory: &mut Memory) -> Result<()> {
        memory.allocate_packed(self.staying(networks).map(|pending| &pending.tensor), Purpose::Weights)?;
        if self.segments.window > 0 {
            memory.allocate_window(self.segments.window, self.moving(networks), Purpose::Weights)?;
        }
        self.upload(&self.stays, networks, memory)?;
        memory.flush()
    }

    /// Gives all of it back.
    pub(super) fn end(&self, networks: &[Stored], memory: &mut Memory) {
        memory.release_packed(self.staying(networks).map(|pending| &pending.tensor));
        memory.release_packed(self.moving(networks).map(|(tensor, _)| tensor));
    }

    fn upload(&self, places: &[[usize; 2]], networks: &[Stored], memory: &mut Memory) -> Result<()> {
        for (number, network) in networks.iter().enumerate() {
            let places = places.iter().filter(|[found, _]| *found == number);
            let pending: Vec<_> = places.map(|&[_, position]| &network.pending()[position]).collect();
            let Some(checkpoint) = network.checkpoint() else { continue };
            write_all(&pending, checkpoint, &mut |tensor, offset, bytes| {
                memory.write(tensor, offset, bytes)
            })?;
        }
        Ok(())
    }

    /// Plays a recording, and brings the weights of its parts before each.
    pub(super) fn play(
        &mut self,
        (played, starts): (NetworkCall, Option<&[usize]>),
        program: &Program,
        networks: &[Stored],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Play> {
        let mut play = Play::default();
        for (range, segment) in &self.segments.parts[played as usize] {
            if let Some(segment) = segment.filter(|segment| self.present != Some(*segment)) {
                // The queue copies after what was submitted before, which may still read what is there.
                self.present = None;
                self.upload(&self.places[segment], networks, memory)?;
                self.present = Some(segment);
            }
            let range = starts.map_or(range.clone(), |starts| starts[range.start]..starts[range.end]);
            play = play.join(executor.play_part(program, range)?);
        }
        Ok(play)
    }
}

/// The tensors that a recording reads, for which a condition holds, with their sizes.
fn read(recording: &Recording, wanted: &dyn Fn(&External) -> bool) -> BTreeMap<u64, u64> {
    let bindings = recording.commands().iter().flat_map(|command| &command.bindings);
    let externals = bindings.filter_map(|binding| binding.tensor.as_external());
    externals.filter(|external| wanted(external)).map(|external| (external.id(), external.bytes())).collect()
}
