//! What a caller asks for, and what it hears meanwhile.

use std::fmt;
use std::str::FromStr;

use crate::deepcache::CacheSchedule;
use crate::error::{Error, Result};
use crate::pipelines::Latents;
use crate::schedulers::SchedulerKind;
use crate::tensor::ElementType;

/// How weights and activations are stored. Sums are 32-bit always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageType {
    /// 16-bit floats: half the memory, and faster on most GPUs.
    F16,
    /// 32-bit floats: agrees with diffusers to rounding.
    F32,
}

impl StorageType {
    pub(crate) fn element(self) -> ElementType {
        match self {
            Self::F16 => ElementType::F16,
            Self::F32 => ElementType::F32,
        }
    }
}

impl fmt::Display for StorageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.element().fmt(f)
    }
}

impl FromStr for StorageType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            other => Err(Error::option("dtype", format!("\"{other}\" is not f16 or f32"))),
        }
    }
}

/// Where and how a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The adapter, by its index or a part of its name; the preferred one if `None`.
    pub device: Option<String>,
    /// How values are stored; if `None`, 16-bit on a GPU that can, otherwise 32-bit.
    pub storage: Option<StorageType>,
}

/// How deep features are reused between steps. Ma et al., *DeepCache*, 2023, <https://arxiv.org/abs/2312.00858>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Which U-Net calls are computed in full.
    pub schedule: CacheSchedule,
    /// The skip index `s`: the feature that enters the up layer which reads skip tensor `s` is kept. 0 keeps
    /// the most and is the fastest; the paper's Stable Diffusion tables have 1.
    pub branch: usize,
}

/// One text-to-image run.
#[derive(Clone, Debug)]
pub struct TextToImageRequest {
    /// What the picture shows.
    pub prompt: String,
    /// What it does not show; used with guidance only.
    pub negative_prompt: String,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 or less switches it off.
    pub guidance_scale: f64,
    /// The sampler; the model's own if `None`.
    pub scheduler: Option<SchedulerKind>,
    /// DDIM's eta: 0 is deterministic, 1 draws as much noise as DDPM; other samplers ignore it.
    pub eta: f64,
    /// Seed of the initial noise, as `torch.manual_seed` takes it.
    pub seed: u64,
    /// Width of the picture in pixels; the model's own size if `None`.
    pub width: Option<usize>,
    /// Height of the picture in pixels; the model's own size if `None`.
    pub height: Option<usize>,
    /// Number of pictures.
    pub count: usize,
    /// DeepCache, or every step in full.
    pub cache: Option<CacheOptions>,
    /// Initial noise of unit variance; drawn from the seed if `None`. Its shape decides number and size.
    pub latents: Option<Latents>,
}

impl Default for TextToImageRequest {
    fn default() -> Self {
        Self {
            prompt: String::new(),
            negative_prompt: String::new(),
            steps: 50,
            guidance_scale: 7.5,
            scheduler: None,
            eta: 0.0,
            seed: 0,
            width: None,
            height: None,
            count: 1,
            cache: None,
            latents: None,
        }
    }
}

/// What a run is doing; the callback answers whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The prompt is being encoded.
    Encoding,
    /// A U-Net call has been submitted.
    Denoising {
        /// Calls submitted so far, over all pictures.
        completed: usize,
        /// Calls of the run.
        of: usize,
        /// Whether this call recomputed the deep layers.
        full: bool,
    },
    /// A picture is being decoded.
    Decoding {
        /// Its number, from 0.
        picture: usize,
        /// Pictures of the run.
        of: usize,
    },
}
