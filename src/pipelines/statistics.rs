//! What a run took.

use serde::Serialize;

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
    /// Seconds of loading the model.
    pub load_s: f64,
    /// Seconds from the request to the encoded prompt, shader compilation included.
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
    /// Bytes of DeepCache's kept feature.
    pub cache_bytes: u64,
    /// Bytes of all of these: nothing else is allocated while pictures are made, but small uniforms.
    pub peak_bytes: u64,
}
