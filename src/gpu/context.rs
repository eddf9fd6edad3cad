//! Adapter, device, limits, and how the driver's errors come back.

use std::sync::{Arc, Mutex, PoisonError};

use wgpu::{Backend, DeviceType, Features};

use super::choices::{Choices, DeviceClass, DeviceFacts, Family};
use crate::error::{Error, Result};

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

/// One adapter with its device and queue.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    description: AdapterDescription,
    features: Features,
    limits: wgpu::Limits,
    class: DeviceType,
    subgroup_size: Option<u32>,
    family: Family,
    fault: Arc<Mutex<Option<Error>>>,
}

/// The environment variable that overrules the choice of kernels: `tiled` or `broadcast`.
const FAMILY_VARIABLE: &str = "DEEPCACHE_FAMILY";

/// The features that are taken when the adapter has them. None is required.
const OPTIONAL: Features = Features::SHADER_F16
    .union(Features::SUBGROUP)
    .union(Features::IMMEDIATES)
    .union(Features::TIMESTAMP_QUERY)
    .union(Features::PIPELINE_CACHE);

fn adapters() -> Vec<wgpu::Adapter> {
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

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
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

fn binding_limit(limits: &wgpu::Limits) -> u64 {
    limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
}

/// The adapters of this machine, the preferred one first.
#[must_use]
pub fn list_adapters() -> Vec<AdapterDescription> {
    adapters().iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect()
}

impl Gpu {
    /// Opens an adapter: the preferred one, or the one that `wanted` names by its index in
    /// [`list_adapters`] or by a part of its name (case does not matter).
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none or none matches, [`Error::Device`] if the driver refuses.
    pub fn open(wanted: Option<&str>) -> Result<Self> {
        let adapters = adapters();
        let descriptions: Vec<_> =
            adapters.iter().enumerate().map(|(index, adapter)| describe(index, adapter)).collect();
        let position = match wanted {
            None => descriptions.first().map(|_| 0),
            Some(wanted) => choose(&descriptions, wanted),
        };
        let Some(position) = position else {
            return Err(Error::NoAdapter {
                wanted: wanted.map(str::to_owned),
                found: descriptions.iter().map(ToString::to_string).collect(),
            });
        };
        Self::from_adapter(&adapters[position], descriptions[position].clone())
    }

    fn from_adapter(adapter: &wgpu::Adapter, description: AdapterDescription) -> Result<Self> {
        let features = adapter.features() & OPTIONAL;
        let limits = adapter.limits();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("deepcache"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..wgpu::DeviceDescriptor::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|error| Error::device(format!("opening {}", description.name), error))?;

        let fault: Arc<Mutex<Option<Error>>> = Arc::default();
        let sink = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error| keep_first(&sink, from_wgpu("running", error))));
        let sink = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed || !message.is_empty() {
                let lost = Error::DeviceLost { message: format!("{reason:?}: {message}") };
                *sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(lost);
            }
        });
        let info = adapter.get_info();
        let class = info.device_type;
        let fixed = info.subgroup_min_size == info.subgroup_max_size;
        let subgroup_size =
            (features.contains(Features::SUBGROUP) && fixed).then_some(info.subgroup_min_size);
        let family = Family::default();
        let mut gpu =
            Self { device, queue, description, features, limits, class, subgroup_size, family, fault };
        gpu.family = gpu.choose_family()?;
        Ok(gpu)
    }

    /// The kernels that suit this adapter.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// What kernels are chosen by, before anything is tuned.
    #[must_use]
    pub fn choices(&self) -> Choices {
        Choices { family: self.family, facts: self.facts(), ..Choices::default() }
    }

    fn facts(&self) -> DeviceFacts {
        let class = match self.class {
            DeviceType::DiscreteGpu | DeviceType::VirtualGpu | DeviceType::Other => DeviceClass::Discrete,
            DeviceType::IntegratedGpu => DeviceClass::Integrated,
            DeviceType::Cpu => DeviceClass::Software,
        };
        let limits = &self.limits;
        DeviceFacts {
            class,
            workgroup_lanes: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            subgroups: self.features.contains(Features::SUBGROUP),
        }
    }

    /// Chooses the family; the environment variable `DEEPCACHE_FAMILY` overrules the choice.
    fn choose_family(&self) -> Result<Family> {
        let suitable =
            if self.is_software() { [Family::Broadcast, Family::Tiled] } else { [Family::Tiled; 2] };
        let own = suitable.into_iter().find(|family| self.supports(*family)).unwrap_or_default();
        let forced = match std::env::var(FAMILY_VARIABLE) {
            Err(_) => return Ok(own),
            Ok(name) => match name.as_str() {
                "" => return Ok(own),
                "tiled" => Family::Tiled,
                "broadcast" => Family::Broadcast,
                other => {
                    let problem = format!("\"{other}\" is not tiled or broadcast");
                    return Err(Error::option(FAMILY_VARIABLE, problem));
                }
            },
        };
        if self.supports(forced) {
            return Ok(forced);
        }
        let problem =
            format!("{} cannot run this family: it needs subgroups of 8 lanes", self.description.name);
        Err(Error::option(FAMILY_VARIABLE, problem))
    }

    /// Whether the adapter can run a family: `broadcast` needs subgroups of exactly 8 lanes.
    #[must_use]
    pub fn supports(&self, family: Family) -> bool {
        match family {
            Family::Tiled => true,
            Family::Broadcast => self.subgroup_size == Some(8),
        }
    }

    /// The adapter in words.
    #[must_use]
    pub fn description(&self) -> &AdapterDescription {
        &self.description
    }

    /// Whether values can be stored as 16-bit floats.
    #[must_use]
    pub fn has_f16(&self) -> bool {
        self.features.contains(Features::SHADER_F16)
    }

    /// Whether the adapter is a program on the CPU, without a watchdog.
    #[must_use]
    pub fn is_software(&self) -> bool {
        self.class == DeviceType::Cpu
    }

    pub(super) fn has_timestamps(&self) -> bool {
        self.features.contains(Features::TIMESTAMP_QUERY)
    }

    /// The largest tensor that can be bound, in bytes.
    #[must_use]
    pub fn binding_limit(&self) -> u64 {
        binding_limit(&self.limits)
    }

    pub(super) fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Loses the device on purpose, as a driver reset would; for tests of recovery.
    pub fn destroy(&self) {
        self.device.destroy();
        keep_first(&self.fault, Error::DeviceLost { message: "destroyed".to_owned() });
    }

    /// Runs `work` and returns the error that the driver raised in it, if any.
    pub(super) fn guarded<T>(&self, action: &str, bytes: u64, work: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = work();
        let internal = pollster::block_on(internal.pop());
        let validation = pollster::block_on(validation.pop());
        let memory = pollster::block_on(memory.pop());
        if memory.is_some() {
            return Err(Error::OutOfMemory { what: action.to_owned(), bytes });
        }
        self.check()?;
        match validation.or(internal) {
            Some(error) => Err(from_wgpu(action, error)),
            None => Ok(value),
        }
    }

    /// The error that came back outside any scope, if any.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`] or [`Error::Device`].
    pub fn check(&self) -> Result<()> {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault.as_ref() {
            None => Ok(()),
            // A lost device stays lost: every later call says so again.
            Some(Error::DeviceLost { message }) => Err(Error::DeviceLost { message: message.clone() }),
            Some(_) => Err(fault.take().unwrap_or(Error::device("running", "unknown"))),
        }
    }

    /// Waits until everything that was submitted up to `submission` is done.
    pub(super) fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let poll = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        let outcome = self.device.poll(poll);
        self.check()?;
        outcome.map(|_| ()).map_err(|error| Error::device("waiting for the GPU", error))
    }
}

fn keep_first(sink: &Mutex<Option<Error>>, error: Error) {
    sink.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

fn choose(descriptions: &[AdapterDescription], wanted: &str) -> Option<usize> {
    if let Ok(index) = wanted.parse::<usize>() {
        return descriptions.get(index).map(|description| description.index);
    }
    let wanted = wanted.to_lowercase();
    descriptions.iter().position(|description| description.name.to_lowercase().contains(&wanted))
}

fn from_wgpu(action: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: action.to_owned(), bytes: 0 },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::device(action, description)
        }
    }
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
