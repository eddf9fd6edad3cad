//! The directory of a diffusers pipeline: the files of its parts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::pickles::{PICKLE, is_pickle_file};
use crate::error::{Error, Result};

pub(super) const INDEX: &str = "model_index.json";

/// The files of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its `config.json`.
    pub config: PathBuf,
    /// Its safetensors files: one, or the shards in the order of their names.
    pub weights: Vec<PathBuf>,
}

/// The files of one network, whose shape may have to be told from its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFiles {
    /// Its `config.json`; without one, the shapes of its tensors decide.
    pub config: Option<PathBuf>,
    /// Its safetensors files, which may hold other networks too: one, or the shards in the order of their names.
    pub weights: Vec<PathBuf>,
}

impl From<Component> for NetworkFiles {
    fn from(component: Component) -> Self {
        Self { config: Some(component.config), weights: component.weights }
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
pub(super) fn class_of<'a>(index: &Path, entries: &'a Map<String, Value>, part: &str) -> Result<&'a str> {
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

pub(super) fn tokenizer(root: &Path, name: &str) -> Result<PathBuf> {
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

/// The variants that are looked for, the plain files first.
const VARIANTS: [&str; 4] = ["", ".fp16", ".bf16", ".fp32"];

fn weight_files(folder: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    for variant in VARIANTS {
        let single = folder.join(format!("{stem}{variant}.safetensors"));
        if single.is_file() {
            return Ok(vec![single]);
        }
        let indices = [
            format!("{stem}.safetensors.index{variant}.json"),
            format!("{stem}{variant}.safetensors.index.json"),
        ];
        if let Some(index) = indices.iter().map(|name| folder.join(name)).find(|index| index.is_file()) {
            return shard_files(folder, &index);
        }
    }
    let entries = folder.read_dir().map_err(|source| Error::io(folder, "list", source))?;
    let files: Vec<PathBuf> = entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).collect();
    if let Some(file) = files.iter().find(|file| is_pickle_file(file)) {
        return Err(Error::weights_file(file, PICKLE));
    }
    let named = |file: &&PathBuf| {
        let extensions = ["safetensors", "bin", "ckpt", "pt", "pth"];
        file.extension().is_some_and(|found| extensions.iter().any(|extension| found == *extension))
    };
    let others: Vec<String> = files.iter().filter(named).map(|file| file_name(file)).collect();
    let found = if others.is_empty() { String::new() } else { format!("; there is {}", others.join(", ")) };
    let problem = format!(
        "has no weights: looked for {stem}.safetensors, {stem}.safetensors.index.json and the variants fp16, bf16 \
         and fp32{found}"
    );
    Err(Error::weights_file(folder, problem))
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

pub(super) fn file_name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
