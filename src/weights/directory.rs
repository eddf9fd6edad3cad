//! The directory of a diffusers pipeline: which files make up a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

const INDEX: &str = "model_index.json";
const PIPELINE: &str = "StableDiffusionPipeline";

/// The classes that stand for each part, as `model_index.json` names them.
const PARTS: [(&str, &[&str]); 4] = [
    ("unet", &["UNet2DConditionModel"]),
    ("vae", &["AutoencoderKL"]),
    ("text_encoder", &["CLIPTextModel"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
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
pub struct ModelDirectory {
    /// The directory itself.
    pub root: PathBuf,
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
    /// The scheduler's class, as `model_index.json` names it: `PNDMScheduler`.
    pub scheduler_class: String,
}

impl ModelDirectory {
    /// Finds the files of a model; none but the small JSON files is read.
    ///
    /// # Errors
    /// [`Error::Option`] if `path` is not a directory, [`Error::Config`] if it is not a Stable Diffusion pipeline
    /// or a file is missing, [`Error::Weights`] if there are no safetensors files, [`Error::Io`] if a file cannot
    /// be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let root = path.as_ref();
        check_root(root)?;
        let index = root.join(INDEX);
        let entries = read_object(&index)?;
        check_pipeline(&index, &entries)?;
        for (part, classes) in PARTS {
            let class = class_of(&index, &entries, part)?;
            if !classes.contains(&class) {
                let problem = format!("found \"{class}\", supported is {}", classes.join(" or "));
                return Err(Error::config(&index, part, problem));
            }
        }
        Ok(Self {
            root: root.to_owned(),
            unet: component(root, "unet", "diffusion_pytorch_model")?,
            vae: component(root, "vae", "diffusion_pytorch_model")?,
            text_encoder: component(root, "text_encoder", "model")?,
            tokenizer: tokenizer(root)?,
            scheduler: existing(folder(root, "scheduler")?.join("scheduler_config.json"))?,
            scheduler_class: class_of(&index, &entries, "scheduler")?.to_owned(),
        })
    }
}

fn check_root(root: &Path) -> Result<()> {
    let refuse = |problem: &str| Err(Error::option("model", format!("{} {problem}", root.display())));
    if !root.exists() {
        return refuse("does not exist, expected the directory of a diffusers model");
    }
    if !root.is_dir() {
        return refuse("is a file, expected the directory of a diffusers model (it holds model_index.json)");
    }
    let mut entries = root.read_dir().map_err(|source| Error::io(root, "list", source))?;
    if entries.next().is_none() {
        return refuse(
            "is empty, expected model_index.json and the folders unet, vae, text_encoder, tokenizer, scheduler",
        );
    }
    if !root.join(INDEX).is_file() {
        return refuse("has no model_index.json, so it is not the directory of a diffusers model");
    }
    Ok(())
}

fn check_pipeline(index: &Path, entries: &Map<String, Value>) -> Result<()> {
    match entries.get("_class_name").and_then(Value::as_str) {
        Some(PIPELINE) => Ok(()),
        Some(other) => {
            Err(Error::config(index, "_class_name", format!("found \"{other}\", supported is {PIPELINE}")))
        }
        None => Err(Error::config(index, "_class_name", format!("is missing, expected \"{PIPELINE}\""))),
    }
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

fn tokenizer(root: &Path) -> Result<PathBuf> {
    let folder = folder(root, "tokenizer")?;
    let has = |name: &str| folder.join(name).is_file();
    if has("tokenizer.json") || (has("vocab.json") && has("merges.txt")) {
        return Ok(folder);
    }
    Err(Error::config_file(folder, "holds neither tokenizer.json nor vocab.json with merges.txt"))
}

fn component(root: &Path, name: &str, stem: &str) -> Result<Component> {
    let folder = folder(root, name)?;
    let config = existing(folder.join("config.json"))?;
    Ok(Component { config, weights: weight_files(&folder, stem)? })
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

fn read_object(file: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::io(file, "read", source))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(entries)) => Ok(entries),
        Ok(_) => Err(Error::config_file(file, "is not a JSON object")),
        Err(error) => Err(Error::config_file(file, format!("is not JSON: {error}"))),
    }
}
