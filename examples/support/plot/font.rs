//! Letters as outlines.

use deepcache::{Error, Result};
use skrifa::instance::{LocationRef, Size};
use skrifa::outline::{DrawSettings, OutlinePen};
use skrifa::{FontRef, GlyphId, MetadataProvider as _};
use tiny_skia::{Path, PathBuilder};

/// A part of `DejaVu Sans`; `examples/support/font/README.md` tells its origin.
const BYTES: &[u8] = include_bytes!("../font/DejaVuSans-subset.ttf");

/// The one font of all charts.
pub(super) struct Font(FontRef<'static>);

impl Font {
    pub(super) fn new() -> Result<Self> {
        FontRef::new(BYTES).map(Self).map_err(|error| Error::option("font of charts", error.to_string()))
    }

    /// The letter's number; characters that the font lacks are drawn as its empty box.
    fn glyph(&self, character: char) -> GlyphId {
        self.0.charmap().map(character).unwrap_or(GlyphId::NOTDEF)
    }

    /// Width of a line of text.
    pub(super) fn width(&self, text: &str, size: f64) -> f64 {
        let metrics = self.0.glyph_metrics(Size::new(size as f32), LocationRef::default());
        let advance = |character| metrics.advance_width(self.glyph(character)).unwrap_or(0.0);
        text.chars().map(|character| f64::from(advance(character))).sum()
    }

    /// The outline of a line of text that starts at the origin, y down; nothing if there is no ink.
    pub(super) fn outline(&self, text: &str, size: f64) -> Option<Path> {
        let size = Size::new(size as f32);
        let metrics = self.0.glyph_metrics(size, LocationRef::default());
        let outlines = self.0.outline_glyphs();
        let mut pen = Pen { builder: PathBuilder::new(), left: 0.0 };
        for character in text.chars() {
            let glyph = self.glyph(character);
            if let Some(outline) = outlines.get(glyph) {
                // the font is our own: a letter that cannot be drawn would be seen by whoever changes it
                let _ = outline.draw(DrawSettings::unhinted(size, LocationRef::default()), &mut pen);
            }
            pen.left += metrics.advance_width(glyph).unwrap_or(0.0);
        }
        pen.builder.finish()
    }

    /// Width of the widest word of several texts.
    pub(super) fn widest_word<'a>(&self, texts: impl IntoIterator<Item = &'a str>, size: f64) -> f64 {
        let words = texts.into_iter().flat_map(str::split_whitespace);
        words.map(|word| self.width(word, size)).fold(0.0, f64::max)
    }

    /// The size of letters with which a line of text is no wider than `width`: `size`, or less.
    pub(super) fn fitting(&self, text: &str, size: f64, width: f64) -> f64 {
        size * (width / self.width(text, size)).min(1.0)
    }

    /// Text broken between words into lines that are no wider than `width`, unless a word is.
    pub(super) fn wrap(&self, text: &str, size: f64, width: f64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            if let Some(line) = lines.last_mut() {
                let longer = format!("{line} {word}");
                if self.width(&longer, size) <= width {
                    *line = longer;
                    continue;
                }
            }
            lines.push(word.to_owned());
        }
        lines
    }
}

/// Puts one letter beside the other and turns the font's y, which is up, down.
struct Pen {
    builder: PathBuilder,
    left: f32,
}

impl OutlinePen for Pen {
    fn move_to(&mut self, x: f32, y: f32) {
        self.builder.move_to(self.left + x, -y);
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.builder.line_to(self.left + x, -y);
    }

    fn quad_to(&mut self, control_x: f32, control_y: f32, x: f32, y: f32) {
        self.builder.quad_to(self.left + control_x, -control_y, self.left + x, -y);
    }

    fn curve_to(&mut self, first_x: f32, first_y: f32, second_x: f32, second_y: f32, x: f32, y: f32) {
        let left = self.left;
        self.builder.cubic_to(left + first_x, -first_y, left + second_x, -second_y, left + x, -y);
    }

    fn close(&mut self) {
        self.builder.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_what_charts_write() {
        let font = Font::new().unwrap();
        let signs = "·×±°≤≥≈≠→←↑↓√∞‖…–—−²³¹⁰⁴⁵⁶⁷⁸⁹⁻αβεηθσΔΣµ";
        for character in (' '..='~').chain(signs.chars()) {
            assert_ne!(font.glyph(character), GlyphId::NOTDEF, "{character}");
            assert!(font.width(&character.to_string(), 16.0) > 3.0, "{character}");
            let visible = font.outline(&character.to_string(), 16.0).is_some();
            assert_eq!(visible, character != ' ', "{character}");
        }
        assert!(font.outline("語", 16.0).is_some(), "what is missing is seen as a box");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let font = Font::new().unwrap();
        let text = "a large red circle on the right";
        let lines = font.wrap(text, 16.0, 120.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| font.width(line, 16.0) <= 120.0), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        assert_eq!(font.wrap("unbreakable", 16.0, 5.0), ["unbreakable"]);
        assert!(font.wrap("  ", 16.0, 5.0).is_empty(), "no words, no lines");
    }
}
