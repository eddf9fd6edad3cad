//! Pipelines and their layouts, each made once, many at the same time.

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::context::Gpu;
use super::recording::{Access, Command};
use crate::error::{Error, Result};
use crate::tensor::ElementType;

/// What makes one compiled pipeline differ from another.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    shader: &'static str,
    element: ElementType,
    definitions: Vec<u32>,
    constants: Vec<(&'static str, u64)>,
}

impl Key {
    fn of(command: &Command) -> Self {
        Self {
            shader: command.shader.name,
            element: command.element,
            definitions: command.definitions.clone(),
            constants: command.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect(),
        }
    }
}

/// A pipeline and the layout of its bind group.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    made: HashMap<Key, Arc<Pipeline>>,
    seconds: f64,
}

impl Pipelines {
    pub(super) fn count(&self) -> usize {
        self.made.len()
    }

    /// Seconds that were spent on making them.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Makes what these commands need and is not there yet, on all cores.
    pub(super) fn make<'a>(&mut self, gpu: &Gpu, commands: impl Iterator<Item = &'a Command>) -> Result<()> {
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        for command in commands {
            let key = Key::of(command);
            if !self.made.contains_key(&key) && seen.insert(key.clone()) {
                missing.push((key, command, OnceLock::new()));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((_, command, outcome)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let _ = outcome.set(make(gpu, command));
            }
        };
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(missing.len());
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(work);
            }
            work();
        });
        // The first fault in the order of the commands counts, whichever thread met it first.
        for (key, _, outcome) in missing {
            let pipeline = outcome.into_inner().expect("every index was taken by one of the threads")?;
            self.made.insert(key, Arc::new(pipeline));
        }
        self.seconds += started.elapsed().as_secs_f64();
        Ok(())
    }

    /// A pipeline that was made before.
    ///
    /// # Panics
    /// If it was not.
    pub(super) fn get(&self, command: &Command) -> Arc<Pipeline> {
        Arc::clone(self.made.get(&Key::of(command)).expect("pipelines are made before programs"))
    }
}

fn make(gpu: &Gpu, command: &Command) -> Result<Pipeline> {
    if command.element == ElementType::F16 && !gpu.has_f16() {
        return Err(Error::option("dtype", "this adapter cannot store 16-bit floats in shaders: use f32"));
    }
    let action = format!("compiling shader {} ({})", command.shader.name, command.element);
    // Error scopes belong to a thread, so that each finds its own faults.
    gpu.guarded(&action, 0, || compile(gpu, command))
}

fn compile(gpu: &Gpu, command: &Command) -> Pipeline {
    let name = command.shader.name;
    let text = command.shader.assemble(command.element, &command.definitions);
    let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform)];
    for (index, binding) in (1..).zip(&command.bindings) {
        let read_only = binding.access == Access::Read;
        entries.push(entry(index, wgpu::BufferBindingType::Storage { read_only }));
    }
    let layout = gpu
        .device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(name), entries: &entries });
    let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(name),
        bind_group_layouts: &[Some(&layout)],
        ..wgpu::PipelineLayoutDescriptor::default()
    });
    let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(name),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &command.constants,
            zero_initialize_workgroup_memory: false,
        },
        cache: gpu.pipeline_cache(),
    });
    Pipeline { pipeline, layout }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
