//! What this machine keeps between runs: compiled pipelines, and which ways of cutting products were found fastest.
//!
//! What cannot be read or written is said, and is no reason not to run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deepcache::gpu::Gpu;
use deepcache::gpu::choices::Tuned;
use deepcache::pipelines::{DiffusionPipeline, Lookup, PlanTarget, Request, TuningFile, TuningKey};
use deepcache::{Error, Result};

/// Names another folder for what is kept.
const FOLDER_VARIABLE: &str = "DEEPCACHE_FOLDER";

/// Where it is kept, if this system has a place for what can be computed again.
fn folder() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(FOLDER_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    Some(dirs::cache_dir()?.join("deepcache"))
}

fn tuning_file(folder: &Path) -> PathBuf {
    folder.join("tuning.json")
}

fn warn(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("warning: {error}");
    }
}

/// From now on, this GPU compiles only what no run before it has.
pub(crate) fn keep_pipelines(gpu: &Gpu) {
    if let Some(folder) = folder() {
        warn(gpu.keep_pipelines(folder).map(drop));
    }
}

/// Keeps what was compiled.
pub(crate) fn save_pipelines(gpu: &Gpu) {
    warn(gpu.save_pipelines());
}

/// Uses what is known of this device.
pub(crate) fn use_tuned(pipeline: &mut DiffusionPipeline) {
    if let Some(tuned) = tuned(pipeline.gpu()) {
        pipeline.set_tuned(tuned);
    }
}

/// A GPU with what is known of it, for plans.
pub(crate) fn target(gpu: &Gpu) -> PlanTarget {
    let mut target = PlanTarget::of(gpu);
    if let Some(tuned) = tuned(gpu) {
        Arc::make_mut(&mut target.choices).tuned = tuned;
    }
    target
}

fn tuned(gpu: &Gpu) -> Option<Tuned> {
    let path = folder().map(|folder| tuning_file(&folder))?;
    match TuningFile::read(&path).map(|file| file.find(&TuningKey::of(gpu))) {
        Ok(Lookup::Found(tuned)) => return Some(tuned),
        Ok(Lookup::Missing) => {}
        Ok(Lookup::Stale(why)) => eprintln!("warning: {}: {why}; generate --tune renews it", path.display()),
        Err(error) => eprintln!("warning: {error}; generate --tune renews it"),
    }
    None
}

/// Times the products of a request, and keeps what was found.
pub(crate) fn tune(
    pipeline: &mut DiffusionPipeline,
    request: &Request,
    budget: Duration,
    quiet: bool,
) -> Result<()> {
    let tuning = pipeline.tune(request, budget, |tried| {
        if !quiet || tried.rejected().next().is_some() {
            eprintln!("{tried}");
        }
    })?;
    if !quiet && !tuning.left.is_empty() {
        eprintln!(
            "{} products were left as they are: more time (--tune=SECONDS) is needed",
            tuning.left.len()
        );
    }
    let folder = folder()
        .ok_or_else(|| Error::option("tune", format!("no folder for caches here: set {FOLDER_VARIABLE}")));
    let path = folder.map(|folder| tuning_file(&folder));
    let written = path.and_then(|path| {
        // A damaged file is replaced; it was reported when it was read.
        let mut file = TuningFile::read(&path).unwrap_or_default();
        file.keep(TuningKey::of(pipeline.gpu()), tuning.tuned());
        file.write(&path).map(|()| path)
    });
    match written {
        Ok(path) if !quiet => eprintln!("wrote {}", path.display()),
        other => warn(other.map(drop)),
    }
    Ok(())
}
