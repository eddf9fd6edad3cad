//! The directory of a diffusers pipeline: which files make up a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

pub(super) const INDEX: &str = "model_index.json";
/// The classes that stand for each part, as `model_index.json` names them.
const PARTS: [(&str, &[&str]); 4] = [
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
];

/// Those that an SDXL model has besides.
const MORE_PARTS: [(&str, &[&str]); 2] = [
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"]),
];

/// The files of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its `config.json`.
    pub config: PathBuf,
    /// Its safetensors files: one, or the shards in the order of their names.
    pub weights: Vec<PathBuf>,
}

/// A Stable Diffusion model as diffusers lays it out on disk.
///
/// Agrees with `diffusers.StableDiffusionPipeline.from_pretrained(path)`. Where both are there, the plain files
/// are preferred to the `fp16` variant, and one file to shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableDiffusionFiles {
    /// The U-Net.
    pub unet: Component,
    /// The autoencoder.
    pub vae: Component,
    /// The text encoder.
    pub text_encoder: Component,
    /// The folder with the tokenizer's files.
    pub tokenizer: PathBuf,
    /// The scheduler's `scheduler_config.json`.
    pub scheduler: PathBuf,
}

/// An SDXL model as diffusers lays it out on disk.
///
/// Agrees with `diffusers.StableDiffusionXLPipeline.from_pretrained(path)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StableDiffusionXlFiles {
    /// The U-Net.
    pub unet: Component,
    /// The autoencoder.
    pub vae: Component,
    /// Both text encoders; the second has a projection.
    pub text_encoders: [Component; 2],
    /// The folders with the files of their tokenizers.
    pub tokenizers: [PathBuf; 2],
    /// The scheduler's `scheduler_config.json`.
    pub scheduler: PathBuf,
    /// Whether zeros stand for an empty negative prompt.
    pub force_zeros_for_empty_prompt: bool,
}

impl StableDiffusionXlFiles {
    /// Finds the files of a model; none is read.
    pub(super) fn find(root: &Path, index: &Path, entries: &Map<String, Value>) -> Result<Self> {
        const ZEROS: &str = "force_zeros_for_empty_prompt";
        for (part, classes) in PARTS.into_iter().chain(MORE_PARTS) {
            check_class(index, entries, part, classes)?;
        }
        class_of(index, entries, "scheduler")?;
        let force_zeros_for_empty_prompt = match entries.get(ZEROS) {
            None | Some(Value::Null) => true,
            Some(Value::Bool(flag)) => *flag,
            Some(found) => {
                return Err(Error::config(index, ZEROS, format!("found {found}, expected true or false")));
            }
        };
        Ok(Self {
            unet: component(root, "unet", "diffusion_pytorch_model")?,
            vae: component(root, "vae", "diffusion_pytorch_model")?,
            text_encoders: [
                component(root, "text_encoder", "model")?,
                component(root, "text_encoder_2", "model")?,
            ],
            tokenizers: [tokenizer(root, "tokenizer")?, tokenizer(root, "tokenizer_2")?],
            scheduler: scheduler(root)?,
            force_zeros_for_empty_prompt,
        })
    }
}

impl StableDiffusionFiles {
    /// Finds the files of a model; none is read.
    pub(super) fn find(root: &Path, index: &Path, entries: &Map<String, Value>) -> Result<Self> {
        for (part, classes) in PARTS {
            check_class(index, entries, part, classes)?;
        }
        class_of(index, entries, "scheduler")?;
        Ok(Self {
            unet: component(root, "unet", "diffusion_pytorch_model")?,
            vae: component(root, "vae", "diffusion_pytorch_model")?,
            text_encoder: component(root, "text_encoder", "model")?,
            tokenizer: tokenizer(root, "tokenizer")?,
            scheduler: scheduler(root)?,
        })
    }
}

/// Checks that a part is one of these classes.
pub(super) fn check_class(
    index: &Path,
    entries: &Map<String, Value>,
    part: &str,
    classes: &[&str],
) -> Result<()> {
    let class = class_of(index, entries, part)?;
    if classes.contains(&class) {
        return Ok(());
    }
    let problem = format!("found \"{class}\", supported is {}", classes.join(" or "));
    Err(Error::config(index, part, problem))
}

/// The scheduler's file, in its folder or, as in the first models of diffusers, beside `model_index.json`.
pub(super) fn scheduler(root: &Path) -> Result<PathBuf> {
    const NAME: &str = "scheduler_config.json";
    if root.join(NAME).is_file() {
        return Ok(root.join(NAME));
    }
    existing(folder(root, "scheduler")?.join(NAME))
}

/// The class of a part: the second of `["diffusers", "UNet2DConditionModel"]`.
fn class_of<'a>(index: &Path, entries: &'a Map<String, Value>, part: &str) -> Result<&'a str> {
    let Some(entry) = entries.get(part) else {
        return Err(Error::config(index, part, "is missing, expected [library, class]"));
    };
    entry
        .as_array()
        .filter(|pair| pair.len() == 2)
        .and_then(|pair| pair[1].as_str())
        .ok_or_else(|| Error::config(index, part, format!("found {entry}, expected [library, class]")))
}

fn folder(root: &Path, name: &str) -> Result<PathBuf> {
    let folder = root.join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::config_file(root.join(INDEX), format!("the folder {name} beside it is missing")))
}

fn existing(file: PathBuf) -> Result<PathBuf> {
    if file.is_file() { Ok(file) } else { Err(Error::config_file(file, "does not exist")) }
}

fn tokenizer(root: &Path, name: &str) -> Result<PathBuf> {
    let folder = folder(root, name)?;
    let has = |name: &str| folder.join(name).is_file();
    if has("tokenizer.json") || (has("vocab.json") && has("merges.txt")) {
        return Ok(folder);
    }
    Err(Error::config_file(folder, "holds neither tokenizer.json nor vocab.json with merges.txt"))
}

pub(super) fn component(root: &Path, name: &str, stem: &str) -> Result<Component> {
    component_in(&folder(root, name)?, stem)
}

/// The network whose files lie in a folder.
pub(super) fn component_in(folder: &Path, stem: &str) -> Result<Component> {
    let config = existing(folder.join("config.json"))?;
    Ok(Component { config, weights: weight_files(folder, stem)? })
}

fn weight_files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let single = |variant: &str| folder.join(format!("{stem}{variant}.safetensors"));
    let shards = [
        (folder.join(format!("{stem}.safetensors.index.json")), ""),
        (folder.join(format!("{stem}.safetensors.index.fp16.json")), ".fp16"),
        (folder.join(format!("{stem}.fp16.safetensors.index.json")), ".fp16"),
    ];
    for variant in ["", ".fp16"] {
        if single(variant).is_file() {
            return Ok(vec![single(variant)]);
        }
        if let Some((index, _)) = shards.iter().find(|(index, of)| *of == variant && index.is_file()) {
            return shard_files(folder, index);
        }
    }
    let entries = folder.read_dir().map_err(|source| Error::io(folder, "list", source))?;
    let old = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "bin" || extension == "ckpt"));
    Err(match old {
        Some(file) => Error::weights_file(
            file,
            format!(
                "is a PyTorch pickle, which is not read: convert the model to safetensors ({stem}.safetensors)"
            ),
        ),
        None => Error::weights_file(
            folder,
            format!(
                "has no weights: looked for {stem}.safetensors, {stem}.fp16.safetensors and {stem}.safetensors.index.json"
            ),
        ),
    })
}

/// The files that an index of shards names, each of which must lie beside it.
fn shard_files(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let entries = read_object(index)?;
    let Some(tensors) = entries.get("weight_map").and_then(Value::as_object) else {
        return Err(Error::config(index, "weight_map", "is missing, expected the file of every tensor"));
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in tensors {
        match file.as_str() {
            Some(name) if is_plain(name) => names.insert(name),
            _ => {
                let problem = format!("found {file} for \"{tensor}\", expected the name of a file beside it");
                return Err(Error::config(index, "weight_map", problem));
            }
        };
    }
    if names.is_empty() {
        return Err(Error::config(index, "weight_map", "is empty, expected the file of every tensor"));
    }
    let files: Vec<PathBuf> = names.into_iter().map(|name| folder.join(name)).collect();
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => {
            Err(Error::weights_file(file, format!("does not exist, but {} names it", index.display())))
        }
        None => Ok(files),
    }
}

/// Whether a name stays within its folder.
fn is_plain(name: &str) -> bool {
    name.ends_with(".safetensors") && !name.contains(['/', '\\', ':'])
}

pub(super) fn read_object(file: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::io(file, "read", source))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(Error::config_file(file, "is not a JSON object")),
        Err(error) => Err(Error::config_file(file, format!("is not JSON: {error}"))),
    }
}
