//! Models by their name on the Hugging Face hub, fetched into its usual cache. With the feature `download` only.
//!
//! The crate `hf-hub` makes the requests and resumes files. What it does not do is done around it: it is given a folder
//! of its own beside the cache, and only files whose size, and SHA-256 where the hub knows it (all weights), are right are
//! moved into the cache; the name of a revision is written last, when all files of the model are there.

mod fetch;
mod selection;
mod store;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

pub use fetch::fetch;

/// A model on the hub, `owner/name` or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// `owner/name`.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

impl FromStr for HubModel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let is_part = |part: &str| {
            let is_sign = |sign: char| sign.is_ascii_alphanumeric() || "-_.".contains(sign);
            (1..=96).contains(&part.len())
                && part.chars().all(is_sign)
                && !part.starts_with('.')
                && !part.contains("..")
        };
        let is_name = name.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name));
        if is_name && revision.split('/').all(is_part) {
            return Ok(Self { name: name.to_owned(), revision: revision.to_owned() });
        }
        let problem =
            format!("\"{text}\" is not owner/name or owner/name@revision, as models of the hub are called");
        Err(Error::option("model", problem))
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

/// Where models are fetched from, and where they are kept.
#[derive(Clone)]
pub struct HubOptions {
    /// The server.
    pub endpoint: String,
    /// The folder of the cache, which other programs may share.
    pub cache: PathBuf,
    /// What proves who asks, for models that not everyone may read.
    pub token: Option<String>,
    /// Whether nothing is asked of the server: only what is in the cache is found.
    pub offline: bool,
}

impl HubOptions {
    /// As the tools of the hub are told by the environment: `HF_ENDPOINT`; `HF_HUB_CACHE`, or `hub` in `HF_HOME`, or
    /// `.cache/huggingface/hub` in the user's folder; `HF_TOKEN`, or the file `token` beside the cache;
    /// `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`Error::Option`] if the environment names no folder for the cache.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
        let Some(folder) = variable("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(home()?).join(".cache/huggingface")))
        else {
            return Err(Error::option(
                "model",
                "there is no folder for the hub's cache: expected HF_HOME to name one",
            ));
        };
        let cache = variable("HF_HUB_CACHE").map_or_else(|| folder.join("hub"), PathBuf::from);
        let kept = std::fs::read_to_string(folder.join("token")).ok().map(|token| token.trim().to_owned());
        Ok(Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache,
            token: variable("HF_TOKEN").or(kept).filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE")
                .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())),
        })
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .finish()
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched<'a> {
    /// The file that is being fetched.
    pub file: &'a str,
    /// Bytes of the model that are there, those of earlier runs too.
    pub bytes: u64,
    /// Bytes of the model.
    pub of: u64,
}
