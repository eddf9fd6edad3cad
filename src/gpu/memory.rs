//! Device memory that outlives recordings: weights, persistent tensors, kept features.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::context::Gpu;
use super::recording::Recording;
use crate::error::{Error, Result};
use crate::tensor::{External, Tensor};

/// What a piece of memory is for; the report is by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Weights: written once, read only.
    Weights,
    /// Latents, scheduler history, prompt keys and values, time embeddings.
    Persistent,
    /// DeepCache's kept feature.
    Cache,
}

/// Offsets of windows in a shared buffer: the largest alignment that any adapter asks for.
const ALIGNMENT: u64 = 256;

/// The largest shared buffer for weights.
const SHARED_BUFFER: u64 = 256 << 20;

/// Bytes that are handed to the queue before it is made to copy them.
const UPLOAD_WINDOW: u64 = 64 << 20;

/// What helps where one tensor is too large; pictures are made one by one, so that their number does not matter.
const ADVICE: &str = "use a smaller picture, or 16-bit storage";

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) buffer: wgpu::Buffer,
    pub(super) offset: u64,
    purpose: Purpose,
}

/// Device memory by tensor.
#[derive(Debug)]
pub struct Memory {
    gpu: Arc<Gpu>,
    places: HashMap<u64, Place>,
    sizes: HashMap<Purpose, u64>,
    waiting: u64,
}

impl Memory {
    /// No memory yet.
    #[must_use]
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Self { gpu, places: HashMap::new(), sizes: HashMap::new(), waiting: 0 }
    }

    /// Bytes allocated for a purpose.
    #[must_use]
    pub fn bytes(&self, purpose: Purpose) -> u64 {
        self.sizes.get(&purpose).copied().unwrap_or(0)
    }

    /// Gives each tensor a buffer of its own, filled with zeros.
    ///
    /// # Errors
    /// [`Error::Limit`] if a tensor is too large to bind, [`Error::OutOfMemory`].
    pub fn allocate<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = &'a Tensor>,
        purpose: Purpose,
    ) -> Result<()> {
        for tensor in tensors {
            let bytes = self.bindable(tensor)?;
            let buffer = self.buffer(external(tensor).label(), bytes, purpose)?;
            self.places.insert(external(tensor).id(), Place { buffer, offset: 0, purpose });
        }
        Ok(())
    }

    /// Gives the tensors windows in few large buffers. Meant for what is only read: a barrier, and the rule
    /// against reading and writing one buffer in one dispatch, are per buffer.
    ///
    /// # Errors
    /// As [`Memory::allocate`].
    pub fn allocate_packed<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = &'a Tensor>,
        purpose: Purpose,
    ) -> Result<()> {
        let most = SHARED_BUFFER.min(self.gpu.limits().max_buffer_size);
        let mut group: Vec<(u64, u64)> = Vec::new();
        let mut size = 0;
        for tensor in tensors {
            let bytes = self.bindable(tensor)?.next_multiple_of(ALIGNMENT);
            if size + bytes > most && !group.is_empty() {
                self.place_group(&group, size, purpose)?;
                group.clear();
                size = 0;
            }
            group.push((external(tensor).id(), size));
            size += bytes;
        }
        if group.is_empty() { Ok(()) } else { self.place_group(&group, size, purpose) }
    }

    fn place_group(&mut self, group: &[(u64, u64)], size: u64, purpose: Purpose) -> Result<()> {
        let buffer = self.buffer("weights", size, purpose)?;
        for &(id, offset) in group {
            self.places.insert(id, Place { buffer: buffer.clone(), offset, purpose });
        }
        Ok(())
    }

    /// Checks that the device can bind every tensor of the recordings; allocates nothing.
    ///
    /// # Errors
    /// [`Error::Limit`] naming the first tensor that is too large.
    pub fn check(&self, recordings: &[&Recording]) -> Result<()> {
        let limit = self.gpu.binding_limit();
        for command in recordings.iter().flat_map(|recording| recording.commands()) {
            for (binding, name) in command.bindings.iter().zip(command.shader.bindings) {
                let needed = binding.tensor.bytes();
                if needed > limit {
                    let what = format!("{} ({name} {})", command.label, binding.tensor.shape());
                    return Err(Error::Limit { what, needed, limit, advice: ADVICE });
                }
            }
        }
        Ok(())
    }

    /// Allocates a window of memory in which tensors take turns, each at an offset of its own; they may overlap.
    ///
    /// # Errors
    /// [`Error::Limit`] if a tensor is too large to bind, [`Error::OutOfMemory`].
    pub fn allocate_window<'a>(
        &mut self,
        size: u64,
        tensors: impl IntoIterator<Item = (&'a Tensor, u64)>,
        purpose: Purpose,
    ) -> Result<()> {
        let mut placed = Vec::new();
        for (tensor, offset) in tensors {
            self.bindable(tensor)?;
            placed.push((external(tensor).id(), offset));
        }
        self.place_group(&placed, size, purpose)
    }

    fn bindable(&self, tensor: &Tensor) -> Result<u64> {
        let (needed, limit) = (tensor.bytes(), self.gpu.binding_limit());
        if needed > limit {
            return Err(Error::Limit {
                what: format!("{} {}", external(tensor).label(), tensor.shape()),
                needed,
                limit,
                advice: ADVICE,
            });
        }
        Ok(own_bytes(tensor))
    }

    fn buffer(&mut self, label: &str, size: u64, purpose: Purpose) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = self.gpu.guarded(label, size, || self.gpu.device.create_buffer(&descriptor))?;
        *self.sizes.entry(purpose).or_default() += size;
        Ok(buffer)
    }

    pub(super) fn place_of(&self, external: &External) -> Option<&Place> {
        self.places.get(&external.id())
    }

    fn place(&self, tensor: &Tensor) -> Option<&Place> {
        self.place_of(tensor.as_external()?)
    }

    /// Forgets a tensor of its own buffer, whose memory is given back when nothing uses it.
    pub fn release(&mut self, tensor: &Tensor) {
        if let Some(place) = self.places.remove(&external(tensor).id()) {
            let size = self.sizes.entry(place.purpose).or_default();
            *size = size.saturating_sub(place.buffer.size());
        }
    }

    /// Forgets tensors that share large buffers; a buffer is given back when nothing uses it and all of its tensors
    /// are forgotten.
    pub fn release_packed<'a>(&mut self, tensors: impl IntoIterator<Item = &'a Tensor>) {
        for tensor in tensors {
            let Some(place) = self.places.remove(&external(tensor).id()) else { continue };
            let used = self.places.values().any(|other| other.buffer == place.buffer);
            if !used {
                let size = self.sizes.entry(place.purpose).or_default();
                *size = size.saturating_sub(place.buffer.size());
            }
        }
    }

    /// Writes `data` at `offset` bytes into a tensor. Ordered before the next submission.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other faults of the device.
    ///
    /// # Panics
    /// If the tensor has no memory, or `data` does not fit.
    pub fn write(&mut self, tensor: &Tensor, offset: u64, data: &[u8]) -> Result<()> {
        let place = self.place(tensor).expect("a tensor is allocated before it is written");
        assert!(
            offset + data.len() as u64 <= tensor.bytes(),
            "{:?}: the data fits",
            external(tensor).label()
        );
        let whole = data.len() & !3;
        self.gpu.queue.write_buffer(&place.buffer, place.offset + offset, &data[..whole]);
        if whole < data.len() {
            let mut rest = [0; 4];
            rest[..data.len() - whole].copy_from_slice(&data[whole..]);
            self.gpu.queue.write_buffer(&place.buffer, place.offset + offset + whole as u64, &rest);
        }
        self.waiting += data.len() as u64;
        if self.waiting > UPLOAD_WINDOW {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes the device copy what was written, and waits for it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other faults of the device.
    pub fn flush(&mut self) -> Result<()> {
        self.waiting = 0;
        let submission = self.gpu.queue.submit([]);
        self.gpu.wait(Some(submission))
    }

    /// Copies a tensor into another of the same size, after everything submitted so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other faults of the device.
    ///
    /// # Panics
    /// If a tensor has no memory, or they differ in size.
    pub fn copy(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        assert_eq!(from.bytes(), to.bytes(), "a tensor is copied into one of its own size");
        let place = |tensor| self.place(tensor).expect("a tensor is allocated before it is copied");
        let (from, to, size) = (place(from), place(to), from.bytes().next_multiple_of(4));
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("copy") };
        let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
        encoder.copy_buffer_to_buffer(&from.buffer, from.offset, &to.buffer, to.offset, size);
        self.gpu.queue.submit([encoder.finish()]);
        self.gpu.check()
    }

    /// Asks for the values of a small tensor as they are after everything submitted so far, without waiting.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] and other faults of the device.
    ///
    /// # Panics
    /// If the tensor has no memory.
    pub fn read_later(&self, tensor: &Tensor) -> Result<PendingRead> {
        let place = self.place(tensor).expect("a tensor is allocated before it is read");
        PendingRead::submit(&self.gpu, &place.buffer, place.offset, tensor.bytes().next_multiple_of(4))
    }

    /// Reads a tensor back, after everything submitted so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] and other faults of the device.
    ///
    /// # Panics
    /// If the tensor has no memory.
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        let place = self.place(tensor).expect("a tensor is allocated before it is read");
        let size = tensor.bytes().next_multiple_of(4);
        let mut data = read_buffer(&self.gpu, &place.buffer, place.offset, size)?;
        data.truncate(usize::try_from(tensor.bytes()).unwrap_or(usize::MAX));
        Ok(data)
    }
}

/// Bytes that tensors take in memory of their own: [`Memory::allocate`].
pub fn allocated_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> u64 {
    tensors.into_iter().map(own_bytes).sum()
}

/// Bytes that tensors take in shared buffers: [`Memory::allocate_packed`].
pub fn packed_bytes<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> u64 {
    tensors.into_iter().map(|tensor| own_bytes(tensor).next_multiple_of(ALIGNMENT)).sum()
}

fn own_bytes(tensor: &Tensor) -> u64 {
    tensor.bytes().next_multiple_of(4).max(4)
}

/// Values on their way to the host.
#[derive(Debug)]
pub struct PendingRead {
    gpu: Arc<Gpu>,
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    mapped: Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl PendingRead {
    fn submit(gpu: &Arc<Gpu>, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Self> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let descriptor =
            wgpu::BufferDescriptor { label: Some("readback"), size, usage, mapped_at_creation: false };
        let staging = gpu.guarded("reading back", size, || gpu.device.create_buffer(&descriptor))?;
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("readback") };
        let mut encoder = gpu.device.create_command_encoder(&descriptor);
        encoder.copy_buffer_to_buffer(buffer, offset, &staging, 0, size);
        let submission = gpu.queue.submit([encoder.finish()]);
        let (sender, mapped) = channel();
        staging.slice(..).map_async(wgpu::MapMode::Read, move |outcome| {
            let _ = sender.send(outcome);
        });
        Ok(Self { gpu: Arc::clone(gpu), staging, submission, mapped })
    }

    /// Waits for the values, if they are not there yet.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] and other faults of the device.
    pub fn wait(self) -> Result<Vec<u8>> {
        self.gpu.wait(Some(self.submission))?;
        let failed = |error: &dyn std::fmt::Display| Error::device("reading back", error);
        match self.mapped.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(&error)),
            Err(error) => return Err(failed(&error)),
        }
        let range = self.staging.slice(..).get_mapped_range().map_err(|error| failed(&error))?;
        Ok(range.to_vec())
    }
}

/// Copies a range of a buffer to the host.
pub(super) fn read_buffer(gpu: &Arc<Gpu>, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
    PendingRead::submit(gpu, buffer, offset, size)?.wait()
}

fn external(tensor: &Tensor) -> &External {
    tensor.as_external().expect("only tensors that outlive recordings have memory of their own")
}
