//! Pictures: their files, and what networks read of them.

mod resize;

use std::io::{BufReader, Cursor};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};

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

/// Pictures with a longer side are taken for a mistake.
const LONGEST_SIDE: u32 = 65_536;

impl Picture {
    /// Reads a picture from a file: PNG, and JPEG and others where the crate `image` is built with them.
    ///
    /// Grey becomes RGB, transparency is left out, 16 bits become 8, and a picture whose file says that it lies on its
    /// side is turned, as `load_image` of diffusers does.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Option`] naming `option` if it is no picture.
    pub fn read(path: impl AsRef<Path>, option: &str) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, "read", error))?;
        Self::from_bytes(&bytes).map_err(|error| {
            let formats: Vec<&str> = image::ImageFormat::all()
                .filter(image::ImageFormat::reading_enabled)
                .flat_map(|format| format.extensions_str().first())
                .copied()
                .collect();
            let problem = format!(
                "{} is no picture that can be read ({error}); known are {}",
                path.display(),
                formats.join(", ")
            );
            Error::option(option, problem)
        })
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, ImageError> {
        let reader = ImageReader::new(BufReader::new(Cursor::new(bytes))).with_guessed_format()?;
        let mut decoder = reader.into_decoder()?;
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(LONGEST_SIDE);
        limits.max_image_height = Some(LONGEST_SIDE);
        decoder.set_limits(limits)?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        let image = image.into_rgb8();
        Ok(Self { width: image.width(), height: image.height(), pixels: image.into_raw() })
    }

    /// Height and width in pixels.
    #[must_use]
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| usize::try_from(side).unwrap_or(usize::MAX))
    }

    /// Whether there are three bytes for every pixel, and any pixel.
    pub(crate) fn is_whole(&self) -> bool {
        let [height, width] = self.size();
        let bytes = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(3));
        bytes == Some(self.pixels.len()) && !self.pixels.is_empty()
    }

    /// The picture in another height and width, as `PIL.Image.resize` makes it with its Lanczos filter.
    ///
    /// # Panics
    /// If the pixels do not fill the size, or a side is 0 or above `u32`.
    #[must_use]
    pub fn resized(&self, size: [usize; 2]) -> Self {
        let pixels = resize::resize(&self.pixels, self.size(), size, 3);
        let [height, width] = size.map(|side| u32::try_from(side).expect("a side of a picture fits 32 bits"));
        Self { width, height, pixels }
    }

    /// How bright every pixel is, 0 to 255, as `PIL.Image.convert("L")` weighs red, green and blue.
    #[must_use]
    pub fn brightness(&self) -> Vec<u8> {
        let brightness = |pixel: &[u8]| {
            let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
            #[expect(clippy::cast_possible_truncation, reason = "the weights add up to 2^16")]
            let byte = ((red * 19_595 + green * 38_470 + blue * 7_471 + (1 << 15)) >> 16) as u8;
            byte
        };
        self.pixels.chunks_exact(3).map(brightness).collect()
    }

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
