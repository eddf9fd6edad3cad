//! Pipelines and their layouts, each made once.

use std::collections::HashMap;
use std::sync::Arc;

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

/// A pipeline and the layout of its bind group.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

#[derive(Debug, Default)]
pub(super) struct Pipelines {
    made: HashMap<Key, Arc<Pipeline>>,
}

impl Pipelines {
    pub(super) fn count(&self) -> usize {
        self.made.len()
    }

    pub(super) fn get(&mut self, gpu: &Gpu, command: &Command) -> Result<Arc<Pipeline>> {
        let key = Key {
            shader: command.shader.name,
            element: command.element,
            definitions: command.definitions.clone(),
            constants: command.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect(),
        };
        if let Some(pipeline) = self.made.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        if command.element == ElementType::F16 && !gpu.has_f16() {
            return Err(Error::option(
                "dtype",
                "this adapter cannot store 16-bit floats in shaders: use f32",
            ));
        }
        let name = command.shader.name;
        let action = format!("compiling shader {name} ({})", command.element);
        let pipeline = Arc::new(gpu.guarded(&action, 0, || make(gpu, command))?);
        self.made.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }
}

fn make(gpu: &Gpu, command: &Command) -> Pipeline {
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
        cache: None,
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
