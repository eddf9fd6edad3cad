//! What a caller asks for, and what it hears meanwhile.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::deepcache::{CacheSchedule, Plan, Reuse};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::pipelines::Latents;
use crate::random::Generator;
use crate::schedulers::{SchedulerKind, SigmaSpacing, TimestepSpacing};
use crate::tensor::ElementType;
use crate::tokenizer::PromptSyntax;
use crate::weights::{Embedding, Lora, Replacements, WeightStorage};

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
    /// How a VAE's values are stored; if `None`, as all others, but in 32 bits where the model says that its VAE goes
    /// beyond those of 16 (`force_upcast` of SDXL).
    pub vae_storage: Option<StorageType>,
    /// How the matrices of U-Net and text encoders are stored: as all values, or in 8 bits, which takes half the memory
    /// of f16 for them and changes pictures a little. What stays as it is says [`WeightStorage`].
    pub weights: WeightStorage,
    /// Files in the place of the model's own.
    pub replacements: Replacements,
    /// Whether every network's weights are on the device only while they are needed: the text encoders' until the
    /// prompt is encoded, then the U-Net's, then the decoder's. They are read from the files again for the next
    /// picture. Results are the same to the bit.
    pub low_memory: bool,
    /// As [`low_memory`](Self::low_memory), and of the U-Net's weights only a part is on the device at any time: in every
    /// call they are read from their file, packed and uploaded again, part by part, into a window of about so many bytes
    /// (64 MiB is a good size), or of as many as are needed together. What shallow calls of DeepCache read stays there as
    /// long as the U-Net runs, where it is no more than two windows, and so does what is small: shallow calls do not wait.
    /// The last resort where the U-Net does not fit; results are the same to the bit.
    pub stream_weights: Option<u64>,
    /// LoRAs to be added to the weights of a Stable Diffusion model, in this order. See
    /// [`DiffusionPipeline::set_loras`](super::DiffusionPipeline::set_loras), which changes them later.
    pub loras: Vec<Lora>,
    /// A tiny autoencoder (TAESD) that decodes previews: a safetensors file, or a directory of diffusers' `AutoencoderTiny`.
    /// Without one, previews of Stable Diffusion are as small as the latents, and coloured by a matrix.
    pub preview_vae: Option<PathBuf>,
    /// Textual inversions: words of their own for the prompts of a Stable Diffusion model. `load_textual_inversion` of
    /// diffusers.
    pub embeddings: Vec<Embedding>,
}

impl From<StorageType> for LoadOptions {
    fn from(storage: StorageType) -> Self {
        Self { storage: Some(storage), ..Self::default() }
    }
}

/// Whether a VAE decodes a picture in overlapping tiles, which takes less memory and changes the picture a little.
///
/// Agrees with `enable_tiling` of `diffusers.AutoencoderKL`: neighbouring tiles share a quarter of their side, and
/// fade into each other there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VaeTiling {
    /// Whole where the device can bind all tensors of the decoder and has the memory for them; else in the largest
    /// tiles that it can.
    #[default]
    Auto,
    /// In tiles of the size of the training pictures, as diffusers does, or in smaller ones where the device cannot
    /// bind the tensors of such a tile. A picture that is no larger than a tile is decoded whole.
    Always,
    /// Whole, or not at all.
    Never,
}

impl FromStr for VaeTiling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => {
                let problem = format!("\"{other}\" is not auto, always or never");
                Err(Error::option("vae tiling", problem))
            }
        }
    }
}

/// How deep features are reused between steps. Ma et al., *DeepCache*, 2023, <https://arxiv.org/abs/2312.00858>.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheOptions {
    /// Which U-Net calls are computed in full.
    pub schedule: CacheSchedule,
    /// The skip index `s`: the feature that enters the up layer which reads skip tensor `s` is kept. 0 keeps
    /// the most and is the fastest; the paper's tables have 1 for Stable Diffusion, 0 for latent diffusion and 2
    /// for DDPM.
    pub branch: usize,
    /// What stands for the deep feature in shallow calls.
    pub reuse: Reuse,
    /// So many calls at the start are full, whatever the schedule says: for samplers that add noise.
    pub warm_up: usize,
}

impl CacheOptions {
    /// The paper's "1:N" at a skip index: every `interval`-th call is full.
    #[must_use]
    pub fn uniform(interval: usize, branch: usize) -> Self {
        Self { schedule: CacheSchedule::Uniform { interval }, branch, reuse: Reuse::Hold, warm_up: 0 }
    }

    /// What was planned from a profile.
    #[must_use]
    pub fn planned(plan: &Plan) -> Self {
        let schedule = CacheSchedule::List(plan.full.clone());
        Self { schedule, branch: plan.branch, reuse: plan.reuse, warm_up: 0 }
    }
}

/// What the pictures of a run are made from. It must fit the model's [kind](crate::weights::ModelKind).
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Text, for a text-to-image model.
    Prompt {
        /// What the picture shows.
        prompt: String,
        /// What it does not show; used with guidance only. Where it is empty and an SDXL model says
        /// `force_zeros_for_empty_prompt`, zeros stand for it, as for `negative_prompt=None` of diffusers.
        negative_prompt: String,
    },
    /// Classes by their number, for a class-conditional model: one for every picture, or one for all.
    ClassLabels(Vec<usize>),
    /// Nothing but noise, for an unconditional model.
    Nothing,
}

/// One run.
///
/// ```
/// use deepcache::pipelines::Request;
///
/// let request = Request { steps: Some(20), seed: 7, ..Request::prompt("a lighthouse at dusk") };
/// let dog = Request { guidance_scale: Some(1.5), ..Request::class_label(207) };
/// ```
#[derive(Clone, Debug)]
pub struct Request {
    /// What the pictures are made from.
    pub condition: Condition,
    /// How prompts are read, the negative one too.
    pub prompt_syntax: PromptSyntax,
    /// So many layers at the end of the text encoder are left out, as `clip_skip` of diffusers: 0 reads the usual one, the
    /// last with Stable Diffusion v1 and v2 and the last but one with SDXL. As in diffusers it is the prompt that is
    /// read from another layer: the negative prompt, and SDXL's vector of the whole prompt, stay as they are.
    /// (Other programs count from 1: their "clip skip 2" is 1 here.)
    pub clip_skip: usize,
    /// Denoising steps. If `None`, those of the paper's experiments: 50 from text, 250 for classes, 100 without
    /// a condition, or 1000 there with the DDPM sampler.
    pub steps: Option<usize>,
    /// Scale of classifier-free guidance; 1 or less switches it off. If `None`, 7.5 from text, 5 with SDXL, and 1.5 for classes.
    /// Without a condition there is none.
    pub guidance_scale: Option<f64>,
    /// How much of the guided output's spread is brought back to that of the output with the condition, 0 to 1:
    /// against overexposed pictures of models with zero terminal signal.
    pub guidance_rescale: f64,
    /// The sampler; the model's own if `None`.
    pub scheduler: Option<SchedulerKind>,
    /// DDIM's eta: 0 is deterministic, 1 draws as much noise as DDPM. Other samplers have none.
    pub eta: f64,
    /// How noise levels are spaced; as the model's file says if `None`.
    pub sigmas: Option<SigmaSpacing>,
    /// How timesteps are spaced; as the model's file says if `None`.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Seed of all noise, as `torch.manual_seed` takes it.
    pub seed: u64,
    /// Whose random numbers a seed stands for.
    pub generator: Generator,
    /// Width of the picture in pixels; the model's own size if `None`.
    pub width: Option<usize>,
    /// Height of the picture in pixels; the model's own size if `None`.
    pub height: Option<usize>,
    /// SDXL: height and width that the training picture is said to have had before it was scaled; small ones make blurred
    /// pictures. That of the picture if `None`.
    pub original_size: Option<[usize; 2]>,
    /// SDXL: rows above and columns left of the picture that are said to have been cut off; `[0, 0]`, a picture with its
    /// subject in the middle, if `None`.
    pub crops_coords_top_left: Option<[usize; 2]>,
    /// SDXL: height and width that the picture is said to have. Its own if `None`. A refiner is not told it.
    pub target_size: Option<[usize; 2]>,
    /// Refiners of SDXL: how beautiful the picture is said to be, about 1 to 10; 6 if `None`.
    pub aesthetic_score: Option<f64>,
    /// Refiners of SDXL: how beautiful that is which guidance leads away from; 2.5 if `None`.
    pub negative_aesthetic_score: Option<f64>,
    /// The run stops at this share of the noise schedule, between 0 (all noise) and 1 (none), so that another model can go
    /// on. The latents are then still noisy, and no pictures are made of them. `denoising_end` of diffusers.
    pub denoising_end: Option<f64>,
    /// The run begins at this share of the noise schedule, with [`latents`](Self::latents) as they are: those of another
    /// model's run that ended there. Both runs have the number of steps of a whole one. `denoising_start` of diffusers.
    pub denoising_start: Option<f64>,
    /// After every so many of a picture's calls of the U-Net, [`Progress::Preview`] shows what is predicted at that moment; never if
    /// `None`. The device is waited for then; without previews nothing is read and nothing is kept for them, and the
    /// final pictures are the same to the bit either way.
    pub preview_every: Option<usize>,
    /// Number of pictures.
    pub count: usize,
    /// DeepCache, or every step in full.
    pub cache: Option<CacheOptions>,
    /// Whether the VAE decodes in tiles; models with another decoder, or none, always decode whole.
    pub vae_tiling: VaeTiling,
    /// Image to image: the picture that the run starts from. It is resized to width and height, or without them to its own
    /// size, rounded down to what the model can do, with the Lanczos filter of PIL, as `VaeImageProcessor` of diffusers
    /// does. Encoded and with noise it is the first sample, and the steps of less noise than that are left.
    /// `StableDiffusionImg2ImgPipeline` of diffusers, and `StableDiffusionXLImg2ImgPipeline`.
    pub image: Option<Picture>,
    /// Inpainting: white where the image is drawn anew, black where it stays; grey counts as white from 128 on. As large
    /// as the image. U-Nets with 9 input channels read it; with others, what stays is put back after every step.
    /// `StableDiffusionInpaintPipeline` of diffusers, and `StableDiffusionXLInpaintPipeline`.
    pub mask_image: Option<Picture>,
    /// How much of the image is changed, 0 to 1: the share of the steps that are done. 1 does all of them; with a mask,
    /// the run then starts from nothing but noise. If `None`, as in diffusers 0.8, 0.3 with SDXL, and with a mask 1, or
    /// 0.9999 with SDXL.
    pub strength: Option<f64>,
    /// Initial noise of unit variance, or the noise that is added to the image, or with
    /// [`denoising_start`](Self::denoising_start) the latents to go on with; drawn from the seed if `None`. Its shape
    /// decides number and size.
    pub latents: Option<Latents>,
}

impl Request {
    /// One picture of a prompt, with the usual settings.
    pub fn prompt(prompt: impl Into<String>) -> Self {
        let condition = Condition::Prompt { prompt: prompt.into(), negative_prompt: String::new() };
        Self { condition, ..Self::unconditional() }
    }

    /// The same for a refiner, which goes on with the latents of a run that stopped at a share of the noise schedule.
    #[must_use]
    pub fn refining(&self, latents: Latents, denoising_start: f64) -> Self {
        Self {
            latents: Some(latents),
            denoising_start: Some(denoising_start),
            denoising_end: None,
            target_size: None,
            image: None,
            mask_image: None,
            strength: None,
            ..self.clone()
        }
    }

    /// One picture of a class, with the usual settings.
    #[must_use]
    pub fn class_label(label: usize) -> Self {
        Self { condition: Condition::ClassLabels(vec![label]), ..Self::unconditional() }
    }

    /// One picture of nothing in particular, with the usual settings.
    #[must_use]
    pub fn unconditional() -> Self {
        Self {
            condition: Condition::Nothing,
            prompt_syntax: PromptSyntax::Plain,
            clip_skip: 0,
            steps: None,
            guidance_scale: None,
            guidance_rescale: 0.0,
            scheduler: None,
            eta: 0.0,
            sigmas: None,
            timestep_spacing: None,
            seed: 0,
            generator: Generator::Torch,
            width: None,
            height: None,
            original_size: None,
            crops_coords_top_left: None,
            target_size: None,
            aesthetic_score: None,
            negative_aesthetic_score: None,
            denoising_end: None,
            denoising_start: None,
            preview_every: None,
            count: 1,
            cache: None,
            vae_tiling: VaeTiling::Auto,
            image: None,
            mask_image: None,
            strength: None,
            latents: None,
        }
    }
}

/// What a run is doing; the callback answers whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The run is being prepared, and image and prompt encoded.
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
    /// What the run predicts after the call that was submitted last; only if [`Request::preview_every`] asks for it.
    Preview {
        /// The number of the picture that it is a preview of, from 0.
        picture: usize,
        /// As large as the picture, where a tiny autoencoder decodes it; otherwise as large as the latents.
        preview: &'a Picture,
    },
    /// A picture is being decoded.
    Decoding {
        /// Its number, from 0.
        picture: usize,
        /// Pictures of the run.
        of: usize,
    },
}
