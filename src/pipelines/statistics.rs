//! What a run took.

use serde::Serialize;

use super::DiffusionPipeline;
use super::run::{Footprint, Run};
use crate::gpu::Play;
use crate::schedulers::Trajectory;

/// Whether a U-Net call recomputed the deep layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StepKind {
    /// The whole U-Net.
    Full,
    /// Only the layers outside the cut of the skip index.
    Shallow,
}

/// One U-Net call.
#[derive(Clone, Debug, Serialize)]
pub struct StepStatistics {
    /// Its number within the picture, from 0.
    pub index: usize,
    /// The timestep that it was made at.
    pub timestep: f64,
    /// Whether it recomputed the deep layers.
    pub kind: StepKind,
    /// Milliseconds on the GPU; `None` where the adapter has no timestamps.
    pub gpu_ms: Option<f64>,
    /// Milliseconds that the CPU was busy with it.
    pub cpu_ms: f64,
    /// How far the deepest live skip tensor has moved since the full call before, as a relative L2 distance; only
    /// where the schedule is decided by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<f64>,
}

/// One U-Net call, as it was played.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) call: usize,
    pub(super) kind: StepKind,
    pub(super) play: Play,
    pub(super) gpu_seconds: Option<f64>,
    pub(super) drift: Option<f64>,
}

/// Seconds of the parts of a run, as [`Statistics`] describes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) prepare: f64,
    pub(super) compile: f64,
    pub(super) encode: f64,
    pub(super) denoise: f64,
    pub(super) decode: f64,
}

/// What a run took, in time and memory.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// Name of the device.
    pub adapter: String,
    /// Graphics interface.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// How values are stored.
    pub dtype: String,
    /// How the large matrices of U-Net and text encoders are stored.
    pub weights_dtype: String,
    /// Seconds of loading the model; with [`low_memory`](super::LoadOptions::low_memory) weights are uploaded later, in the
    /// seconds of encoding and decoding.
    pub load_s: f64,
    /// Seconds from the request until everything is ready for the prompt: recording, planning memory, compiling, and
    /// encoding the image, if there is one.
    pub prepare_s: f64,
    /// Seconds of it that pipelines were compiled in, on all cores; some drivers compile at the first use instead.
    pub compile_s: f64,
    /// Pipelines that this engine has compiled so far, in this run and before.
    pub pipelines: usize,
    /// Seconds from the request to the encoded prompt, all of the above included.
    pub encode_s: f64,
    /// Seconds of all U-Net calls.
    pub denoise_s: f64,
    /// Seconds of decoding latents to pixels.
    pub decode_s: f64,
    /// Every U-Net call of every picture.
    pub steps: Vec<StepStatistics>,
    /// Command buffers submitted by the denoising loop.
    pub submissions: usize,
    /// Dispatches of a full step.
    pub dispatches_full: usize,
    /// Dispatches of a shallow step; 0 without a cache.
    pub dispatches_shallow: usize,
    /// Multiply-accumulates of a full step, both guidance halves.
    pub macs_full: u64,
    /// Multiply-accumulates of a shallow step; 0 without a cache.
    pub macs_shallow: u64,
    /// Bytes of weights on the device.
    pub weights_bytes: u64,
    /// Bytes of the slots that all activations share.
    pub activation_bytes: u64,
    /// The most activation bytes alive at once: no plan can have fewer.
    pub largest_live_bytes: u64,
    /// Bytes of latents, scheduler history, prompt keys and values, time embeddings.
    pub persistent_bytes: u64,
    /// Bytes of what DeepCache keeps between calls: one feature, or several for a forecast.
    pub cache_bytes: u64,
    /// The most bytes of all of these at once: nothing else is allocated while pictures are made, but small uniforms.
    /// Their sum, but with [`low_memory`](super::LoadOptions::low_memory), where each of them is the most of any stage.
    pub peak_bytes: u64,
    /// The side of the tiles that pictures were decoded in, in latents; `None` where they were decoded whole.
    pub vae_tile: Option<usize>,
    /// The same of the tiles that the picture was encoded in, which the run started from.
    pub vae_encoder_tile: Option<usize>,
}

impl Statistics {
    /// What the calls of a run took.
    pub(super) fn gather(
        pipeline: &DiffusionPipeline,
        run: &Run,
        trajectory: &Trajectory,
        played: Vec<Played>,
        times: Times,
    ) -> Self {
        let submissions = played.iter().map(|played| played.play.submissions).sum();
        let steps = played.into_iter().map(|played| StepStatistics {
            index: played.call,
            timestep: trajectory.timesteps[played.call],
            kind: played.kind,
            gpu_ms: played.gpu_seconds.map(|seconds| 1e3 * seconds),
            cpu_ms: 1e3 * played.play.encode_seconds,
            drift: played.drift,
        });
        let adapter = pipeline.gpu.description();
        let most = |bytes: fn(&Footprint) -> u64| run.footprints.iter().map(bytes).max().unwrap_or(0);
        Self {
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            dtype: pipeline.storage.to_string(),
            weights_dtype: pipeline.weight_storage.beside(pipeline.storage.element()).to_string(),
            load_s: pipeline.load_seconds,
            prepare_s: times.prepare,
            compile_s: times.compile,
            pipelines: pipeline.executor.pipeline_count(),
            encode_s: times.encode,
            denoise_s: times.denoise,
            decode_s: times.decode,
            steps: steps.collect(),
            submissions,
            dispatches_full: run.dispatches[0],
            dispatches_shallow: run.dispatches[1],
            macs_full: run.multiply_accumulates[0],
            macs_shallow: run.multiply_accumulates[1],
            weights_bytes: most(|stage| stage.weights),
            activation_bytes: most(|stage| stage.activations),
            largest_live_bytes: most(|stage| stage.largest_live),
            persistent_bytes: most(|stage| stage.persistent),
            cache_bytes: most(|stage| stage.cache),
            peak_bytes: most(Footprint::total),
            vae_tile: run.tile_side(),
            vae_encoder_tile: run.encoder_tile_side(),
        }
    }
}
