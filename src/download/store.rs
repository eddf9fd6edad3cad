//! The cache of the hub's tools: `models--owner--name` with `blobs`, `snapshots` of links to them, and `refs`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::selection::Listed;
use super::{HubModel, HubOptions};
use crate::error::{Error, Result};

/// The folder beside the models in which files grow, as `hf-hub` lays it out.
const STAGING: &str = ".deepcache";

/// One model in the cache.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    /// A cache of its own for what is not whole yet.
    pub(super) staging: PathBuf,
    staged: PathBuf,
}

impl Store {
    pub(super) fn new(model: &HubModel, options: &HubOptions) -> Result<Self> {
        let cache =
            std::path::absolute(&options.cache).map_err(|error| Error::io(&options.cache, "find", error))?;
        let folder = format!("models--{}", model.name.replace('/', "--"));
        let staging = cache.join(STAGING);
        Ok(Self { root: cache.join(&folder), staged: staging.join(folder), staging })
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The files of a revision, as the cache knows it.
    pub(super) fn cached(&self, revision: &str) -> Option<PathBuf> {
        let named = fs::read_to_string(self.root.join("refs").join(revision)).ok();
        let commit = named.as_deref().map_or(revision, str::trim);
        let snapshot = self.snapshot(commit);
        (is_hexadecimal(commit, 40) && snapshot.join("model_index.json").is_file()).then_some(snapshot)
    }

    /// Whether the cache has a file, whole.
    pub(super) fn has(&self, commit: &str, file: &Listed) -> bool {
        self.snapshot(commit).join(&file.path).metadata().is_ok_and(|found| found.len() == file.size)
    }

    /// Where a file grows.
    pub(super) fn part(&self, file: &Listed) -> PathBuf {
        self.staged.join("blobs").join(format!("{}.part", file.blob))
    }

    /// Moves a file into the cache.
    pub(super) fn place(&self, from: &Path, commit: &str, file: &Listed) -> Result<()> {
        let blob = self.root.join("blobs").join(&file.blob);
        let link = self.snapshot(commit).join(&file.path);
        let place = || {
            for path in [&blob, &link] {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
            }
            fs::rename(from, &blob)?;
            if link.symlink_metadata().is_ok() {
                fs::remove_file(&link)?;
            }
            let up = Path::new(&file.path).components().count() + 1;
            let target: PathBuf = std::iter::repeat_n("..", up).collect();
            link_or_move(&target.join("blobs").join(&file.blob), &blob, &link)
        };
        place().map_err(|error| Error::io(&link, "write", error))
    }

    /// Notes that a revision is there with all its files, and clears what was kept for going on.
    pub(super) fn finish(&self, revision: &str, commit: &str) -> Result<()> {
        if revision != commit {
            let path = self.root.join("refs").join(revision);
            let folder = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).map_err(|error| Error::io(folder, "make", error))?;
            crate::files::write_whole(&path, commit.as_bytes())?;
        }
        // What stays there only takes room.
        let _ = fs::remove_dir_all(&self.staged);
        let _ = fs::remove_dir(&self.staging);
        Ok(())
    }
}

#[cfg(unix)]
fn link_or_move(target: &Path, _: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Links need a privilege on Windows: without it the file itself lies there, as the hub's tools have it.
#[cfg(windows)]
fn link_or_move(target: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link).or_else(|_| fs::rename(blob, link))
}

#[cfg(not(any(unix, windows)))]
fn link_or_move(_: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    fs::rename(blob, link)
}

/// Whether a text is a hash of so many hexadecimal digits.
pub(super) fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|sign| sign.is_ascii_hexdigit())
}

/// What is wrong with a file that should be whole.
pub(super) fn problem(path: &Path, file: &Listed) -> io::Result<Option<String>> {
    let mut reader = File::open(path)?;
    let size = reader.metadata()?.len();
    if size != file.size {
        return Ok(Some(format!("has {size} bytes, expected {}", file.size)));
    }
    let Some(expected) = &file.sha256 else { return Ok(None) };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((found != *expected).then(|| format!("has the SHA-256 {found}, expected {expected}")))
}
