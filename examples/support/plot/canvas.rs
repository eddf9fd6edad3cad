//! What charts are drawn on: shapes, text and pictures in the units of the layout.

use std::path::Path as FilePath;

use deepcache::image::Picture;
use deepcache::{Error, Result};
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Mask, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, StrokeDash,
    Transform,
};

use super::font::Font;
use super::style::{Form, Ink, WHITE};

/// Pixels per unit of the layout: charts stay sharp on dense screens and in print.
pub(super) const SCALE: u32 = 2;
/// From the foot of capital letters to their middle, in units of their size.
const HALF_CAPITAL: f64 = 0.3645;

/// A place in units of the layout: right, down.
pub(super) type Point = (f64, f64);

/// Which part of a text is at the given place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Center,
    Right,
}

/// A rectangle in units of the layout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

/// A white sheet.
pub(super) struct Canvas {
    pixels: Pixmap,
    font: Font,
    clip: Option<Mask>,
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Result<Self> {
        let [columns, rows] = [width, height].map(|side| (side * f64::from(SCALE)).ceil() as u32);
        let failed = || Error::option("chart", format!("{columns}x{rows} pixels are too many or too few"));
        let mut pixels = Pixmap::new(columns, rows).ok_or_else(failed)?;
        pixels.fill(Color::WHITE);
        Ok(Self { pixels, font: Font::new()?, clip: None })
    }

    /// The font, for who measures before there is a canvas or while drawing.
    pub(super) fn font(&self) -> &Font {
        &self.font
    }

    /// From here on draws only within the area.
    pub(super) fn clip(&mut self, area: &Area) {
        let mut mask = Mask::new(self.pixels.width(), self.pixels.height());
        if let (Some(mask), Some(area)) = (&mut mask, rectangle(area)) {
            mask.fill_path(&PathBuilder::from_rect(area), FillRule::Winding, false, scaled());
        }
        self.clip = mask;
    }

    /// Draws everywhere again.
    pub(super) fn unclip(&mut self) {
        self.clip = None;
    }

    /// A rectangle whose edges are whole pixels, so that neighbours meet without a seam.
    pub(super) fn rectangle(&mut self, area: &Area, ink: Ink) {
        let whole = |value: f64| (value * f64::from(SCALE)).round() as f32;
        let (left, top) = (whole(area.left), whole(area.top));
        if let Some(area) = Rect::from_ltrb(left, top, whole(area.right()), whole(area.bottom())) {
            let mut paint = paint(ink);
            paint.anti_alias = false;
            self.pixels.fill_rect(area, &paint, Transform::identity(), self.clip.as_ref());
        }
    }

    /// The outline of a rectangle.
    pub(super) fn frame(&mut self, area: &Area, width: f64, ink: Ink) {
        let (left, top, right, bottom) = (area.left, area.top, area.right(), area.bottom());
        self.line(
            &[(left, top), (right, top), (right, bottom), (left, bottom), (left, top)],
            width,
            &[],
            ink,
        );
    }

    /// A polygon.
    pub(super) fn polygon(&mut self, corners: &[Point], ink: Ink) {
        if let Some(path) = path(corners, true) {
            self.fill(&path, scaled(), ink);
        }
    }

    /// A line through points, with strokes and gaps if there is a dash.
    pub(super) fn line(&mut self, points: &[Point], width: f64, dash: &[f64], ink: Ink) {
        if let Some(path) = path(points, false) {
            self.stroke(&path, scaled(), width, dash, ink);
        }
    }

    /// A mark around a place: filled, or hollow with a coloured outline.
    pub(super) fn mark(&mut self, form: Form, place: Point, radius: f64, filled: bool, ink: Ink) {
        let corners: Vec<Point> =
            form.corners().iter().map(|(x, y)| (place.0 + radius * x, place.1 + radius * y)).collect();
        let outline = match form {
            Form::Circle => PathBuilder::from_circle(place.0 as f32, place.1 as f32, radius as f32),
            _ => path(&corners, true),
        };
        if let Some(outline) = outline {
            let (inside, edge, width) = if filled { (ink, WHITE, 0.8) } else { (WHITE, ink, 1.8) };
            self.fill(&outline, scaled(), inside);
            self.stroke(&outline, scaled(), width, &[], edge);
        }
    }

    /// A line of text; `place` is at the middle of the height of its capital letters.
    pub(super) fn text(&mut self, text: &str, place: Point, size: f64, align: Align, ink: Ink) {
        let placed = scaled().pre_translate(place.0 as f32, place.1 as f32);
        self.write(text, placed, size, align, ink);
    }

    /// The same on a white rim, for places where something else is drawn.
    pub(super) fn text_with_rim(&mut self, text: &str, place: Point, size: f64, align: Align, ink: Ink) {
        let placed = scaled().pre_translate(place.0 as f32, place.1 as f32);
        if let Some((path, placed)) = self.shape(text, placed, size, align) {
            self.stroke(&path, placed, 3.5, &[], WHITE.faint(0.85));
        }
        self.write(text, placed, size, align, ink);
    }

    /// A line of text that is read from below upwards, centred at `place`.
    pub(super) fn text_upwards(&mut self, text: &str, place: Point, size: f64, ink: Ink) {
        let placed = scaled().pre_translate(place.0 as f32, place.1 as f32).pre_rotate(-90.0);
        self.write(text, placed, size, Align::Center, ink);
    }

    fn write(&mut self, text: &str, placed: Transform, size: f64, align: Align, ink: Ink) {
        if let Some((path, placed)) = self.shape(text, placed, size, align) {
            self.fill(&path, placed, ink);
        }
    }

    fn shape(&self, text: &str, placed: Transform, size: f64, align: Align) -> Option<(Path, Transform)> {
        let width = self.font.width(text, size);
        let left = match align {
            Align::Left => 0.0,
            Align::Center => -width / 2.0,
            Align::Right => -width,
        };
        let path = self.font.outline(text, size)?;
        Some((path, placed.pre_translate(left as f32, (HALF_CAPITAL * size) as f32)))
    }

    /// A picture whose pixels become squares of `pixels` x `pixels` pixels of the file. What does not fit is left out.
    pub(super) fn picture(&mut self, picture: &Picture, place: Point, pixels: u32) {
        let [left, top] = [place.0, place.1].map(|value| (value * f64::from(SCALE)).round() as u32);
        let (width, height) = (self.pixels.width(), self.pixels.height());
        let sheet = self.pixels.data_mut();
        let tones = picture.pixels.as_chunks::<3>().0;
        for row in 0..(picture.height * pixels).min(height.saturating_sub(top)) {
            for column in 0..(picture.width * pixels).min(width.saturating_sub(left)) {
                let from = (row / pixels) as usize * picture.width as usize + (column / pixels) as usize;
                let to = 4 * ((top + row) as usize * width as usize + (left + column) as usize);
                sheet[to..to + 3].copy_from_slice(&tones[from]);
            }
        }
    }

    fn fill(&mut self, path: &Path, placed: Transform, ink: Ink) {
        self.pixels.fill_path(path, &paint(ink), FillRule::Winding, placed, self.clip.as_ref());
    }

    fn stroke(&mut self, path: &Path, placed: Transform, width: f64, dash: &[f64], ink: Ink) {
        let dash = StrokeDash::new(dash.iter().map(|length| *length as f32).collect(), 0.0);
        let stroke = Stroke {
            width: width as f32,
            line_cap: LineCap::Butt,
            line_join: LineJoin::Round,
            dash,
            ..Stroke::default()
        };
        self.pixels.stroke_path(path, &paint(ink), &stroke, placed, self.clip.as_ref());
    }

    /// Writes the sheet as a PNG file, whole or not at all.
    pub(super) fn save(&self, path: &FilePath) -> Result<()> {
        let tones = self.pixels.pixels().iter().flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
        let picture = Picture {
            width: self.pixels.width(),
            height: self.pixels.height(),
            pixels: tones.collect(), // the sheet is opaque, so nothing is multiplied by an opacity
        };
        picture.save(path, &[])
    }
}

fn scaled() -> Transform {
    Transform::from_scale(SCALE as f32, SCALE as f32)
}

fn paint(ink: Ink) -> Paint<'static> {
    let [red, green, blue] = ink.tone;
    let mut paint = Paint::default();
    paint.set_color_rgba8(red, green, blue, (ink.opacity * 255.0).round() as u8);
    paint
}

fn rectangle(area: &Area) -> Option<Rect> {
    Rect::from_xywh(area.left as f32, area.top as f32, area.width as f32, area.height as f32)
}

fn path(points: &[Point], closed: bool) -> Option<Path> {
    let mut builder = PathBuilder::new();
    for (number, (x, y)) in points.iter().enumerate() {
        if number == 0 {
            builder.move_to(*x as f32, *y as f32);
        } else {
            builder.line_to(*x as f32, *y as f32);
        }
    }
    if closed {
        builder.close();
    }
    builder.finish()
}
