//! How pictures are denoised.

use clap::Args;
use deepcache::Result;
use deepcache::pipelines::{Condition, Request};

/// Steps, guidance, sampler, noise and size.
#[derive(Debug, Args)]
pub(crate) struct Sampling {
    /// Denoising steps, 1 to 1000: more is finer and slower [default: 50 from text, 250 for classes, 100 otherwise,
    /// 1000 with ddpm].
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<usize>,

    /// How strictly the prompt or the class is followed; 1 or less switches guidance off and halves the work [default:
    /// 7.5 from text, 1.5 for classes].
    #[arg(long, value_name = "SCALE")]
    guidance_scale: Option<f64>,

    /// How much of guidance's effect on the contrast is taken back, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    guidance_rescale: f64,

    /// The sampler: ddpm, ddim, pndm, euler, euler-ancestral, heun, dpm2, lms, dpmpp-2m, dpmpp-2m-sde, dpmpp-3m,
    /// dpmpp-2s, unipc, deis or lcm [default: what the model says].
    #[arg(long, value_name = "NAME", help_heading = "Sampler")]
    pub(crate) scheduler: Option<String>,

    /// DDIM's share of fresh noise in every step: 0 is deterministic, 1 is DDPM.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, help_heading = "Sampler")]
    eta: f64,

    /// How noise levels are spaced: karras, exponential or beta [default: what the model says].
    #[arg(long, value_name = "NAME", help_heading = "Sampler")]
    sigmas: Option<String>,

    /// How timesteps are spaced: leading, linspace, trailing; uniform or quadratic as the original DDIM code does
    /// [default: what the model says].
    #[arg(long, value_name = "NAME", help_heading = "Sampler")]
    timestep_spacing: Option<String>,

    /// Seed of all noise.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,

    /// Whose random numbers the seed stands for: torch (PyTorch's on the CPU) or philox (CUDA's, the GPU seed of
    /// AUTOMATIC1111 and stable-diffusion.cpp).
    #[arg(long, value_name = "NAME", default_value = "torch")]
    rng: String,

    /// Width of the picture in pixels [default: what the model says].
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,

    /// Height of the picture in pixels [default: what the model says].
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,

    /// Whether the VAE decodes in overlapping tiles: auto (where the device could not decode the whole), always (in
    /// tiles as large as training pictures, as diffusers does) or never. Tiles take less memory and change the picture a little.
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Memory")]
    vae_tiling: String,

    /// SDXL: the size that the training picture is said to have had [default: that of the picture].
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"], help_heading = "SDXL")]
    original_size: Option<Vec<usize>>,

    /// SDXL: what is said to have been cut off above and to the left [default: 0 0].
    #[arg(long, num_args = 2, value_names = ["TOP", "LEFT"], help_heading = "SDXL")]
    crops_coords_top_left: Option<Vec<usize>>,

    /// SDXL: the size that the picture is said to have [default: its own].
    #[arg(long, num_args = 2, value_names = ["HEIGHT", "WIDTH"], help_heading = "SDXL")]
    target_size: Option<Vec<usize>>,
}

/// Two numbers, of which clap has made sure.
fn pair(numbers: Option<&Vec<usize>>) -> Option<[usize; 2]> {
    numbers.and_then(|numbers| numbers.as_slice().try_into().ok())
}

impl Sampling {
    /// A request for one picture without a cache.
    pub(crate) fn request(&self, condition: Condition) -> Result<Request> {
        Ok(Request {
            condition,
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale,
            scheduler: self.scheduler.as_deref().map(str::parse).transpose()?,
            eta: self.eta,
            sigmas: self.sigmas.as_deref().map(str::parse).transpose()?,
            timestep_spacing: self.timestep_spacing.as_deref().map(str::parse).transpose()?,
            seed: self.seed,
            generator: self.rng.parse()?,
            width: self.width,
            height: self.height,
            original_size: pair(self.original_size.as_ref()),
            crops_coords_top_left: pair(self.crops_coords_top_left.as_ref()),
            target_size: pair(self.target_size.as_ref()),
            vae_tiling: self.vae_tiling.parse()?,
            ..Request::unconditional()
        })
    }
}
