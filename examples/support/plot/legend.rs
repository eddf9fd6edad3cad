//! The names of series, beside or below the data and never on it.

use super::SMALL;
use super::canvas::{Align, Area, Canvas, Point};
use super::font::Font;
use super::frame::{EDGE, GAP, LINE};
use super::style::{DARK, Style};

/// Length of the piece of line before a name.
const SAMPLE: f64 = 34.0;
/// Wider names go below the data.
const WIDEST: f64 = 250.0;

/// A name and how its data is drawn.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) style: Style,
    pub(super) line: bool,
    pub(super) mark: bool,
}

/// The names of a chart, and where they go.
pub(super) struct Legend<'a> {
    entries: Vec<Entry<'a>>,
    /// Width of a sample and the widest name.
    width: f64,
    /// Columns and rows below the data; none for one column beside it.
    below: Option<(usize, usize)>,
}

/// Height of a name.
const HEIGHT: f64 = SMALL * LINE + 4.0;
/// Room between columns.
const BETWEEN: f64 = 2.0 * GAP;

impl<'a> Legend<'a> {
    /// Lays names out on a sheet of this width.
    pub(super) fn new(font: &Font, entries: Vec<Entry<'a>>, sheet: f64) -> Self {
        let widest = entries.iter().map(|entry| font.width(entry.name, SMALL)).fold(0.0, f64::max);
        let width = SAMPLE + GAP + widest;
        let below = (widest > WIDEST).then(|| {
            let columns = ((sheet + BETWEEN) / (width + BETWEEN)).floor().max(1.0) as usize;
            let rows = entries.len().div_ceil(columns);
            (entries.len().div_ceil(rows), rows)
        });
        Self { entries, width, below }
    }

    /// Width of a sheet that the widest name below the data needs.
    pub(super) fn width(&self) -> f64 {
        self.below.map_or(0.0, |_| self.width)
    }

    /// Height that the names take below the data.
    pub(super) fn height(&self) -> f64 {
        self.below.map_or(0.0, |(_, rows)| rows as f64 * HEIGHT + GAP)
    }

    /// Draws the names, beside the data from `top` downwards, and gives back what they leave of `sheet` to the chart.
    pub(super) fn draw(&self, canvas: &mut Canvas, sheet: &Area, top: f64) -> Area {
        if self.entries.is_empty() {
            return *sheet;
        }
        let Some((columns, rows)) = self.below else {
            let left = sheet.right() - self.width;
            for (number, entry) in self.entries.iter().enumerate() {
                entry.draw(canvas, (left, top + (number as f64 + 0.5) * HEIGHT));
            }
            return Area { width: sheet.width - self.width - EDGE, ..*sheet };
        };
        let whole = columns as f64 * (self.width + BETWEEN) - BETWEEN;
        let left = sheet.left + (sheet.width - whole).max(0.0) / 2.0;
        let top = sheet.bottom() - rows as f64 * HEIGHT;
        for (number, entry) in self.entries.iter().enumerate() {
            let (column, row) = (number / rows, number % rows);
            let x = left + column as f64 * (self.width + BETWEEN);
            entry.draw(canvas, (x, top + (row as f64 + 0.5) * HEIGHT));
        }
        Area { height: sheet.height - self.height(), ..*sheet }
    }
}

impl Entry<'_> {
    fn draw(&self, canvas: &mut Canvas, (x, y): Point) {
        let Style { ink, form, filled, dash } = self.style;
        if self.line {
            canvas.line(&[(x, y), (x + SAMPLE, y)], 2.2, dash, ink);
        }
        if self.mark {
            canvas.mark(form, (x + SAMPLE / 2.0, y), 5.0, filled, ink);
        }
        canvas.text(self.name, (x + SAMPLE + GAP, y), SMALL, Align::Left, DARK);
    }
}
