//! Which model a path holds, recognised from its files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::Checkpoint;
use super::directory::{
    Component, INDEX, check_class, component, component_in, file_name, read_object, scheduler,
};
use super::pickles::{PICKLE, is_pickle_file};
use super::recognition::CheckpointKind;
use super::replacements::Replacements;
use super::single_file::SingleFile;
use super::stable_diffusion::{Directory, RefinerFiles, StableDiffusionFiles, StableDiffusionXlFiles};
use crate::error::{Error, Result};

/// The pipelines of diffusers whose U-Net makes pixels.
const PIXEL_PIPELINES: [&str; 3] = ["DDPMPipeline", "DDIMPipeline", "PNDMPipeline"];

/// What is looked for, for a path that holds none of it.
const SUPPORTED: &str = "a diffusers directory (model_index.json with StableDiffusionPipeline, \
    StableDiffusionXLPipeline, LDMPipeline, DDPMPipeline or DDIMPipeline), or an original checkpoint \
    (one .safetensors file: Stable Diffusion 1, 2 or XL; with its \
    .yaml beside it: latent diffusion on ImageNet classes, or ermongroup/ddim)";

/// What a model makes pictures from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelKind {
    /// A prompt: Stable Diffusion.
    TextToImage,
    /// The label of a class: latent diffusion on ImageNet.
    ClassConditional,
    /// Nothing but noise: DDPM, unconditional latent diffusion.
    Unconditional,
}

impl std::fmt::Display for ModelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TextToImage => "text to image",
            Self::ClassConditional => "class-conditional",
            Self::Unconditional => "unconditional",
        })
    }
}

/// The files of a model, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelFiles {
    /// `StableDiffusionPipeline` in diffusers' layout, or Stable Diffusion 1 or 2 in one file.
    StableDiffusion(Box<StableDiffusionFiles>),
    /// `StableDiffusionXLPipeline` in diffusers' layout, or Stable Diffusion XL in one file.
    StableDiffusionXl(Box<StableDiffusionXlFiles>),
    /// The refiner of Stable Diffusion XL: `StableDiffusionXLImg2ImgPipeline` in diffusers' layout, or in one file.
    StableDiffusionXlRefiner(Box<RefinerFiles>),
    /// `LDMPipeline` in diffusers' layout: unconditional latent diffusion.
    LatentDiffusion {
        /// A `UNet2DModel`.
        unet: Component,
        /// A `VQModel`.
        vqvae: Component,
        /// The scheduler's `scheduler_config.json`.
        scheduler: PathBuf,
    },
    /// `DDPMPipeline` or `DDIMPipeline` in diffusers' layout: a U-Net that makes pixels.
    Pixels {
        /// A `UNet2DModel`.
        unet: Component,
        /// The scheduler's `scheduler_config.json`.
        scheduler: PathBuf,
    },
    /// Class-conditional latent diffusion as the original code lays it out: every network in one file.
    OriginalLatentDiffusion(Original),
    /// A U-Net that makes pixels, of the original DDIM code.
    OriginalDdpm(Original),
}

/// A checkpoint in one file, and the YAML file that describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// The safetensors file.
    pub weights: PathBuf,
    /// The YAML file.
    pub config: PathBuf,
}

impl ModelFiles {
    /// What the model makes pictures from.
    #[must_use]
    pub fn kind(&self) -> ModelKind {
        match self {
            Self::StableDiffusion(_) | Self::StableDiffusionXl(_) | Self::StableDiffusionXlRefiner(_) => {
                ModelKind::TextToImage
            }
            Self::OriginalLatentDiffusion(_) => ModelKind::ClassConditional,
            Self::LatentDiffusion { .. } | Self::Pixels { .. } | Self::OriginalDdpm(_) => {
                ModelKind::Unconditional
            }
        }
    }

    /// Finds out what a path holds, from `model_index.json` or from the names of a checkpoint's tensors.
    ///
    /// # Errors
    /// [`Error::Option`] if the path holds no model that is known here, saying what was looked for;
    /// [`Error::Config`] and [`Error::Weights`] if files of it are missing, and [`Error::Io`] if one cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Replacements::default())
    }

    /// As [`open`](Self::open), with other files in the place of the model's own.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::Option`] if the model has no place for such files.
    pub fn open_with(path: impl AsRef<Path>, replacements: &Replacements) -> Result<Self> {
        let path = path.as_ref();
        let files = Self::find(path, replacements)?;
        if replacements.vae.is_some() && files.kind() != ModelKind::TextToImage {
            let problem = format!("{} is not a Stable Diffusion model, so it has no VAE", path.display());
            return Err(Error::option("vae", problem));
        }
        let in_one_file = match &files {
            Self::StableDiffusion(files) => files.unet.weights == files.text_encoder.weights,
            Self::StableDiffusionXl(files) => files.unet.weights == files.text_encoders[0].weights,
            Self::StableDiffusionXlRefiner(files) => files.unet.weights == files.text_encoder_2.weights,
            _ => false,
        };
        if replacements.config.is_some() && !in_one_file {
            let problem = format!(
                "is for Stable Diffusion in one file, but {} has its configuration beside it",
                path.display()
            );
            return Err(Error::option("config", problem));
        }
        Ok(files)
    }

    fn find(path: &Path, replacements: &Replacements) -> Result<Self> {
        let refuse = |problem: &str| Err(Error::option("model", format!("{} {problem}", path.display())));
        if !path.exists() {
            return refuse(&format!("does not exist, expected {SUPPORTED}"));
        }
        if !path.is_dir() {
            return original_file(path, replacements);
        }
        let entries = path.read_dir().map_err(|source| Error::io(path, "list", source))?;
        let files: Vec<PathBuf> =
            entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).collect();
        if files.is_empty() {
            return refuse(&format!("is empty, expected {SUPPORTED}"));
        }
        if path.join(INDEX).is_file() {
            return directory(path, replacements);
        }
        match &with_extension(&files, &["safetensors"])[..] {
            [] => match files.iter().find(|file| is_pickle_file(file)) {
                Some(pickle) => Err(Error::weights_file(pickle, PICKLE)),
                None => refuse(&format!("holds no model; looked for {SUPPORTED}")),
            },
            [weights] => original_file(weights, replacements),
            several => {
                let names: Vec<String> = several.iter().map(|file| file_name(file)).collect();
                refuse(&format!(
                    "has no model_index.json and several checkpoints: choose one of {}",
                    names.join(", ")
                ))
            }
        }
    }
}

/// A directory with a `model_index.json`.
fn directory(root: &Path, replacements: &Replacements) -> Result<ModelFiles> {
    let index = root.join(INDEX);
    let entries = read_object(&index)?;
    let of_diffusion = Directory { root, index: &index, entries: &entries, vae: replacements.vae.as_deref() };
    match entries.get("_class_name").and_then(Value::as_str) {
        Some(
            "StableDiffusionPipeline" | "StableDiffusionInpaintPipeline" | "LatentConsistencyModelPipeline",
        ) => Ok(ModelFiles::StableDiffusion(Box::new(StableDiffusionFiles::find(&of_diffusion)?))),
        Some("StableDiffusionXLPipeline" | "StableDiffusionXLInpaintPipeline") => {
            Ok(ModelFiles::StableDiffusionXl(Box::new(StableDiffusionXlFiles::find(&of_diffusion)?)))
        }
        // The class of refiners; of another SDXL model it is the same networks as for text to image.
        Some("StableDiffusionXLImg2ImgPipeline") if of_diffusion.has_none("text_encoder") => {
            Ok(ModelFiles::StableDiffusionXlRefiner(Box::new(RefinerFiles::find(&of_diffusion)?)))
        }
        Some("StableDiffusionXLImg2ImgPipeline") => {
            Ok(ModelFiles::StableDiffusionXl(Box::new(StableDiffusionXlFiles::find(&of_diffusion)?)))
        }
        Some("LDMPipeline") => {
            check_class(&index, &entries, "unet", &["UNet2DModel"])?;
            check_class(&index, &entries, "vqvae", &["VQModel"])?;
            Ok(ModelFiles::LatentDiffusion {
                unet: component(root, "unet", "diffusion_pytorch_model")?,
                vqvae: component(root, "vqvae", "diffusion_pytorch_model")?,
                scheduler: scheduler(root)?,
            })
        }
        Some(class) if PIXEL_PIPELINES.contains(&class) => {
            check_class(&index, &entries, "unet", &["UNet2DModel"])?;
            // The first models of this kind have all files in one folder.
            let unet = if root.join("unet").is_dir() {
                component(root, "unet", "diffusion_pytorch_model")?
            } else {
                component_in(root, "diffusion_pytorch_model")?
            };
            Ok(ModelFiles::Pixels { unet, scheduler: scheduler(root)? })
        }
        Some(other) => {
            let supported = ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "LDMPipeline"]
                .into_iter()
                .chain(PIXEL_PIPELINES);
            let supported: Vec<&str> = supported.collect();
            let problem = format!("found \"{other}\", supported are {}", supported.join(", "));
            Err(Error::config(&index, "_class_name", problem))
        }
        None => Err(Error::config(&index, "_class_name", "is missing, expected the class of a pipeline")),
    }
}

/// A checkpoint in one file, which its tensors' names tell apart.
fn original_file(weights: &Path, replacements: &Replacements) -> Result<ModelFiles> {
    let checkpoint = match Checkpoint::open(&[weights.to_owned()]) {
        Ok(checkpoint) => checkpoint,
        // Only what is called so is taken for a damaged one.
        Err(Error::Weights { problem, .. })
            if problem != PICKLE && weights.extension().is_none_or(|found| found != "safetensors") =>
        {
            let problem = format!("{} is not a checkpoint; expected {SUPPORTED}", weights.display());
            return Err(Error::option("model", problem));
        }
        Err(error) => return Err(error),
    };
    let single = SingleFile { path: weights, checkpoint: &checkpoint, replacements };
    match CheckpointKind::of(&checkpoint) {
        Some(kind @ (CheckpointKind::StableDiffusion1 | CheckpointKind::StableDiffusion2)) => {
            Ok(ModelFiles::StableDiffusion(Box::new(single.stable_diffusion(kind)?)))
        }
        Some(CheckpointKind::StableDiffusionXl) => {
            Ok(ModelFiles::StableDiffusionXl(Box::new(single.stable_diffusion_xl()?)))
        }
        Some(CheckpointKind::StableDiffusionXlRefiner) => {
            Ok(ModelFiles::StableDiffusionXlRefiner(Box::new(single.refiner()?)))
        }
        Some(CheckpointKind::ClassConditional) => Ok(ModelFiles::OriginalLatentDiffusion(original(weights)?)),
        Some(CheckpointKind::OriginalDdpm) => Ok(ModelFiles::OriginalDdpm(original(weights)?)),
        Some(other) => {
            Err(Error::weights_file(weights, format!("holds {}, {}", other.name(), other.advice())))
        }
        None => {
            let problem = "is not a model by the names of its tensors: looked for model.diffusion_model.* with \
                cond_stage_model.transformer.* (Stable Diffusion 1), cond_stage_model.model.* (2), \
                conditioner.embedders.* (XL) or cond_stage_model.embedding.* (latent diffusion on classes), and \
                temb.dense.* (ermongroup/ddim)";
            Err(Error::weights_file(weights, problem))
        }
    }
}

/// The YAML file of a checkpoint: of the same name, or the only one beside it.
fn original(weights: &Path) -> Result<Original> {
    let of_name = ["yaml", "yml"].map(|extension| weights.with_extension(extension));
    if let Some(config) = of_name.iter().find(|file| file.is_file()) {
        return Ok(Original { weights: weights.to_owned(), config: config.clone() });
    }
    let folder = match weights.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = folder.read_dir().map_err(|source| Error::io(folder, "list", source))?;
    let files: Vec<PathBuf> = entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).collect();
    match &with_extension(&files, &["yaml", "yml"])[..] {
        [config] => Ok(Original { weights: weights.to_owned(), config: (*config).clone() }),
        [] => Err(Error::config_file(
            &of_name[0],
            "does not exist, but an original checkpoint needs the YAML file that describes it beside it",
        )),
        several => {
            let names: Vec<String> = several.iter().map(|file| file_name(file)).collect();
            let problem = format!("does not exist, and there are several others: {}", names.join(", "));
            Err(Error::config_file(&of_name[0], problem))
        }
    }
}

fn with_extension<'a>(files: &'a [PathBuf], extensions: &[&str]) -> Vec<&'a PathBuf> {
    let mut found: Vec<&PathBuf> = files
        .iter()
        .filter(|file| file.extension().is_some_and(|found| extensions.iter().any(|one| found == *one)))
        .collect();
    found.sort();
    found
}
