//! What a run will take on the device, before anything is there.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::cache::CacheRun;
use super::diffusion::{expect_storable, storage};
use super::encoding::Encoding;
use super::loading::{Opened, open_model};
use super::model::Model;
use super::prepared::prepare;
use super::recorded::{Recorded, Stage};
use super::residency::{Part, Residency, Stored};
use super::run::Footprint;
use super::streaming::Streaming;
use super::{DiffusionPipeline, LoadOptions, Request, StorageType};
use crate::deepcache::ProfileSubject;
use crate::error::{Result, mebibytes};
use crate::gpu::choices::{Choices, DeviceClass};
use crate::gpu::recording::largest_binding;
use crate::gpu::{Gpu, PlanMode, allocated_bytes, plan_slots};
use crate::schedulers::SchedulerKind;
use crate::weights::{ModelFiles, WeightStorage};

/// What a plan must know of a device.
///
/// [`PlanTarget::of`] tells it of one that is open; other values plan for devices that are not there. How much memory a
/// device has, or has left, is not among it: wgpu 30 tells neither.
#[derive(Clone, Debug)]
pub struct PlanTarget {
    /// The name of the device, for the table.
    pub name: String,
    /// What kernels are chosen by. A tuned product may store sums in parts, so that it counts.
    pub choices: Arc<Choices>,
    /// The largest tensor that the device binds, in bytes.
    pub binding_limit: u64,
    /// Whether values can be stored as 16-bit floats.
    pub f16: bool,
}

impl PlanTarget {
    /// For a GPU as it is; nothing is allocated.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        Self {
            name: gpu.description().name.clone(),
            choices: Arc::new(gpu.choices()),
            binding_limit: gpu.binding_limit(),
            f16: gpu.has_f16(),
        }
    }
}

/// The memory of one network's weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkMemory {
    /// `unet`, `vae`, `text_encoder`, …
    pub name: String,
    /// Bytes on the device.
    pub bytes: u64,
}

/// What is on the device at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageMemory {
    /// `run`; with low memory, `text`, `denoising` and `decoding` instead; before them `encoding`, where the run starts
    /// from a picture.
    pub name: &'static str,
    /// Bytes of weights.
    pub weights: u64,
    /// Bytes of the slots that all activations share.
    pub activations: u64,
    /// The most bytes of them that are alive at once: no plan can have fewer.
    pub largest_live: u64,
    /// Bytes of what lives as long as the run: latents and scheduler history, tables of the sampler, prompt keys and
    /// values, time projections, and what the decoder reads and writes.
    pub persistent: u64,
    /// Bytes of what DeepCache keeps between calls.
    pub cache: u64,
}

impl StageMemory {
    /// Bytes of all of these.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.footprint().total()
    }

    fn footprint(&self) -> Footprint {
        let &Self { weights, activations, largest_live, persistent, cache, .. } = self;
        Footprint { weights, activations, largest_live, persistent, cache }
    }
}

/// What a run takes on a device, in bytes: the same numbers that [`Statistics`](super::Statistics) has after it.
///
/// Small uniforms (about 50 bytes a dispatch), compiled shaders and what the driver keeps for itself are not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// The name of the device.
    pub device: String,
    /// How values are stored.
    pub dtype: String,
    /// How the large matrices of U-Net and text encoders are stored.
    pub weights_dtype: String,
    /// The weights by network.
    pub networks: Vec<NetworkMemory>,
    /// What is on the device at the same time, in the order of the run.
    pub stages: Vec<StageMemory>,
    /// Bytes of the tables and inputs of sampler and condition, which are among the persistent ones.
    pub tables: u64,
    /// The side of the tiles that pictures are decoded in, in latents; `None` where they are decoded whole.
    pub vae_tile: Option<usize>,
    /// The same of the tiles that a picture is encoded in.
    pub vae_encoder_tile: Option<usize>,
    /// The largest tensor that is bound, by the command that binds it, and its bytes.
    pub largest_binding: (String, u64),
    /// The largest that the device binds.
    pub binding_limit: u64,
}

impl MemoryPlan {
    /// The most bytes on the device at once.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.stages.iter().map(StageMemory::total).max().unwrap_or(0)
    }

    /// Whether the device binds all tensors. Whether it has the memory is not known.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.largest_binding.1 <= self.binding_limit
    }
}

impl fmt::Display for MemoryPlan {
    /// A table, a line for each part of each stage.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, bytes: u64| {
            writeln!(f, "{name:<34}{:>14}", mebibytes(bytes))
        };
        write!(f, "memory on {}, {}", self.device, self.dtype)?;
        if self.weights_dtype == self.dtype {
            writeln!(f)?;
        } else {
            writeln!(f, ", {} weights", self.weights_dtype)?;
        }
        for network in &self.networks {
            row(f, &format!("weights of {}", network.name), network.bytes)?;
        }
        for stage in &self.stages {
            let name = |what: &str| match stage.name {
                "run" => what.to_owned(),
                stage => format!("{stage}: {what}"),
            };
            row(f, &name("weights"), stage.weights)?;
            row(f, &name("activations"), stage.activations)?;
            row(f, &name("kept over the run"), stage.persistent)?;
            row(f, &name("DeepCache's features"), stage.cache)?;
            row(f, &name("all"), stage.total())?;
        }
        row(f, "tables, of what is kept", self.tables)?;
        row(f, "peak", self.peak())?;
        let tiles = self.vae_tile.map_or("whole".to_owned(), |side| format!("in tiles of {side} latents"));
        writeln!(f, "decoded {tiles}")?;
        if self.stages.iter().any(|stage| stage.name == "encoding") {
            let tiles = self
                .vae_encoder_tile
                .map_or("whole".to_owned(), |side| format!("in tiles of {side} latents"));
            writeln!(f, "encoded {tiles}")?;
        }
        let (name, bytes) = &self.largest_binding;
        write!(
            f,
            "largest tensor {} of {} that the device binds: {name}{}",
            mebibytes(*bytes),
            mebibytes(self.binding_limit),
            if self.fits() { "" } else { "; it does not fit" },
        )
    }
}

/// How a run keeps values and weights.
#[derive(Clone, Copy, Debug)]
struct How {
    storage: StorageType,
    weights: WeightStorage,
    residency: Residency,
}

/// A model as its files describe it, for plans: nothing of it is on a device.
#[derive(Debug)]
pub struct Planner {
    model: Model,
    weights: Vec<Stored>,
    how: How,
    target: PlanTarget,
}

impl Planner {
    /// Reads configurations and the headers of weights.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::load_files`], but those of the device.
    pub fn open(files: &ModelFiles, options: &LoadOptions, mut target: PlanTarget) -> Result<Self> {
        Arc::make_mut(&mut target.choices).facts.binding_limit = target.binding_limit;
        let software = target.choices.facts.class == DeviceClass::Software;
        expect_storable(&target.name, target.f16, options.vae_storage)?;
        let storage = storage(&target.name, target.f16, software, options.storage)?;
        let Opened { model, weights, .. } =
            open_model(files, options, storage.element(), target.binding_limit)?;
        let how = How { storage, weights: options.weights, residency: Residency::of(options) };
        Ok(Self { model, weights, how, target })
    }

    /// What a run of a request takes.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a request that cannot be honoured. A tensor that is too large is no
    /// error here: see [`MemoryPlan::fits`].
    pub fn plan(&self, request: &Request) -> Result<MemoryPlan> {
        let Self { model, weights, how, target } = self;
        plan_of(model, weights, *how, target, request)
    }

    /// The sampler that the model's own configuration names, if it is one of ours.
    #[must_use]
    pub fn own_scheduler(&self) -> Option<SchedulerKind> {
        self.model.scheduler.kind()
    }

    /// Number of classes, as [`DiffusionPipeline::classes`].
    #[must_use]
    pub fn classes(&self) -> usize {
        self.model.conditioner.classes()
    }

    /// Residual blocks of a down block, as [`DiffusionPipeline::layers_per_block`].
    #[must_use]
    pub fn layers_per_block(&self) -> usize {
        self.model.unet.config().layers_per_block
    }

    /// What a cache profile of a request's runs is about, as [`DiffusionPipeline::profile_subject`].
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a request that cannot be honoured.
    pub fn profile_subject(&self, request: &Request) -> Result<ProfileSubject> {
        super::analysis::subject_of(&self.model, request)
    }
}

/// What a run of a request takes on a device: nothing is allocated there, and of the weights only headers are read.
///
/// # Errors
/// As [`Planner::open`] and [`Planner::plan`].
pub fn plan(
    files: &ModelFiles,
    request: &Request,
    options: &LoadOptions,
    target: PlanTarget,
) -> Result<MemoryPlan> {
    Planner::open(files, options, target)?.plan(request)
}

impl DiffusionPipeline {
    /// What a run of a request takes, before it is made; nothing is allocated.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a request that cannot be honoured.
    pub fn memory_plan(&self, request: &Request) -> Result<MemoryPlan> {
        let target = PlanTarget { choices: Arc::clone(self.executor.choices()), ..PlanTarget::of(&self.gpu) };
        let (weights, residency) = (self.weight_storage, self.weights.residency);
        let how = How { storage: self.storage, weights, residency };
        plan_of(&self.model, &self.weights.networks, how, &target, request)
    }
}

fn plan_of(
    model: &Model,
    networks: &[Stored],
    How { storage, weights: weight_storage, residency }: How,
    target: &PlanTarget,
    request: &Request,
) -> Result<MemoryPlan> {
    let (prepared, staged) = (prepare(model, request)?, residency.is_staged());
    let cache = match &request.cache {
        Some(options) => CacheRun::new(options, prepared.trajectory.calls.len())?,
        None => None,
    };
    let kept = cache.as_ref().map(CacheRun::plan);
    let plan = prepared.plan(storage, staged);
    let recorded = Recorded::new(model, &plan, kept, target.binding_limit, &target.choices)?;
    let mut all: Vec<(Stage, &'static str)> = match (staged, &recorded.text) {
        (false, _) => vec![(Stage::Whole, "run")],
        (true, Some(_)) => {
            vec![(Stage::Text, "text"), (Stage::Denoising, "denoising"), (Stage::Decoding, "decoding")]
        }
        (true, None) => vec![(Stage::Denoising, "denoising"), (Stage::Decoding, "decoding")],
    };
    if recorded.decode.is_empty() {
        all.retain(|(stage, _)| *stage != Stage::Decoding);
    }
    if recorded.encoding.is_some() {
        all.insert(0, (Stage::Encoding, "encoding"));
    }
    let counted =
        || networks.iter().filter(|network| network.part != Part::Encoder || recorded.encoding.is_some());
    let persistent = allocated_bytes(recorded.persistent());
    let cache = allocated_bytes(recorded.kept());
    let stages = all.iter().map(|&(stage, name)| {
        let slots = plan_slots(&recorded.of(stage), PlanMode::Shared);
        let read = counted().filter(|network| stage.holds(network.part, staged));
        let (activations, largest_live) = (slots.bytes(), slots.largest_live_set);
        let weights = match (residency, stage) {
            (Residency::Streamed { window }, Stage::Denoising) => {
                Streaming::new(&recorded, networks, window).bytes(networks)
            }
            _ => read.map(Stored::bytes).sum(),
        };
        StageMemory { name, weights, activations, largest_live, persistent, cache }
    });
    let name = |network: &Stored| network.name.clone();
    Ok(MemoryPlan {
        device: target.name.clone(),
        dtype: storage.to_string(),
        weights_dtype: weight_storage.beside(storage.element()).to_string(),
        networks: counted()
            .map(|network| NetworkMemory { name: name(network), bytes: network.bytes() })
            .collect(),
        stages: stages.collect(),
        tables: allocated_bytes(recorded.frame.tables()),
        vae_tile: recorded.decoding.side(),
        vae_encoder_tile: recorded.encoding.as_ref().and_then(Encoding::side),
        largest_binding: largest_binding(&recorded.recordings()).unwrap_or_default(),
        binding_limit: target.binding_limit,
    })
}
