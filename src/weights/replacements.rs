//! Files in the place of a model's own.

use std::path::{Path, PathBuf};

use super::checkpoint::Checkpoint;
use super::directory::{INDEX, NetworkFiles, component, component_in, file_name, read_object};
use crate::error::{Error, Result};

/// Files in the place of a model's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements {
    /// For Stable Diffusion in one file: a diffusers directory, which needs no weights, for what one file cannot
    /// tell. Of `unet/config.json`, `vae/config.json`, `text_encoder/config.json`,
    /// `scheduler/scheduler_config.json` and `tokenizer/` it has what is needed.
    pub config: Option<PathBuf>,
    /// A VAE, or a tiny autoencoder (TAESD): a safetensors file, a folder with one, or a whole diffusers directory.
    pub vae: Option<PathBuf>,
}

/// The files of a VAE that an option names; `of_model` is the configuration of the VAE that it replaces, for one that brings none.
pub(crate) fn vae_files(option: &str, path: &Path, of_model: Option<PathBuf>) -> Result<NetworkFiles> {
    const STEM: &str = "diffusion_pytorch_model";
    let refuse = |problem: &str| Err(Error::option(option, format!("{} {problem}", path.display())));
    if !path.exists() {
        return refuse("does not exist");
    }
    if path.is_file() {
        return one_file(path, of_model);
    }
    if path.join("config.json").is_file() {
        return Ok(component_in(path, STEM)?.into());
    }
    if path.join(INDEX).is_file() || path.join("vae").join("config.json").is_file() {
        return Ok(component(path, "vae", STEM)?.into());
    }
    let entries = path.read_dir().map_err(|source| Error::io(path, "list", source))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|found| found == "safetensors"))
        .collect();
    files.sort();
    match &files[..] {
        [file] => one_file(file, of_model),
        [] => refuse(
            "holds no VAE: expected config.json with diffusion_pytorch_model.safetensors, or one .safetensors file",
        ),
        several => {
            let names: Vec<String> = several.iter().map(|file| file_name(file)).collect();
            refuse(&format!("holds several files: choose one of {}", names.join(", ")))
        }
    }
}

/// A VAE or a tiny autoencoder in one file, with the configuration beside it, or that of the model, which is for one of
/// the same class only. Others may lie beside a file that was downloaded by itself.
fn one_file(file: &Path, of_model: Option<PathBuf>) -> Result<NetworkFiles> {
    let is_tiny = Checkpoint::open(&[file.to_owned()])?.has_tiny_autoencoder();
    let class = if is_tiny { "AutoencoderTiny" } else { "AutoencoderKL" };
    let own = Some(file.with_file_name("config.json"))
        .filter(|own| class_of_config(own).is_some_and(|own| own == class));
    let config = own.or_else(|| {
        of_model.filter(|config| class_of_config(config).map_or(!is_tiny, |found| found == class))
    });
    Ok(NetworkFiles { config, weights: vec![file.to_owned()] })
}

/// The class that a configuration says it is for; none for a file that cannot be read.
pub(super) fn class_of_config(config: &Path) -> Option<String> {
    Some(read_object(config).ok()?.get("_class_name")?.as_str()?.to_owned())
}
