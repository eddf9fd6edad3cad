//! Matrices as colours.

use std::path::Path;

use deepcache::Result;

use super::axis::even;
use super::canvas::{Align, Area, Canvas};
use super::font::Font;
use super::frame::{EDGE, GAP, LINE, title, title_height};
use super::style::{DARK, Ink};
use super::{LABEL, SMALL, refused};

/// The longer side of the matrix in units of the layout.
const SIDE: f64 = 640.0;
/// Width of the bar that explains the colours.
const BAR: f64 = 24.0;
/// Rows and columns that get their number, at most.
const NUMBERS: usize = 11;

/// A matrix: `values[row][column]`, row 0 at the top; NaN stays blank.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeatMap<'a> {
    /// What is shown; empty for none.
    pub(crate) title: &'a str,
    /// What the columns are.
    pub(crate) x_label: &'a str,
    /// What the rows are.
    pub(crate) y_label: &'a str,
    /// Rows of equal lengths.
    pub(crate) values: &'a [Vec<f64>],
    /// The values of the first and last colour; what lies outside takes the nearer of the two.
    pub(crate) range: (f64, f64),
    /// What the values are.
    pub(crate) legend: &'a str,
}

/// Draws a matrix with viridis, which is even to the eye, to colour-blind ones too, and in gray.
///
/// # Errors
/// [`deepcache::Error::Option`] if the matrix is empty or ragged or the range is none, [`deepcache::Error::Io`] if
/// the file cannot be written.
pub(crate) fn heat_map(path: impl AsRef<Path>, chart: &HeatMap<'_>) -> Result<()> {
    let (rows, columns) = (chart.values.len(), chart.values.first().map_or(0, Vec::len));
    let (low, high) = chart.range;
    if columns == 0 || chart.values.iter().any(|row| row.len() != columns) {
        return Err(refused(chart.title, "its rows are empty or of different lengths"));
    }
    if !(low.is_finite() && high.is_finite() && low < high) {
        return Err(refused(chart.title, format!("its colours range from {low} to {high}")));
    }

    // 1. layout: labels, matrix, bar, numbers of the bar, legend
    let cell = SIDE / rows.max(columns) as f64;
    let font = Font::new()?;
    let numbers = |count: usize| font.width(&(count - 1).to_string(), SMALL);
    let bar_texts = even(low, high);
    let bar_widest = bar_texts.iter().map(|(_, text)| font.width(text, SMALL)).fold(0.0, f64::max);
    let left = EDGE + label_room(chart.y_label) + numbers(rows) + GAP;
    let (width, height) = (cell * columns as f64, cell * rows as f64);
    let bar_left = left + width + 2.0 * GAP;
    let whole = bar_left + BAR + GAP + bar_widest + label_room(chart.legend) + EDGE;
    let top = EDGE + title_height(&font, chart.title, whole - 2.0 * EDGE);
    let area = Area { left, top, width, height };
    let below = area.bottom() + GAP + SMALL * LINE + (label_room(chart.x_label) - GAP).max(0.0);
    let sheet = Area { left: EDGE, top: EDGE, width: whole - 2.0 * EDGE, height: below - EDGE };
    let mut canvas = Canvas::new(whole, below + EDGE)?;

    // 2. words
    title(&mut canvas, chart.title, &area, &sheet);
    let across = (left + width / 2.0, sheet.bottom() - LABEL * 0.6);
    canvas.text(chart.x_label, across, font.fitting(chart.x_label, LABEL, width), Align::Center, DARK);
    for (text, x) in [(chart.y_label, EDGE + LABEL * 0.6), (chart.legend, whole - EDGE - LABEL * 0.6)] {
        canvas.text_upwards(text, (x, top + height / 2.0), font.fitting(text, LABEL, height), DARK);
    }

    // 3. cells
    let color = |value: f64| {
        let tone = colorous::VIRIDIS.eval_continuous(((value - low) / (high - low)).clamp(0.0, 1.0));
        Ink::new(tone.r, tone.g, tone.b)
    };
    for (row, values) in chart.values.iter().enumerate() {
        for (column, value) in values.iter().enumerate().filter(|(_, value)| !value.is_nan()) {
            let (x, y) = (left + column as f64 * cell, top + row as f64 * cell);
            canvas.rectangle(&Area { left: x, top: y, width: cell, height: cell }, color(*value));
        }
    }
    canvas.frame(&area, 1.2, DARK);
    for column in (0..columns).step_by(step(columns)) {
        let x = left + (column as f64 + 0.5) * cell;
        canvas.line(&[(x, area.bottom()), (x, area.bottom() + 5.0)], 1.2, &[], DARK);
        let place = (x, area.bottom() + GAP + SMALL / 2.0);
        canvas.text(&column.to_string(), place, SMALL, Align::Center, DARK);
    }
    for row in (0..rows).step_by(step(rows)) {
        let y = top + (row as f64 + 0.5) * cell;
        canvas.line(&[(left - 5.0, y), (left, y)], 1.2, &[], DARK);
        canvas.text(&row.to_string(), (left - GAP, y), SMALL, Align::Right, DARK);
    }

    // 4. bar
    let bar = Area { left: bar_left, width: BAR, ..area };
    const SHADES: usize = 256;
    for shade in 0..SHADES {
        let value = low + (high - low) * (shade as f64 + 0.5) / SHADES as f64;
        let slice = height / SHADES as f64;
        let top = bar.bottom() - (shade as f64 + 1.0) * slice;
        canvas.rectangle(&Area { top, height: slice, ..bar }, color(value));
    }
    canvas.frame(&bar, 1.2, DARK);
    for (value, text) in &bar_texts {
        let y = bar.bottom() - height * (value - low) / (high - low);
        canvas.line(&[(bar.right(), y), (bar.right() + 5.0, y)], 1.2, &[], DARK);
        canvas.text(text, (bar.right() + GAP, y), SMALL, Align::Left, DARK);
    }
    canvas.save(path.as_ref())
}

fn label_room(text: &str) -> f64 {
    if text.is_empty() { 0.0 } else { LABEL * LINE + GAP }
}

/// The round distance at which not too many numbers are shown.
fn step(count: usize) -> usize {
    [1, 2, 5, 10, 20, 50, 100, 200, 500]
        .into_iter()
        .find(|step| count.div_ceil(*step) <= NUMBERS)
        .unwrap_or(1000)
}
