//! The command line.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser};
use deepcache::models::latent_diffusion::{IMAGENET_CLASSES, find_imagenet_class};
use deepcache::pipelines::{Condition, LoadOptions, Request, StorageType};
use deepcache::weights::ModelKind;
use deepcache::{Error, Result};

use crate::cache::Cache;

/// The model that stands beside this program: small, really trained, 128x128 pictures of coloured shapes.
const DEFAULT_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny");

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
  generate --model ~/models/cin256 --class-label \"golden retriever\" --cache-interval 5
  generate --model ~/models/ddpm-cifar10-32 --scheduler ddim --steps 100
  generate --list-devices"
)]
pub(crate) struct Options {
    /// What the picture shows, for a text-to-image model.
    pub prompt: Option<String>,

    /// The model: a directory of the diffusers layout (Stable Diffusion v1, latent diffusion, DDPM), or an original
    /// checkpoint (.safetensors) with its YAML file beside it.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_MODEL, hide_default_value = true)]
    pub model: PathBuf,

    /// What the picture does not show.
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,

    /// The class that the picture shows, for a class-conditional model: a number, or an ImageNet name such as "golden
    /// retriever". May be given several times: each gets --count pictures.
    #[arg(long, value_name = "CLASS")]
    class_label: Vec<String>,

    /// Denoising steps, 1 to 1000: more is finer and slower [default: 50 from text, 250 for classes, 100 otherwise,
    /// 1000 with ddpm].
    #[arg(long, value_name = "N")]
    steps: Option<usize>,

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
    scheduler: Option<String>,

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
    seed: u64,

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

    /// Number of pictures, all from one seed; the files are numbered: out-0.png, out-1.png, …
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,

    /// The PNG file to write.
    #[arg(long, value_name = "FILE", default_value = "out.png")]
    pub output: PathBuf,

    #[command(flatten)]
    pub cache: Cache,

    /// The GPU, by its number or a part of its name, as --list-devices shows them.
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    device: Option<String>,

    /// Show the GPUs of this machine and end.
    #[arg(long, help_heading = "Device")]
    pub list_devices: bool,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long, value_name = "TYPE", help_heading = "Device")]
    dtype: Option<String>,

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
            if long == "prompt" {
                return format!("PROMPT: {problem} (--help shows all options)");
            }
            if Self::command().get_arguments().any(|argument| argument.get_long() == Some(&long)) {
                return format!("--{long}: {problem}");
            }
        }
        error.to_string()
    }

    pub(crate) fn load_options(&self) -> Result<LoadOptions> {
        let storage = self.dtype.as_deref().map(str::parse::<StorageType>).transpose()?;
        Ok(LoadOptions { device: self.device.clone(), storage })
    }

    /// The request, but for what depends on the loaded model: the cache.
    pub(crate) fn request(&self, kind: ModelKind) -> Result<Request> {
        let condition = self.condition(kind)?;
        let labels = match &condition {
            Condition::ClassLabels(labels) => labels.len(),
            _ => 1,
        };
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
            count: self.count.saturating_mul(labels),
            cache: None,
            latents: None,
        })
    }

    /// What the pictures are made from, which must be what this kind of model wants.
    fn condition(&self, kind: ModelKind) -> Result<Condition> {
        let refuse = |option: &str, problem: String| Err(Error::option(option, problem));
        let given = [
            ("prompt", self.prompt.is_some(), ModelKind::TextToImage),
            ("negative prompt", self.negative_prompt.is_some(), ModelKind::TextToImage),
            ("class label", !self.class_label.is_empty(), ModelKind::ClassConditional),
        ];
        for (option, given, wanted_by) in given {
            if given && kind != wanted_by {
                let model = self.model.display();
                return refuse(option, format!("{model} is not a {wanted_by} model, but {kind}"));
            }
        }
        match kind {
            ModelKind::ClassConditional if self.class_label.is_empty() => {
                refuse("class label", "expected the number or the name of a class".to_owned())
            }
            ModelKind::ClassConditional => {
                let labels: Vec<usize> =
                    self.class_label.iter().map(|label| class(label)).collect::<Result<_>>()?;
                let each = self.count.min(1 << 16);
                let all = labels.iter().flat_map(|label| std::iter::repeat_n(*label, each));
                Ok(Condition::ClassLabels(if labels.len() == 1 { labels } else { all.collect() }))
            }
            ModelKind::TextToImage => match &self.prompt {
                Some(prompt) => Ok(Condition::Prompt {
                    prompt: prompt.clone(),
                    negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
                }),
                None => refuse("prompt", "expected what the picture shows".to_owned()),
            },
            _ => Ok(Condition::Nothing),
        }
    }
}

/// A class by its number or its ImageNet name.
fn class(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => find_imagenet_class(text),
    }
}

/// Refuses names of ImageNet for a model of other classes.
pub(crate) fn check_names(options: &Options, classes: usize) -> Result<()> {
    let named = options.class_label.iter().find(|label| label.parse::<usize>().is_err());
    match named.filter(|_| classes != IMAGENET_CLASSES) {
        None => Ok(()),
        Some(name) => {
            let problem = format!(
                "\"{name}\" is a name of ImageNet, but this model has {classes} classes: use a number"
            );
            Err(Error::option("class label", problem))
        }
    }
}
