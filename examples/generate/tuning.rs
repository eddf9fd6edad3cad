//! Tuned choices of this machine: read before a run, renewed by `--tune`.

use std::path::PathBuf;
use std::time::Duration;

use deepcache::Result;
use deepcache::pipelines::{DiffusionPipeline, Lookup, Request, TuningFile, TuningKey};

/// Names another file for what was tuned.
const FILE_VARIABLE: &str = "DEEPCACHE_TUNING";

/// Where they are kept, if this system has a place for what can be computed again.
fn path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    Some(dirs::cache_dir()?.join("deepcache").join("tuning.json"))
}

/// Uses what is known of this device; what cannot be used is said, and is no reason not to run.
pub(crate) fn load(pipeline: &mut DiffusionPipeline) {
    let Some(path) = path() else { return };
    match TuningFile::read(&path).map(|file| file.find(&TuningKey::of(pipeline.gpu()))) {
        Ok(Lookup::Found(tuned)) => pipeline.set_tuned(tuned),
        Ok(Lookup::Missing) => {}
        Ok(Lookup::Stale(why)) => eprintln!("warning: {}: {why}; --tune renews it", path.display()),
        Err(error) => eprintln!("warning: {error}; --tune renews it"),
    }
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
    let Some(path) = path() else {
        eprintln!("warning: this system has no folder for caches, so nothing is kept");
        return Ok(());
    };
    // A damaged file is replaced; it was reported when it was read.
    let mut file = TuningFile::read(&path).unwrap_or_default();
    file.keep(TuningKey::of(pipeline.gpu()), tuning.tuned());
    file.write(&path)?;
    if !quiet {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
