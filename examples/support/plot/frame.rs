//! What all charts with axes have in common: title, axes with their grid, and the place for the data.

use super::axis::Axis;
use super::canvas::{Align, Area, Canvas, Point};
use super::font::Font;
use super::style::{DARK, PALE};
use super::{LABEL, SMALL, TITLE};

/// Room between things that are not to touch.
pub(super) const GAP: f64 = 10.0;
/// Room at the edges of the sheet.
pub(super) const EDGE: f64 = 16.0;
/// Height of a line of text, as a multiple of the size of its letters.
pub(super) const LINE: f64 = 1.3;

/// The words around the data.
pub(super) struct Words<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
}

/// Where the data lies.
pub(super) struct Frame {
    pub(super) area: Area,
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Frame {
    /// Draws the words, the axes and the grid within `sheet`, and leaves the rest to the data.
    pub(super) fn draw(canvas: &mut Canvas, sheet: &Area, words: &Words<'_>, x: Axis, y: Axis) -> Self {
        let top = sheet.top + title_height(canvas.font(), words.title, sheet.width);
        let widest = y.ticks.iter().map(|(_, text)| canvas.font().width(text, SMALL)).fold(0.0, f64::max);
        let y_label = if words.y_label.is_empty() { 0.0 } else { LABEL * LINE + GAP };
        let x_label = if words.x_label.is_empty() { 0.0 } else { LABEL * LINE + GAP / 2.0 };
        let left = sheet.left + y_label + widest + GAP;
        let bottom = sheet.bottom() - x_label - SMALL * LINE - GAP;
        // half of the last text of the x-axis may hang over
        let last = x.ticks.last().map_or(0.0, |(value, text)| {
            let beyond = canvas.font().width(text, SMALL) / 2.0;
            (beyond - (1.0 - x.share(*value)) * (sheet.right() - left)).max(0.0)
        });
        let area = Area { left, top, width: sheet.right() - last - left, height: bottom - top };
        let frame = Self { area, x, y };
        title(canvas, words.title, &Area { left, width: area.width, ..*sheet }, sheet);
        frame.axes(canvas, words, sheet);
        frame
    }

    /// Where a pair of values is drawn.
    pub(super) fn place(&self, (x, y): (f64, f64)) -> Point {
        let Area { left, width, height, .. } = self.area;
        (left + width * self.x.share(x), self.area.bottom() - height * self.y.share(y))
    }

    fn axes(&self, canvas: &mut Canvas, words: &Words<'_>, sheet: &Area) {
        let Area { left, top, width, height } = self.area;
        let (right, bottom) = (self.area.right(), self.area.bottom());
        for value in &self.x.small_ticks {
            let x = left + width * self.x.share(*value);
            canvas.line(&[(x, bottom), (x, bottom + 3.0)], 1.0, &[], DARK);
        }
        for value in &self.y.small_ticks {
            let y = bottom - height * self.y.share(*value);
            canvas.line(&[(left - 3.0, y), (left, y)], 1.0, &[], DARK);
        }
        for (value, text) in &self.x.ticks {
            let x = left + width * self.x.share(*value);
            canvas.line(&[(x, top), (x, bottom)], 1.0, &[], PALE);
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], 1.2, &[], DARK);
            canvas.text(text, (x, bottom + GAP + SMALL / 2.0), SMALL, Align::Center, DARK);
        }
        for (value, text) in &self.y.ticks {
            let y = bottom - height * self.y.share(*value);
            canvas.line(&[(left, y), (right, y)], 1.0, &[], PALE);
            canvas.line(&[(left - 5.0, y), (left, y)], 1.2, &[], DARK);
            canvas.text(text, (left - GAP, y), SMALL, Align::Right, DARK);
        }
        canvas.frame(&self.area, 1.2, DARK);
        let across = (left + width / 2.0, sheet.bottom() - LABEL * 0.6);
        let size = canvas.font().fitting(words.x_label, LABEL, width);
        canvas.text(words.x_label, across, size, Align::Center, DARK);
        let size = canvas.font().fitting(words.y_label, LABEL, height);
        canvas.text_upwards(words.y_label, (sheet.left + LABEL * 0.6, top + height / 2.0), size, DARK);
    }
}

/// Height that a title takes, room below it included.
pub(super) fn title_height(font: &Font, text: &str, width: f64) -> f64 {
    let lines = font.wrap(text, TITLE, width).len();
    if lines == 0 { 0.0 } else { lines as f64 * TITLE * LINE + GAP }
}

/// A title above the middle of `over`, or of the sheet where it is wider than that.
pub(super) fn title(canvas: &mut Canvas, text: &str, over: &Area, sheet: &Area) {
    for (number, line) in canvas.font().wrap(text, TITLE, sheet.width).iter().enumerate() {
        let half = canvas.font().width(line, TITLE) / 2.0;
        let (least, greatest) = (sheet.left + half, sheet.right() - half);
        let middle = (over.left + over.width / 2.0).clamp(least.min(greatest), greatest.max(least));
        let y = sheet.top + (number as f64 + 0.5) * TITLE * LINE;
        canvas.text(line, (middle, y), TITLE, Align::Center, DARK);
    }
}
