//! A folder of results: all of them appear in it at once, or none.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use deepcache::files::check_writable;
use deepcache::{Error, Result};

/// A folder to be filled.
#[derive(Debug)]
pub(crate) struct Folder<'a> {
    path: &'a Path,
}

impl<'a> Folder<'a> {
    /// A folder that is there, or that could be made where only itself is missing. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written or made.
    pub(crate) fn new(path: &'a Path) -> Result<Self> {
        let missing = !path.is_dir();
        if missing && path.symlink_metadata().is_ok() {
            return Err(Error::io(path, "write into", ErrorKind::NotADirectory.into()));
        }
        // A file of that name stands for the folder.
        check_writable(if missing { path.to_owned() } else { path.join(".deepcache") })?;
        Ok(Self { path })
    }

    /// Checks that these files can be written.
    ///
    /// # Errors
    /// [`Error::Io`] if one cannot.
    pub(crate) fn check(&self, names: &[String]) -> Result<()> {
        if self.path.is_dir() {
            names.iter().try_for_each(|name| check_writable(self.path.join(name)))?;
        }
        Ok(())
    }

    /// Fills the folder with what `write` puts into the one that it is given, which must be these files.
    ///
    /// # Errors
    /// Those of `write`, and [`Error::Io`].
    pub(crate) fn fill(&self, names: &[String], write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let failed = |error| Error::io(self.path, "write into", error);
        let made = match fs::create_dir(self.path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(error)),
        };
        let filled = tempfile::Builder::new()
            .prefix(".deepcache-")
            .tempdir_in(self.path)
            .map_err(failed)
            .and_then(|aside| {
                write(aside.path())?;
                let place =
                    |name: &String| -> (PathBuf, PathBuf) { (aside.path().join(name), self.path.join(name)) };
                names.iter().map(place).try_for_each(|(from, to)| {
                    fs::rename(from, &to).map_err(|error| Error::io(to, "write", error))
                })
            });
        if made && filled.is_err() {
            // Only if it is empty: what was moved into it is whole.
            let _ = fs::remove_dir(self.path);
        }
        filled
    }
}
