//! The files of Stable Diffusion 1, 2 and XL.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::directory::{NetworkFiles, check_class, class_of, component, scheduler, tokenizer};
use super::recognition::CheckpointKind;
use super::replacements::{class_of_config, vae_files};
use crate::error::{Error, Result};

/// The classes that stand for each part, as `model_index.json` names them.
const PARTS: [(&str, &[&str]); 4] = [
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL", "AutoencoderTiny"]),
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
];

/// Those that an SDXL model has besides.
const MORE_PARTS: [(&str, &[&str]); 2] = [
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"]),
];

/// A Stable Diffusion model: as diffusers lays it out on disk, or in one file.
///
/// Agrees with `diffusers.StableDiffusionPipeline.from_pretrained(path)` and `from_single_file(path)`. Where several
/// are there, the plain files are preferred to variants, one file to shards, and of the variants `fp16` to `bf16` and
/// `fp32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableDiffusionFiles {
    /// The U-Net.
    pub unet: NetworkFiles,
    /// The autoencoder.
    pub vae: NetworkFiles,
    /// The text encoder.
    pub text_encoder: NetworkFiles,
    /// The folder with the tokenizer's files; without one, CLIP's own vocabulary is used.
    pub tokenizer: Option<PathBuf>,
    /// The noise schedule.
    pub scheduler: SchedulerSource,
    /// What the caller should tell its user about these files.
    pub warnings: Vec<String>,
}

/// An SDXL model: as diffusers lays it out on disk, or in one file.
///
/// Agrees with `diffusers.StableDiffusionXLPipeline.from_pretrained(path)` and `from_single_file(path)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableDiffusionXlFiles {
    /// The U-Net.
    pub unet: NetworkFiles,
    /// The autoencoder.
    pub vae: NetworkFiles,
    /// Both text encoders; the second has a projection.
    pub text_encoders: [NetworkFiles; 2],
    /// The folders with the files of their tokenizers; without one, CLIP's own vocabulary is used.
    pub tokenizers: [Option<PathBuf>; 2],
    /// The noise schedule.
    pub scheduler: SchedulerSource,
    /// Whether zeros stand for an empty negative prompt.
    pub force_zeros_for_empty_prompt: bool,
    /// What the caller should tell its user about these files.
    pub warnings: Vec<String>,
}

/// The refiner of SDXL: as diffusers lays it out on disk, or in one file.
///
/// Agrees with `diffusers.StableDiffusionXLImg2ImgPipeline.from_pretrained(path)` and `from_single_file(path)` of such a
/// model: it has the second of SDXL's text encoders only, and is told an aesthetic score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefinerFiles {
    /// The U-Net.
    pub unet: NetworkFiles,
    /// The autoencoder.
    pub vae: NetworkFiles,
    /// The text encoder, which has a projection.
    pub text_encoder_2: NetworkFiles,
    /// The folder with the tokenizer's files; without one, CLIP's own vocabulary is used.
    pub tokenizer_2: Option<PathBuf>,
    /// The noise schedule.
    pub scheduler: SchedulerSource,
    /// Whether zeros stand for an empty negative prompt.
    pub force_zeros_for_empty_prompt: bool,
    /// What the caller should tell its user about these files.
    pub warnings: Vec<String>,
}

/// Where a model's noise schedule comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchedulerSource {
    /// A `scheduler_config.json`.
    File(PathBuf),
    /// None is there: what the released models of this kind have.
    Released {
        /// Stable Diffusion 1, 2 or XL.
        kind: CheckpointKind,
        /// Whether the U-Net predicts the velocity (`v_prediction`) instead of the noise.
        velocity: bool,
        /// Whether the last training timestep is all noise (`rescale_betas_zero_snr`).
        zero_terminal_snr: bool,
    },
}

/// A diffusers directory and what its `model_index.json` says.
pub(super) struct Directory<'a> {
    pub(super) root: &'a Path,
    pub(super) index: &'a Path,
    pub(super) entries: &'a Map<String, Value>,
    /// What takes the place of its own VAE.
    pub(super) vae: Option<&'a Path>,
}

impl StableDiffusionFiles {
    /// Finds the files of a diffusers directory; none is read.
    pub(super) fn find(directory: &Directory<'_>) -> Result<Self> {
        directory.check_classes(PARTS)?;
        let mut warnings = Vec::new();
        Ok(Self {
            unet: directory.network("unet", "diffusion_pytorch_model")?,
            vae: directory.vae()?,
            text_encoder: directory.network("text_encoder", "model")?,
            tokenizer: directory.tokenizer("tokenizer", &mut warnings)?,
            scheduler: SchedulerSource::File(scheduler(directory.root)?),
            warnings,
        })
    }
}

impl StableDiffusionXlFiles {
    /// Finds the files of a diffusers directory; none is read.
    pub(super) fn find(directory: &Directory<'_>) -> Result<Self> {
        directory.check_classes(PARTS.into_iter().chain(MORE_PARTS))?;
        let mut warnings = Vec::new();
        Ok(Self {
            unet: directory.network("unet", "diffusion_pytorch_model")?,
            vae: directory.vae()?,
            text_encoders: [
                directory.network("text_encoder", "model")?,
                directory.network("text_encoder_2", "model")?,
            ],
            tokenizers: [
                directory.tokenizer("tokenizer", &mut warnings)?,
                directory.tokenizer("tokenizer_2", &mut warnings)?,
            ],
            scheduler: SchedulerSource::File(scheduler(directory.root)?),
            force_zeros_for_empty_prompt: directory.flag("force_zeros_for_empty_prompt", true)?,
            warnings,
        })
    }
}

impl RefinerFiles {
    /// Finds the files of a diffusers directory; none is read.
    pub(super) fn find(directory: &Directory<'_>) -> Result<Self> {
        const SCORE: &str = "requires_aesthetics_score";
        let parts = PARTS.into_iter().chain(MORE_PARTS);
        directory.check_classes(parts.filter(|(part, _)| !["text_encoder", "tokenizer"].contains(part)))?;
        if !directory.flag(SCORE, false)? {
            let problem = "found false, expected true, since there is no first text encoder, as in a refiner";
            return Err(Error::config(directory.index, SCORE, problem));
        }
        let mut warnings = Vec::new();
        Ok(Self {
            unet: directory.network("unet", "diffusion_pytorch_model")?,
            vae: directory.vae()?,
            text_encoder_2: directory.network("text_encoder_2", "model")?,
            tokenizer_2: directory.tokenizer("tokenizer_2", &mut warnings)?,
            scheduler: SchedulerSource::File(scheduler(directory.root)?),
            force_zeros_for_empty_prompt: directory.flag("force_zeros_for_empty_prompt", true)?,
            warnings,
        })
    }
}

impl Directory<'_> {
    fn check_classes<'a>(&self, parts: impl IntoIterator<Item = (&'a str, &'a [&'a str])>) -> Result<()> {
        for (part, classes) in parts {
            let absent = match part {
                "tokenizer" | "tokenizer_2" => self.lacks(part) && !self.entries.contains_key(part),
                "vae" => self.vae.is_some(),
                _ => false,
            };
            if !absent {
                check_class(self.index, self.entries, part, classes)?;
            }
        }
        class_of(self.index, self.entries, "scheduler").map(|_| ())
    }

    /// Whether a part is left out of the pipeline: `[null, null]`, or not named at all.
    pub(super) fn has_none(&self, part: &str) -> bool {
        match self.entries.get(part) {
            None | Some(Value::Null) => true,
            Some(Value::Array(pair)) => pair.iter().all(Value::is_null),
            Some(_) => false,
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.entries.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(found) => {
                let problem = format!("found {found}, expected true or false");
                Err(Error::config(self.index, key, problem))
            }
        }
    }

    fn lacks(&self, part: &str) -> bool {
        !self.root.join(part).exists()
    }

    fn network(&self, name: &str, stem: &str) -> Result<NetworkFiles> {
        Ok(component(self.root, name, stem)?.into())
    }

    fn vae(&self) -> Result<NetworkFiles> {
        let own = self.root.join("vae").join("config.json");
        match self.vae {
            Some(path) => vae_files("vae", path, own.is_file().then_some(own)),
            None => {
                self.check_class_of_vae(&own)?;
                self.network("vae", "diffusion_pytorch_model")
            }
        }
    }

    /// A VAE and a tiny autoencoder must not be taken for each other.
    fn check_class_of_vae(&self, config: &Path) -> Result<()> {
        let named = class_of(self.index, self.entries, "vae")?;
        match class_of_config(config) {
            Some(class) if class != named => {
                let problem = format!("found \"{named}\", but {} is of \"{class}\"", config.display());
                Err(Error::config(self.index, "vae", problem))
            }
            _ => Ok(()),
        }
    }

    fn tokenizer(&self, name: &str, warnings: &mut Vec<String>) -> Result<Option<PathBuf>> {
        if self.lacks(name) {
            let root = self.root.display();
            warnings.push(format!("{root} has no folder \"{name}\": CLIP's own vocabulary is used"));
            return Ok(None);
        }
        tokenizer(self.root, name).map(Some)
    }
}
