//! The adapters of this machine: which there are, and which is wanted.

use wgpu::{Backend, DeviceType, Features};

/// An adapter, as a person chooses one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterDescription {
    /// Its place in the list; `--device INDEX`.
    pub index: usize,
    /// Name of the device.
    pub name: String,
    /// Graphics interface: `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `other`.
    pub kind: &'static str,
    /// Whether values can be stored as 16-bit floats.
    pub f16: bool,
    /// The largest tensor that it can bind, in bytes.
    pub binding_limit: u64,
}

impl std::fmt::Display for AdapterDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({}, {}, {}", self.index, self.name, self.kind, self.backend, self.driver)?;
        f.write_str(if self.f16 { ", f16)" } else { ", no f16)" })
    }
}

pub(super) fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    adapters.sort_by_key(|adapter| preference(&adapter.get_info()));
    adapters
}

/// High-performance hardware first, software last; Vulkan and Metal before DX12.
fn preference(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    };
    (kind, u8::from(info.backend == Backend::Dx12))
}

pub(super) fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let limits = adapter.limits();
    AdapterDescription {
        index,
        name: info.name.clone(),
        backend: info.backend.to_str().to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: match info.device_type {
            DeviceType::DiscreteGpu => "discrete GPU",
            DeviceType::IntegratedGpu => "integrated GPU",
            DeviceType::VirtualGpu => "virtual GPU",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        },
        f16: adapter.features().contains(Features::SHADER_F16),
        binding_limit: binding_limit(&limits),
    }
}

pub(super) fn binding_limit(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// The adapters of this machine, the preferred one first.
#[must_use]
pub fn list_adapters() -> Vec<AdapterDescription> {
    adapters().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

/// The position of the adapter that is wanted, by its index or a part of its name.
pub(super) fn choose(descriptions: &[AdapterDescription], wanted: &str) -> Option<usize> {
    if let Ok(index) = wanted.parse::<usize>() {
        return descriptions.get(index).map(|description| description.index);
    }
    let wanted = wanted.to_lowercase();
    descriptions.iter().position(|description| description.name.to_lowercase().contains(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(index: usize, name: &str) -> AdapterDescription {
        AdapterDescription {
            index,
            name: name.to_owned(),
            backend: "vulkan".to_owned(),
            driver: "driver 1".to_owned(),
            kind: "discrete GPU",
            f16: true,
            binding_limit: 1 << 27,
        }
    }

    #[test]
    fn adapters_are_chosen_by_index_or_part_of_the_name() {
        let all = [description(0, "Radeon RX"), description(1, "llvmpipe (LLVM 15)")];
        assert_eq!(choose(&all, "1"), Some(1));
        assert_eq!(choose(&all, "LLVMPIPE"), Some(1));
        assert_eq!(choose(&all, "2"), None);
        assert_eq!(choose(&all, "geforce"), None);
    }
}
