//! Pictures.

use std::path::Path;

use crate::error::{Error, Result};
use crate::files::write_whole;

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
