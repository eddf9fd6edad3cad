//! Pictures side by side.

use std::path::Path;

use deepcache::Result;
use deepcache::image::Picture;

use super::canvas::{Align, Area, Canvas, SCALE};
use super::font::Font;
use super::frame::{EDGE, GAP, LINE, title, title_height};
use super::style::{DARK, GRAY};
use super::{SMALL, refused};

/// Width of the column of row titles, unless a word is wider.
const ROW_TITLE: f64 = 190.0;
/// Room between pictures.
const BETWEEN: f64 = 8.0;

/// A picture and what is written below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PictureCell<'a> {
    /// The picture.
    pub(crate) picture: &'a Picture,
    /// A few words, such as a measure; empty for none.
    pub(crate) note: &'a str,
}

/// A row of pictures.
#[derive(Clone, Debug)]
pub(crate) struct PictureRow<'a> {
    /// What the row shows, left of it; long ones are broken.
    pub(crate) title: &'a str,
    /// From the left.
    pub(crate) cells: Vec<PictureCell<'a>>,
}

/// A sheet of pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PictureGrid<'a> {
    /// What is shown; empty for none.
    pub(crate) title: &'a str,
    /// What the columns show, above them; long ones are broken.
    pub(crate) column_titles: &'a [&'a str],
    /// From the top.
    pub(crate) rows: &'a [PictureRow<'a>],
    /// Pixels of the file along each side of a picture's pixel: 2 makes 256 of 128.
    pub(crate) magnification: u32,
}

/// Draws pictures in rows and columns, each of their pixels as a square.
///
/// # Errors
/// [`deepcache::Error::Option`] if there are no pictures, a picture's pixels do not fill its size, or the
/// magnification is zero; [`deepcache::Error::Io`] if the file cannot be written.
pub(crate) fn grid_of_pictures(path: impl AsRef<Path>, grid: &PictureGrid<'_>) -> Result<()> {
    let cells = || grid.rows.iter().flat_map(|row| &row.cells);
    if cells().next().is_none() || grid.magnification == 0 {
        return Err(refused(grid.title, "it has no pictures or no magnification"));
    }
    let fills =
        |picture: &Picture| picture.pixels.len() == picture.width as usize * picture.height as usize * 3;
    if let Some(PictureCell { picture, .. }) = cells().find(|cell| !fills(cell.picture)) {
        let (bytes, width, height) = (picture.pixels.len(), picture.width, picture.height);
        return Err(refused(grid.title, format!("{bytes} bytes do not fill a picture of {width}x{height}")));
    }

    // 1. layout
    let font = Font::new()?;
    let length = |pixels: u32| f64::from(pixels * grid.magnification) / f64::from(SCALE);
    let titles = font.widest_word(grid.column_titles.iter().copied(), SMALL);
    let widths = cells().map(|cell| length(cell.picture.width).max(font.width(cell.note, SMALL)));
    let cell_width = widths.fold(titles, f64::max).ceil();
    let columns =
        grid.rows.iter().map(|row| row.cells.len()).max().unwrap_or(0).max(grid.column_titles.len());
    let row_title = font.widest_word(grid.rows.iter().map(|row| row.title), SMALL);
    let row_title = if row_title > 0.0 { row_title.max(ROW_TITLE) } else { 0.0 };
    let left = EDGE + if row_title > 0.0 { row_title + GAP } else { 0.0 };
    let width = columns as f64 * (cell_width + BETWEEN) - BETWEEN;
    let whole = left + width + EDGE;
    let heads: Vec<Vec<String>> =
        grid.column_titles.iter().map(|text| font.wrap(text, SMALL, cell_width)).collect();
    let head_lines = heads.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let sheet = Area { left: EDGE, top: EDGE, width: whole - 2.0 * EDGE, height: 0.0 };
    let heads_top = EDGE + title_height(&font, grid.title, sheet.width);
    let first = heads_top + head_lines * SMALL * LINE + if head_lines > 0.0 { BETWEEN } else { 0.0 };
    let row_texts: Vec<Vec<String>> =
        grid.rows.iter().map(|row| font.wrap(row.title, SMALL, row_title)).collect();
    let picture_height = |row: &PictureRow<'_>| {
        row.cells.iter().map(|cell| length(cell.picture.height)).fold(0.0, f64::max).ceil()
    };
    let notes = |row: &PictureRow<'_>| {
        let some = row.cells.iter().any(|cell| !cell.note.is_empty());
        if some { SMALL * LINE + 2.0 } else { 0.0 }
    };
    let heights: Vec<f64> = grid
        .rows
        .iter()
        .zip(&row_texts)
        .map(|(row, text)| (picture_height(row) + notes(row)).max(text.len() as f64 * SMALL * LINE) + BETWEEN)
        .collect();
    let mut canvas = Canvas::new(whole, first + heights.iter().sum::<f64>() - BETWEEN + EDGE)?;

    // 2. titles
    title(&mut canvas, grid.title, &Area { left, width, ..sheet }, &sheet);
    for (column, lines) in heads.iter().enumerate() {
        let middle = left + column as f64 * (cell_width + BETWEEN) + cell_width / 2.0;
        for (number, line) in lines.iter().enumerate() {
            // the last lines of all heads stand on one height, next to the pictures
            let row = head_lines - lines.len() as f64 + number as f64 + 0.5;
            let place = (middle, heads_top + row * SMALL * LINE);
            canvas.text(line, place, SMALL, Align::Center, DARK);
        }
    }

    // 3. rows
    let mut top = first;
    for ((row, lines), height) in grid.rows.iter().zip(&row_texts).zip(&heights) {
        let pictures = picture_height(row);
        for (number, line) in lines.iter().enumerate() {
            let above = (number as f64 + 0.5 - lines.len() as f64 / 2.0) * SMALL * LINE;
            let middle = (top + pictures / 2.0).max(top + lines.len() as f64 * SMALL * LINE / 2.0);
            canvas.text(line, (EDGE + row_title, middle + above), SMALL, Align::Right, DARK);
        }
        for (column, PictureCell { picture, note }) in row.cells.iter().enumerate() {
            let x = left + column as f64 * (cell_width + BETWEEN);
            let beside = (cell_width - length(picture.width)) / 2.0;
            canvas.picture(picture, (x + beside, top), grid.magnification);
            let below = (x + cell_width / 2.0, top + pictures + SMALL * LINE / 2.0 + 1.0);
            canvas.text(note, below, SMALL, Align::Center, GRAY);
        }
        top += height;
    }
    canvas.save(path.as_ref())
}
