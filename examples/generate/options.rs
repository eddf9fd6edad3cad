//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use deepcache::image::Picture;
use deepcache::pipelines::{Condition, Request};
use deepcache::weights::ModelKind;
use deepcache::{Error, Result};

use crate::cache::Cache;
use crate::command::{Conditions, ModelOptions, Sampling};
use crate::refining::Refining;

/// Draws pictures with a diffusion model, on any GPU: from a prompt, from an ImageNet class, or from nothing but noise.
///
/// Without --model it uses the small model that comes with deepcache: it draws one coloured shape on a
/// patterned background, such as "a small yellow star on the left on a purple striped background".
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    version,
    override_usage = "generate [OPTIONS] [PROMPT]\n       generate --list-devices",
    after_help = "Examples:
  generate \"a large red circle on a blue background\"
  generate \"a large red circle on a blue background\" --cache-interval 5    the same picture, several times faster
  generate \"a lighthouse at dusk\" --model ~/models/stable-diffusion-v1-5 --steps 30 --seed 7 --output lighthouse.png
  generate \"a lighthouse at dusk\" --model ~/models/some-finetune.safetensors --vae ~/models/vae-ft-mse.safetensors
  generate \"a lighthouse at dusk\" --model ~/models/stable-diffusion-v1-5 --lora ~/loras/pixel-art.safetensors:0.8
  generate \"a lighthouse in winter\" --model ~/models/stable-diffusion-v1-5 --image lighthouse.png --strength 0.6
  generate \"a red door\" --model ~/models/stable-diffusion-inpainting --image house.jpg --mask door.png
  generate --model ~/models/cin256 --class-label \"golden retriever\" --cache-interval 5
  generate --model ~/models/ddpm-cifar10-32 --scheduler ddim --steps 100
  generate --list-devices"
)]
pub(crate) struct Options {
    /// What the picture shows, for a text-to-image model.
    pub prompt: Option<String>,

    #[command(flatten)]
    pub conditions: Conditions,

    /// Start from this picture (PNG or JPEG) instead of noise alone; the result has its size, or --width and --height.
    #[arg(long, value_name = "FILE", help_heading = "From a picture")]
    pub image: Option<PathBuf>,

    /// Draw only what is white in this picture anew, and leave the rest of --image alone; as large as that.
    #[arg(long, value_name = "FILE", requires = "image", help_heading = "From a picture")]
    pub mask: Option<PathBuf>,

    /// How much of the picture is changed, 0 to 1: the share of the steps that are done [default: 0.8, with SDXL 0.3;
    /// with --mask 1].
    #[arg(long, value_name = "SHARE", requires = "image", help_heading = "From a picture")]
    strength: Option<f64>,

    #[command(flatten)]
    pub sampling: Sampling,

    /// Number of pictures, all from one seed; the files are numbered: out-0.png, out-1.png, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,

    /// The PNG file to write.
    #[arg(long, value_name = "FILE", default_value = "out.png")]
    pub output: PathBuf,

    #[command(flatten)]
    pub cache: Cache,

    #[command(flatten)]
    pub model: ModelOptions,

    #[command(flatten)]
    pub refining: Refining,

    /// Keep a small picture of what is predicted at the moment in this PNG file, which is written whole each time.
    #[arg(long, value_name = "FILE", help_heading = "Previews")]
    pub preview: Option<PathBuf>,

    /// Show it after every so many calls of the U-Net.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "preview", help_heading = "Previews")]
    preview_every: usize,

    /// Initial noise from a safetensors file: a tensor "latents", f32, [N, C, h, w], of unit variance; number and size
    /// of the pictures follow it.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub latents: Option<PathBuf>,

    /// Write the final latents, also as a tensor "latents", before they are divided by the autoencoder's scaling
    /// factor.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub save_latents: Option<PathBuf>,

    /// Write times and memory as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Files and reports")]
    pub stats: Option<PathBuf>,

    /// Print what the run would take of the device's memory, and end: nothing is loaded.
    #[arg(long, help_heading = "Memory")]
    pub plan: bool,

    /// Print the time of every GPU command, which makes the run slower.
    #[arg(long, help_heading = "Files and reports")]
    pub profile: bool,

    /// Print how every matrix product is cut into workgroups, and whether that is the default or was tuned.
    #[arg(long, help_heading = "Files and reports")]
    pub choices: bool,

    /// First measure, in about so many seconds, which way of cutting matrix products is fastest on this device, and
    /// keep that in the system's folder for caches, for later runs; pictures change by rounding.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "10",
        help_heading = "Device")]
    tune: Option<f64>,

    /// Print nothing but errors and warnings.
    #[arg(long, short, help_heading = "Files and reports")]
    pub quiet: bool,
}

impl Options {
    /// How long to tune, if at all.
    pub(crate) fn budget(&self) -> Result<Option<Duration>> {
        let seconds = |seconds: f64| match Duration::try_from_secs_f64(seconds) {
            Ok(budget) if !budget.is_zero() && seconds <= 3600.0 => Ok(budget),
            _ => Err(Error::option("tune", format!("expected up to 3600 seconds, found {seconds}"))),
        };
        self.tune.map(seconds).transpose()
    }

    /// The request, but for what depends on the loaded model: the cache.
    pub(crate) fn request(&self, kind: ModelKind) -> Result<Request> {
        self.conditions.check(&self.model.model, kind, self.prompt.is_some())?;
        let condition = match kind {
            ModelKind::ClassConditional => {
                let labels = self.conditions.labels()?;
                // Each as often as there are pictures of it; one for all needs no repetition.
                let each = if labels.len() == 1 { 1 } else { self.count.min(1 << 16) };
                let all = labels.iter().flat_map(|label| std::iter::repeat_n(*label, each));
                Condition::ClassLabels(all.collect())
            }
            ModelKind::TextToImage => match &self.prompt {
                Some(prompt) => Condition::Prompt {
                    prompt: prompt.clone(),
                    negative_prompt: self.conditions.negative_prompt(),
                },
                None => return Err(Error::option("prompt", "expected what the picture shows")),
            },
            _ => Condition::Nothing,
        };
        let count = match &condition {
            Condition::ClassLabels(labels) if labels.len() > 1 => labels.len(),
            _ => self.count,
        };
        let read = |path: &Option<PathBuf>, option| {
            path.as_ref().map(|path| Picture::read(path, option)).transpose()
        };
        let (image, mask_image) = (read(&self.image, "image")?, read(&self.mask, "mask")?);
        let (strength, preview_every) = (self.strength, self.preview.as_ref().map(|_| self.preview_every));
        let request = self.sampling.request(condition)?;
        let request = Request { count, preview_every, image, mask_image, strength, ..request };
        self.conditions.worded(self.refining.first(request))
    }
}
