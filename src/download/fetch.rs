//! Fetches what is not in the cache yet.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use serde_json::{Map, Value};

use super::selection::{Listed, needed};
use super::store::{Store, is_hexadecimal, problem};
use super::{Fetched, HubModel, HubOptions};
use crate::error::{Error, Result};

const INDEX: &str = "model_index.json";
/// How often a transfer that breaks off is taken up again, if it got on.
const ATTEMPTS: usize = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Fetches what a model needs and the cache lacks; the folder of its files, which
/// [`ModelFiles::open`](crate::weights::ModelFiles::open) opens.
///
/// Of weights, 16-bit ones (`fp16`) are taken where there are any, one variant only, and no pickles. A transfer that breaks
/// off is taken up again, by a later call too. Where the server cannot be reached, a model that is in the cache is used as
/// it is there.
///
/// # Errors
/// [`Error::Option`] if there is no such model, it may not be read, is of no kind that is known here, or is not in the cache
/// and [`offline`](HubOptions::offline) is set; [`Error::Download`] if the server cannot be reached or a file
/// arrives damaged; [`Error::Io`] if the cache cannot be written. A model that was not fetched as a whole is none in the
/// cache.
pub fn fetch(
    model: &HubModel,
    options: &HubOptions,
    mut progress: impl FnMut(Fetched<'_>),
) -> Result<PathBuf> {
    let store = Store::new(model, options)?;
    if options.offline {
        return store.cached(&model.revision).ok_or_else(|| {
            let problem = format!(
                "{model} is not in {}, and HF_HUB_OFFLINE forbids to fetch it",
                options.cache.display()
            );
            Error::option("model", problem)
        });
    }
    let api = ApiBuilder::from_cache(Cache::new(store.staging.clone()))
        .with_endpoint(options.endpoint.trim_end_matches('/').to_owned())
        .with_token(options.token.clone())
        .with_progress(false)
        .with_retries(0)
        .build()
        .map_err(|error| failed(model, options, &error))?;
    let repository = |revision: &str| {
        api.repo(Repo::with_revision(model.name.clone(), RepoType::Model, revision.to_owned()))
    };
    let (commit, files) = match list(&repository(&model.revision)) {
        Ok(answer) => listing(&answer, model)?,
        Err(error) => {
            let failure = failed(model, options, &error);
            return match (failure, store.cached(&model.revision)) {
                (Error::Download { .. }, Some(cached)) => Ok(cached),
                (failure, _) => Err(failure),
            };
        }
    };

    let fetching =
        Fetching { model, options, store: &store, repository: repository(&commit), commit: &commit };
    let index = files.iter().find(|file| file.path == INDEX).ok_or_else(|| {
        Error::option("model", format!("{model} has no {INDEX}, so it is not in diffusers' layout"))
    })?;
    fetching.file(index, &mut |_| ())?;
    let entries = read_index(&store.snapshot(&commit).join(INDEX))?;
    let needed = needed(&entries, &files, &model.to_string())?;
    let of: u64 = needed.iter().map(|file| file.size).sum();
    let mut done = 0;
    for file in needed {
        fetching.file(file, &mut |bytes| {
            progress(Fetched { file: &file.path, bytes: done + bytes.min(file.size), of });
        })?;
        done += file.size;
    }
    store.finish(&model.revision, &commit)?;
    Ok(store.snapshot(&commit))
}

/// What the files of one model have in common.
struct Fetching<'a> {
    model: &'a HubModel,
    options: &'a HubOptions,
    store: &'a Store,
    repository: ApiRepo,
    commit: &'a str,
}

impl Fetching<'_> {
    /// Fetches one file into the cache, unless it is there.
    fn file(&self, file: &Listed, told: &mut dyn FnMut(u64)) -> Result<()> {
        told(0);
        if self.store.has(self.commit, file) {
            return Ok(());
        }
        let damaged =
            |problem: String| Error::Download { what: format!("{} of {}", file.path, self.model), problem };
        let unreadable = |path: &Path, error| Error::io(path, "read", error);
        let part = self.store.part(file);
        let length = || part.metadata().map_or(0, |found| found.len());
        // hf-hub goes on with a file of that name, and would ask for what lies behind its end.
        if length() > file.size {
            fs::remove_file(&part).map_err(|error| Error::io(&part, "remove", error))?;
        }
        let mut attempt = 0;
        let whole = loop {
            if length() == file.size && part.is_file() {
                break part.clone();
            }
            let before = length();
            let answer =
                self.repository.download_with_progress(&file.path, Told { told: &mut *told, bytes: 0 });
            match answer {
                Ok(link) => break link.canonicalize().map_err(|error| unreadable(&link, error))?,
                Err(error) => {
                    attempt += 1;
                    if attempt == ATTEMPTS || length() <= before {
                        return Err(match failed(self.model, self.options, &error) {
                            Error::Download { problem, .. } => damaged(problem),
                            other => other,
                        });
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        };
        match problem(&whole, file).map_err(|error| unreadable(&whole, error))? {
            None => self.store.place(&whole, self.commit, file),
            Some(problem) => {
                // Nothing of it is good for going on.
                fs::remove_file(&whole).map_err(|error| Error::io(&whole, "remove", error))?;
                Err(damaged(format!(
                    "it {problem}: it was damaged on the way, or changed meanwhile; try again"
                )))
            }
        }
    }
}

/// Counts the bytes of a file.
struct Told<'a> {
    told: &'a mut dyn FnMut(u64),
    bytes: u64,
}

impl Progress for Told<'_> {
    fn init(&mut self, _: usize, _: &str) {
        self.bytes = 0;
    }

    fn update(&mut self, size: usize) {
        self.bytes += size as u64;
        (self.told)(self.bytes);
    }

    fn finish(&mut self) {}
}

/// Asks for the files of a revision.
fn list(repository: &ApiRepo) -> std::result::Result<Value, ApiError> {
    let mut answer = repository.info_request().query("blobs", "true").call().map_err(Box::new)?;
    Ok(answer.body_mut().read_json().map_err(Box::new)?)
}

/// The commit and its files. What has no proper name is left out.
fn listing(answer: &Value, model: &HubModel) -> Result<(String, Vec<Listed>)> {
    let wrong = |problem: &str| Error::Download { what: model.to_string(), problem: problem.to_owned() };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let commit = text(answer, "sha").filter(|commit| is_hexadecimal(commit, 40));
    let commit = commit.ok_or_else(|| wrong("the server's answer names no commit"))?;
    let files = answer.get("siblings").and_then(Value::as_array);
    let files = files.ok_or_else(|| wrong("the server's answer lists no files"))?;
    let listed = |file: &Value| {
        let path = text(file, "rfilename")?;
        let is_plain = Path::new(&path).components().all(|part| matches!(part, Component::Normal(_)));
        let lfs = file.get("lfs").filter(|lfs| lfs.is_object());
        let sha256 = lfs.and_then(|lfs| text(lfs, "sha256")).filter(|hash| is_hexadecimal(hash, 64));
        let blob = sha256.clone().or_else(|| text(file, "blobId").filter(|hash| is_hexadecimal(hash, 40)))?;
        let size = lfs.and_then(|lfs| lfs.get("size")).or_else(|| file.get("size"))?.as_u64()?;
        is_plain.then_some(Listed { path, size, blob, sha256 })
    };
    Ok((commit, files.iter().filter_map(listed).collect()))
}

fn read_index(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read_to_string(path).map_err(|error| Error::io(path, "read", error))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::config_file(path, format!("is not a JSON object: {error}")))
}

/// An error of a request, by whose fault it is.
fn failed(model: &HubModel, options: &HubOptions, error: &ApiError) -> Error {
    let endpoint = &options.endpoint;
    let status = match error {
        ApiError::RequestError(error) => match &**error {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        _ => None,
    };
    match status {
        Some(401 | 403) => {
            let problem = format!(
                "{model} is not there, or may not be read without a token: {endpoint} answers {}; HF_TOKEN holds one",
                status.unwrap_or_default()
            );
            Error::option("model", problem)
        }
        Some(404) => {
            Error::option("model", format!("there is no {model} on {endpoint}, nor such a path here"))
        }
        _ => Error::Download { what: model.to_string(), problem: format!("{endpoint}: {error}") },
    }
}
