//! Pictures, and files that are written whole or not at all.

use std::io::Write as _;
use std::path::Path;

use crate::error::{Error, Result};

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Rows from the top, `R G B` per pixel.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// The picture as a PNG file with text entries, keyword and text each.
    ///
    /// # Errors
    /// [`Error::Option`] if the pixels do not fill the size.
    pub fn to_png(&self, entries: &[(&str, &str)]) -> Result<Vec<u8>> {
        let failed = |error: png::EncodingError| Error::option("picture", error.to_string());
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in entries {
            encoder.add_itxt_chunk((*keyword).to_owned(), (*text).to_owned()).map_err(failed)?;
        }
        let mut writer = encoder.write_header().map_err(failed)?;
        writer.write_image_data(&self.pixels).map_err(failed)?;
        writer.finish().map_err(failed)?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, entries: &[(&str, &str)]) -> Result<()> {
        write_whole(path, &self.to_png(entries)?)
    }
}

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
