//! Files that are written whole or not at all.

use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a file beside its destination, then moves it there: readers see all of it or nothing.
///
/// # Errors
/// [`Error::Io`] if the folder does not exist or cannot be written.
pub fn write_whole(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let failed = |error| Error::io(path, "write", error);
    let mut file = place_for(path)?;
    file.write_all(bytes).map_err(failed)?;
    file.flush().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// A temporary file in the folder of `path`; it vanishes unless it is moved.
fn place_for(path: &Path) -> Result<tempfile::NamedTempFile> {
    let failed = |error| Error::io(path, "write", error);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask, as any new file
    }
    builder.prefix(".deepcache-").tempfile_in(folder).map_err(failed)
}

/// Checks that a file can be written, before the work that will fill it; changes nothing.
///
/// # Errors
/// [`Error::Io`] if the folder does not exist or cannot be written, or `path` is a folder.
pub fn check_writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    place_for(path).map(|_| ())
}
