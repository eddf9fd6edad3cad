//! Files in the place of a model's own.

use std::path::{Path, PathBuf};

use super::directory::{INDEX, NetworkFiles, component, component_in, file_name, read_object};
use crate::error::{Error, Result};

/// Files in the place of a model's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replacements {
    /// For Stable Diffusion in one file: a diffusers directory, which needs no weights, for what one file cannot
    /// tell. Of `unet/config.json`, `vae/config.json`, `text_encoder/config.json`,
    /// `scheduler/scheduler_config.json` and `tokenizer/` it has what is needed.
    pub config: Option<PathBuf>,
    /// A VAE: a safetensors file, a folder with one, or a whole diffusers directory.
    pub vae: Option<PathBuf>,
}

/// The files of a VAE; `of_model` is the configuration of the VAE that it replaces, for one that brings none.
pub(super) fn vae_files(path: &Path, of_model: Option<PathBuf>) -> Result<NetworkFiles> {
    const STEM: &str = "diffusion_pytorch_model";
    let refuse = |problem: &str| Err(Error::option("vae", format!("{} {problem}", path.display())));
    if !path.exists() {
        return refuse("does not exist");
    }
    if path.is_file() {
        let own = path.with_file_name("config.json");
        let config = if describes_vae(&own) { Some(own) } else { of_model };
        return Ok(NetworkFiles { config, weights: vec![path.to_owned()] });
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
        [file] => Ok(NetworkFiles { config: of_model, weights: vec![file.clone()] }),
        [] => refuse(
            "holds no VAE: expected config.json with diffusion_pytorch_model.safetensors, or one .safetensors file",
        ),
        several => {
            let names: Vec<String> = several.iter().map(|file| file_name(file)).collect();
            refuse(&format!("holds several files: choose one of {}", names.join(", ")))
        }
    }
}

/// Whether a file is the configuration of a VAE; others may lie beside a file that was downloaded by itself.
fn describes_vae(config: &Path) -> bool {
    read_object(config)
        .is_ok_and(|entries| entries.get("_class_name").is_some_and(|class| class == "AutoencoderKL"))
}
