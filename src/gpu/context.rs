//! Device, limits, and how the driver's errors come back.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use wgpu::{DeviceType, Features};

use super::adapters::{AdapterDescription, adapters, binding_limit, choose, describe};
use super::choices::{Choices, DeviceClass, DeviceFacts, Family, Fragments};
use super::cooperative::{self, Facts};
use super::environment::Environment;
use super::pipeline_cache::PipelineCache;
use crate::error::{Error, Result};

/// One adapter with its device and queue.
#[derive(Debug)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    description: AdapterDescription,
    features: Features,
    limits: wgpu::Limits,
    subgroup_size: Option<u32>,
    cooperative: std::result::Result<Fragments, String>,
    family: Family,
    fault: Arc<Mutex<Option<Error>>>,
    info: wgpu::AdapterInfo,
    compiled: OnceLock<PipelineCache>,
    /// Bytes that buffers may hold together.
    budget: AtomicU64,
}

/// The features that are taken when the adapter has them. None is required.
const OPTIONAL: Features = Features::SHADER_F16
    .union(Features::SUBGROUP)
    .union(Features::IMMEDIATES)
    .union(Features::TIMESTAMP_QUERY)
    .union(Features::PIPELINE_CACHE);

impl Gpu {
    /// Opens an adapter: the preferred one, or the one that `wanted` names by its index in
    /// [`list_adapters`](super::list_adapters) or by a part of its name (case does not matter).
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none or none matches, [`Error::Device`] if the driver refuses.
    pub fn open(wanted: Option<&str>) -> Result<Self> {
        Self::open_limited(wanted, u64::MAX)
    }

    /// As [`Gpu::open`], for a device that binds tensors of up to `binding_limit` bytes, or what the adapter allows
    /// where that is less: what runs there runs on every adapter with such a limit.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub fn open_limited(wanted: Option<&str>, binding_limit: u64) -> Result<Self> {
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
        let (adapter, description) = (&adapters[position], descriptions[position].clone());
        let environment = Environment::read()?;
        let software = adapter.get_info().device_type == DeviceType::Cpu;
        let proven = environment
            .wants_cooperative(software)
            .and_then(|()| Facts::of(adapter).fragments(environment.edge))
            .and_then(|fragments| {
                Self::with_cooperative(adapter, description.clone(), fragments, binding_limit)
            });
        let mut gpu = match proven {
            Ok(gpu) => gpu,
            Err(reason) => Self::from_adapter(adapter, description, Err(reason), binding_limit)?,
        };
        gpu.family = environment.family(&gpu)?;
        Ok(gpu)
    }

    /// Opens an adapter with cooperative matrices and tests them; what is wrong with them otherwise.
    fn with_cooperative(
        adapter: &wgpu::Adapter,
        description: AdapterDescription,
        fragments: Fragments,
        most: u64,
    ) -> std::result::Result<Self, String> {
        let gpu = Self::from_adapter(adapter, description, Ok(fragments), most)
            .map_err(|error| format!("the device does not open with them: {error}"))?;
        let gpu = Arc::new(gpu);
        cooperative::self_test(&gpu, fragments)?;
        Arc::into_inner(gpu).ok_or_else(|| "their test never ended".to_owned())
    }

    fn from_adapter(
        adapter: &wgpu::Adapter,
        description: AdapterDescription,
        cooperative: std::result::Result<Fragments, String>,
        most: u64,
    ) -> Result<Self> {
        let mut features = adapter.features() & OPTIONAL;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if cooperative.is_ok() {
            features |= cooperative::FEATURES;
            experimental_features = cooperative::experimental();
        }
        let mut limits = adapter.limits();
        limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(most);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("deepcache"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            experimental_features,
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
        let fixed = info.subgroup_min_size == info.subgroup_max_size;
        let subgroup_size =
            (features.contains(Features::SUBGROUP) && fixed).then_some(info.subgroup_min_size);
        let family = Family::default();
        Ok(Self {
            device,
            queue,
            description,
            features,
            limits,
            subgroup_size,
            cooperative,
            family,
            fault,
            info,
            compiled: OnceLock::new(),
            budget: AtomicU64::new(u64::MAX),
        })
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
        let class = match self.info.device_type {
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
            binding_limit: self.binding_limit(),
        }
    }

    /// The families that this adapter can run.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let cooperative = self.cooperative.iter().map(|&fragments| Family::Cooperative(fragments));
        let broadcast = (self.subgroup_size == Some(8)).then_some(Family::Broadcast);
        [Family::Tiled].into_iter().chain(broadcast).chain(cooperative).collect()
    }

    /// The cooperative matrices that products run on.
    ///
    /// # Errors
    /// Why there are none: what the adapter lacks, that they were not asked for, or what the test of them found when
    /// it was opened.
    pub fn cooperative(&self) -> std::result::Result<Fragments, &str> {
        self.cooperative.as_ref().copied().map_err(String::as_str)
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
        self.info.device_type == DeviceType::Cpu
    }

    pub(super) fn has_timestamps(&self) -> bool {
        self.features.contains(Features::TIMESTAMP_QUERY)
    }

    /// The largest tensor that can be bound, in bytes.
    #[must_use]
    pub fn binding_limit(&self) -> u64 {
        binding_limit(&self.limits)
    }

    /// Bytes of device memory that buffers hold now, those on their way to or from the device included; `None` where the
    /// graphics interface does not tell (Metal). What else runs on the device is not counted: wgpu has no name for
    /// the memory that is free.
    #[must_use]
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// From now on buffers hold no more than so many bytes together: what goes beyond is [`Error::OutOfMemory`], as if the
    /// device had no more. For an application that shares the device; [`DiffusionPipeline`] then decodes in smaller
    /// tiles where it may.
    ///
    /// [`DiffusionPipeline`]: crate::pipelines::DiffusionPipeline
    ///
    /// # Errors
    /// [`Error::Option`] where the graphics interface does not tell what is allocated (Metal).
    pub fn limit_memory(&self, bytes: u64) -> Result<()> {
        if self.allocated_bytes().is_none() {
            let problem = format!("{} does not tell what is allocated", self.description.backend);
            return Err(Error::option("memory limit", problem));
        }
        self.budget.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Whether so many bytes more would go beyond what buffers may hold.
    fn is_beyond_budget(&self, bytes: u64) -> bool {
        let budget = self.budget.load(Ordering::Relaxed);
        let beyond = || self.allocated_bytes().is_some_and(|held| held.saturating_add(bytes) > budget);
        if budget == u64::MAX || bytes == 0 || !beyond() {
            return false;
        }
        // Buffers that nobody holds any more are given back when the device has finished with them.
        let _ = self.wait(None);
        beyond()
    }

    pub(super) fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Keeps compiled pipelines in a folder of this program, so that later starts compile less: the file of this
    /// adapter and driver is read now, if it is there, and written by [`Gpu::save_pipelines`].
    ///
    /// Returns whether the graphics interface can: only Vulkan does. Most desktop drivers keep pipelines themselves.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the file cannot be read.
    pub fn keep_pipelines(&self, folder: impl AsRef<Path>) -> Result<bool> {
        if !self.features.contains(Features::PIPELINE_CACHE) {
            return Ok(false);
        }
        if self.compiled.get().is_none() {
            let cache = PipelineCache::open(&self.device, &self.info, folder.as_ref())?;
            let _ = self.compiled.set(cache);
        }
        Ok(true)
    }

    /// Writes what was compiled since [`Gpu::keep_pipelines`], whole or not at all; does nothing without it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_pipelines(&self) -> Result<()> {
        self.compiled.get().map_or(Ok(()), PipelineCache::save)
    }

    pub(super) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        self.compiled.get().map(|compiled| &compiled.cache)
    }

    /// Loses the device on purpose, as a driver reset would; for tests of recovery.
    pub fn destroy(&self) {
        self.device.destroy();
        keep_first(&self.fault, Error::DeviceLost { message: "destroyed".to_owned() });
    }

    /// Runs `work` and returns the error that the driver raised in it, if any.
    pub(super) fn guarded<T>(&self, action: &str, bytes: u64, work: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        if self.is_beyond_budget(bytes) {
            return Err(Error::OutOfMemory { what: action.to_owned(), bytes });
        }
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

fn from_wgpu(action: &str, error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { what: action.to_owned(), bytes: 0 },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::device(action, description)
        }
    }
}
