//! A recording made ready for a device: pipelines, bind groups, uniforms.

use std::sync::Arc;

use super::context::Gpu;
use super::memory::Memory;
use super::pipelines::{Pipeline, Pipelines};
use super::recording::{Command, Cost, Recording};
use crate::error::Result;
use crate::tensor::{Storage, Tensor};

/// A recording with its pipelines, bind groups and slots: ready to be played any number of times.
#[derive(Debug)]
pub struct Program {
    pub(super) name: String,
    pub(super) dispatches: Vec<Prepared>,
    cost: Cost,
}

#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) label: String,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) bind_group: wgpu::BindGroup,
    pub(super) grid: [u32; 3],
    pub(super) cost: Cost,
}

impl Program {
    /// Number of dispatches of one play.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    /// Label and cost of every dispatch, in order.
    pub fn costs(&self) -> impl Iterator<Item = (&str, Cost)> {
        self.dispatches.iter().map(|dispatch| (dispatch.label.as_str(), dispatch.cost))
    }

    /// The cost of one play.
    #[must_use]
    pub fn cost(&self) -> Cost {
        self.cost
    }
}

/// A buffer for transient tensors.
pub(super) fn slot(gpu: &Gpu, index: usize, bytes: u64) -> Result<wgpu::Buffer> {
    let label = format!("slot {index}");
    let size = bytes.next_multiple_of(4);
    let usage = wgpu::BufferUsages::STORAGE;
    let descriptor = wgpu::BufferDescriptor { label: Some(&label), size, usage, mapped_at_creation: false };
    gpu.guarded("activations", size, || gpu.device.create_buffer(&descriptor))
}

/// What the tensors of a recording are bound to.
pub(super) struct Binder<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) memory: &'a Memory,
    pub(super) recording: &'a Recording,
    pub(super) assignment: &'a [Option<usize>],
    pub(super) slots: &'a [wgpu::Buffer],
}

impl Binder<'_> {
    pub(super) fn program(&self, pipelines: &Pipelines) -> Result<Program> {
        let commands = self.recording.commands();
        let params = self.params()?;
        let mut dispatches = Vec::with_capacity(commands.len());
        for (command, &(offset, size)) in commands.iter().zip(&params.windows) {
            let pipeline = pipelines.get(command);
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: window(&params.buffer, offset, size) }];
            for (index, binding) in (1..).zip(&command.bindings) {
                let resource = self.resource(command, &binding.tensor);
                entries.push(wgpu::BindGroupEntry { binding: index, resource });
            }
            let descriptor = wgpu::BindGroupDescriptor {
                label: Some(&command.label),
                layout: &pipeline.layout,
                entries: &entries,
            };
            let bind_group =
                self.gpu.guarded(&command.label, 0, || self.gpu.device.create_bind_group(&descriptor))?;
            dispatches.push(Prepared {
                label: command.label.clone(),
                pipeline,
                bind_group,
                grid: command.grid,
                cost: command.cost,
            });
        }
        Ok(Program { name: self.recording.name().to_owned(), dispatches, cost: self.recording.cost() })
    }

    /// Where the values of a tensor lie: in a slot, or in memory that outlives the recording.
    fn resource(&self, command: &Command, tensor: &Tensor) -> wgpu::BindingResource<'_> {
        let size = tensor.bytes().next_multiple_of(4);
        let external = match tensor.storage() {
            Storage::External(external) => external,
            Storage::Transient { index, .. } => match &self.recording.transients()[*index].place {
                Some(external) => external,
                None => {
                    let slot = self.assignment[*index].expect("a used tensor has a slot");
                    return window(&self.slots[slot], tensor.offset(), size);
                }
            },
        };
        let place = self.memory.place_of(external).unwrap_or_else(|| {
            panic!("{}: \"{}\" is allocated before it is used", command.label, external.label())
        });
        window(&place.buffer, place.offset + tensor.offset(), size)
    }

    /// All uniforms of a recording in one buffer: nothing in them changes between plays.
    fn params(&self) -> Result<Params> {
        let alignment = u64::from(self.gpu.limits().min_uniform_buffer_offset_alignment);
        let mut bytes = Vec::new();
        let mut windows = Vec::with_capacity(self.recording.commands().len());
        for command in self.recording.commands() {
            let offset = (bytes.len() as u64).next_multiple_of(alignment);
            bytes.resize(usize::try_from(offset).unwrap_or(usize::MAX), 0);
            bytes.extend_from_slice(&command.params);
            let size = (command.params.len() as u64).next_multiple_of(16).max(16);
            bytes.resize(usize::try_from(offset + size).unwrap_or(usize::MAX), 0);
            windows.push((offset, size));
        }
        bytes.resize(bytes.len().max(16), 0);
        let label = format!("{} params", self.recording.name());
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let size = bytes.len() as u64;
        let descriptor =
            wgpu::BufferDescriptor { label: Some(&label), size, usage, mapped_at_creation: false };
        let buffer = self.gpu.guarded(&label, size, || self.gpu.device.create_buffer(&descriptor))?;
        self.gpu.queue.write_buffer(&buffer, 0, &bytes);
        Ok(Params { buffer, windows })
    }
}

struct Params {
    buffer: wgpu::Buffer,
    windows: Vec<(u64, u64)>,
}

fn window(buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset,
        size: wgpu::BufferSize::new(size.max(4)),
    })
}
