//! Charts as PNG files, drawn alike on every system: nothing here needs a library or a font of the machine.
//!
//! [`lines`] for curves, [`heat_map`] for matrices, [`scatter`] for two measures with their uncertainty and
//! [`grid_of_pictures`] for pictures side by side. A file is written whole or not at all.

#![expect(clippy::cast_possible_truncation, reason = "places on a sheet are small numbers")]

mod axis;
mod canvas;
mod font;
mod frame;
mod heat_map;
mod labels;
mod legend;
mod line_chart;
mod picture_grid;
mod scatter_chart;
mod style;

use deepcache::Error;

pub(crate) use heat_map::{HeatMap, heat_map};
pub(crate) use line_chart::{LineChart, Marks, Series, lines};
pub(crate) use picture_grid::{PictureCell, PictureGrid, PictureRow, grid_of_pictures};
pub(crate) use scatter_chart::{ScatterChart, ScatterPoint, Spread, scatter};

/// Width of charts in units of the layout.
const WIDTH: f64 = 1000.0;
/// Sizes of letters in units of the layout.
const TITLE: f64 = 22.0;
const LABEL: f64 = 18.0;
const SMALL: f64 = 16.0;

/// A chart that cannot be drawn.
fn refused(title: &str, problem: impl Into<String>) -> Error {
    Error::option(format!("chart \"{title}\""), problem)
}
