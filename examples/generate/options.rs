//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser};
use deepcache::deepcache::CacheSchedule;
use deepcache::image::Picture;
use deepcache::pipelines::{CacheOptions, LoadOptions, StorageType, TextToImageRequest};
use deepcache::schedulers::SchedulerKind;
use deepcache::{Error, Result};

/// The model that stands beside this program: small, really trained, 128x128 pictures of coloured shapes.
const DEFAULT_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny");

/// Draws a picture of a prompt with a Stable Diffusion model, on any GPU.
///
/// Without --model it uses the small model that comes with deepcache: it draws one coloured shape on a
/// patterned background, such as "a small yellow star on the left on a purple striped background".
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    version,
    override_usage = "generate [OPTIONS] <PROMPT>\n       generate --list-devices",
    after_help = "Examples:
  generate \"a large red circle on a blue background\"
  generate \"a large red circle on a blue background\" --cache-interval 5    the same picture, several times faster
  generate \"a lighthouse at dusk\" --model ~/models/stable-diffusion-v1-5 --steps 30 --seed 7 --output lighthouse.png
  generate --list-devices"
)]
pub(crate) struct Options {
    /// What the picture shows.
    #[arg(required_unless_present = "list_devices", default_value = "", hide_default_value = true)]
    pub prompt: String,

    /// A Stable Diffusion v1 model: a directory of the diffusers layout.
    #[arg(long, value_name = "DIRECTORY", default_value = DEFAULT_MODEL, hide_default_value = true)]
    pub model: PathBuf,

    /// What the picture does not show.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    negative_prompt: String,

    /// Denoising steps, 1 to 1000: more is finer and slower.
    #[arg(long, value_name = "N", default_value_t = 50)]
    steps: usize,

    /// How strictly the prompt is followed; 1 or less switches guidance off and halves the work.
    #[arg(long, value_name = "SCALE", default_value_t = 7.5)]
    guidance_scale: f64,

    /// The sampler: ddpm, ddim, pndm, euler, euler-ancestral, heun, dpm2, lms, dpmpp-2m, dpmpp-2m-sde, dpmpp-3m,
    /// dpmpp-2s, unipc, deis or lcm [default: what the model says].
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,

    /// DDIM's share of fresh noise in every step: 0 is deterministic, 1 is DDPM.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    eta: f64,

    /// Seed of the initial noise: the same noise as PyTorch's on the CPU.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Width of the picture in pixels, a multiple of 8 [default: what the model says].
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,

    /// Height of the picture in pixels, a multiple of 8 [default: what the model says].
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,

    /// Number of pictures, all from one seed; the files are numbered: out-0.png, out-1.png, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,

    /// The PNG file to write.
    #[arg(long, value_name = "FILE", default_value = "out.png")]
    pub output: PathBuf,

    /// Recompute the deep layers only every N steps (DeepCache): 3 is close to the full picture, 5 faster, 10 rough [default: every step].
    #[arg(long, value_name = "N", help_heading = "DeepCache")]
    cache_interval: Option<usize>,

    /// The skip branch where the network is cut: 0 reuses the most and is the fastest.
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        requires = "cache_interval",
        help_heading = "DeepCache"
    )]
    cache_branch: usize,

    /// The GPU, by its number or a part of its name, as --list-devices shows them.
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    device: Option<String>,

    /// Show the GPUs of this machine and end.
    #[arg(long, help_heading = "Device")]
    pub list_devices: bool,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long, value_name = "TYPE", help_heading = "Device")]
    dtype: Option<String>,

    /// Initial noise from a safetensors file: a tensor "latents", f32, [N, C, h, w], of unit variance; number and size of the pictures follow it.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub latents: Option<PathBuf>,

    /// Write the final latents, also as a tensor "latents", before they are divided by the VAE's scaling factor.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub save_latents: Option<PathBuf>,

    /// Write times and memory as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub stats: Option<PathBuf>,

    /// Print the time of every GPU command, which makes the run slower.
    #[arg(long, help_heading = "Files and reports")]
    pub profile: bool,

    /// Print nothing but errors and warnings.
    #[arg(long, short, help_heading = "Files and reports")]
    pub quiet: bool,
}

impl Options {
    /// Reads the command line. What is wrong with it comes back as one line; help and version are printed.
    pub(crate) fn read() -> std::result::Result<Self, String> {
        Self::try_parse().map_err(|error| {
            if !error.use_stderr() {
                error.exit();
            }
            let text = error.render().to_string();
            let end = text.find("Usage:").or_else(|| text.find("For more information")).unwrap_or(text.len());
            let words: Vec<&str> = text[..end].split_whitespace().skip(1).collect();
            format!("{} (--help shows all options)", words.join(" "))
        })
    }

    /// An error in the words of the command line: `--cache-branch`, where the library says `cache branch`.
    pub(crate) fn explain(error: &Error) -> String {
        if let Error::Option { option, problem } = error {
            let long = option.replace(' ', "-");
            if Self::command().get_arguments().any(|argument| argument.get_long() == Some(&long)) {
                return format!("--{long}: {problem}");
            }
        }
        error.to_string()
    }

    pub(crate) fn load_options(&self) -> LoadOptions {
        // `request` has already refused an unknown type
        let storage = self.dtype.as_deref().and_then(|text| text.parse().ok());
        LoadOptions { device: self.device.clone(), storage }
    }

    pub(crate) fn request(&self) -> Result<TextToImageRequest> {
        if let Some(text) = &self.dtype {
            text.parse::<StorageType>()?;
        }
        let scheduler = self.scheduler.as_deref().map(str::parse::<SchedulerKind>).transpose()?;
        let cache = self.cache_interval.map(|interval| CacheOptions {
            schedule: CacheSchedule::Uniform { interval },
            branch: self.cache_branch,
        });
        Ok(TextToImageRequest {
            prompt: self.prompt.clone(),
            negative_prompt: self.negative_prompt.clone(),
            steps: self.steps,
            guidance_scale: self.guidance_scale,
            scheduler,
            eta: self.eta,
            seed: self.seed,
            width: self.width,
            height: self.height,
            count: self.count,
            cache,
            latents: None,
        })
    }

    /// What made a picture, in the form that other tools read from a PNG.
    pub(crate) fn parameters(
        &self,
        request: &TextToImageRequest,
        number: usize,
        picture: &Picture,
    ) -> String {
        let mut text = request.prompt.clone();
        if !request.negative_prompt.is_empty() {
            text += &format!("\nNegative prompt: {}", request.negative_prompt);
        }
        let noise = match self.latents.as_deref().and_then(std::path::Path::file_name) {
            Some(file) => format!("Latents: {}", file.to_string_lossy()),
            None => format!("Seed: {}", request.seed),
        };
        let scheduler = request.scheduler.map_or_else(String::new, |kind| kind.to_string());
        text += &format!(
            "\nSteps: {}, Sampler: {scheduler}, CFG scale: {}, {noise}, Size: {}x{}",
            request.steps, request.guidance_scale, picture.width, picture.height
        );
        if let Some(name) = self.model.file_name() {
            text += &format!(", Model: {}", name.to_string_lossy());
        }
        if let Some(CacheOptions { schedule: CacheSchedule::Uniform { interval }, branch }) = &request.cache {
            text += &format!(", DeepCache interval: {interval}, DeepCache branch: {branch}");
        }
        if request.count > 1 {
            text += &format!(", Batch position: {number} of {}", request.count);
        }
        text
    }
}
