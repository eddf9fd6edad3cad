//! From pixels to a scene: which background explains the border, and what is left over when it is taken away.

use super::masks::Mask;
use super::outlines::{GRID, Outline};
use super::scenes::{Background, COLORS, SIDE, Tone};

/// Width in pixels of the border that decides the background; objects hardly reach it.
const BORDER: usize = 12;
/// A pixel of the border counts as wrong by this much at most, so that an object that reaches it does not decide.
const LIMIT: f32 = 0.25;
/// Pixels further from the background than this belong to an object.
const THRESHOLD: f64 = 0.115;
/// Parts of fewer pixels than this are no objects.
const LEAST_AREA: usize = 110;
/// The middle of an object decides its colour if it has at least this many pixels.
const LEAST_CORE: usize = 12;
/// How much light a shadow leaves, at least, and how bright a background may be.
const LIGHT: (f64, f64) = (0.66, 1.03);
/// Steps between the two.
const LIGHTS: usize = 10;

/// What a picture shows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scene {
    /// Colour of the background.
    pub(crate) background: &'static str,
    /// Pattern of the background.
    pub(crate) pattern: &'static str,
    /// The objects, largest first; of equally large ones that which begins further up (numpy leaves their order open).
    pub(crate) objects: Vec<Object>,
}

/// One object; lengths in units of the picture's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Object {
    /// The shape that it resembles most.
    pub(crate) shape: &'static str,
    /// The colour that is nearest to that of its middle.
    pub(crate) color: &'static str,
    /// The radius of that shape.
    pub(crate) radius: f64,
    /// How much of the object and the shape is common to both: 1 is a perfect outline.
    pub(crate) overlap: f64,
    /// The centre, from the left.
    pub(crate) x: f64,
    /// The centre, from the top.
    pub(crate) y: f64,
}

pub(super) fn read(picture: &[Tone], backgrounds: &[Background], outlines: &[Outline]) -> Scene {
    // 1. the background that is nearest at the border
    let nearest = backgrounds.iter().map(|background| border_difference(picture, &background.pixels));
    let nearest = smallest(nearest);
    let Background { color, pattern, pixels } = &backgrounds[nearest];

    // 2. how far each pixel is from it, in shadow or not; near an edge of a pattern either tone will do
    let mut candidates = vec![pixels.clone()];
    if matches!(*pattern, "striped" | "checkered") {
        candidates.push(filtered(pixels, f32::min));
        candidates.push(filtered(pixels, f32::max));
    }
    let seen: Vec<[f64; 3]> = picture.iter().map(|tone| perceptual(*tone).map(f64::from)).collect();
    let mut rest = vec![9.0_f64; SIDE * SIDE];
    for candidate in &candidates {
        for step in 0..LIGHTS {
            let light = LIGHT.0 + step as f64 * ((LIGHT.1 - LIGHT.0) / (LIGHTS - 1) as f64);
            for ((rest, seen), tone) in rest.iter_mut().zip(&seen).zip(candidate) {
                let expected = perceptual_f64(tone.map(|value| f64::from(value) * light));
                let [luma, red, blue] = std::array::from_fn(|part| (seen[part] - expected[part]).abs());
                *rest = rest.min(luma + red + blue);
            }
        }
    }

    // 3. the objects are the large parts of what is left over
    let foreground = Mask::new(SIDE, rest.iter().map(|distance| *distance > THRESHOLD).collect());
    let mut parts = foreground.opened().parts();
    parts.retain(|part| part.area() >= LEAST_AREA);
    parts.sort_by_key(|part| std::cmp::Reverse(part.area()));
    let objects = parts.iter().filter_map(|part| read_object(picture, part, outlines)).collect();
    Scene { background: color, pattern, objects }
}

/// The mean difference of two pictures along the border.
fn border_difference(picture: &[Tone], background: &[Tone]) -> f64 {
    let at_border = |place: usize| {
        let (row, column) = (place / SIDE, place % SIDE);
        row.min(column).min(SIDE - 1 - row).min(SIDE - 1 - column) < BORDER
    };
    let places = (0..SIDE * SIDE).filter(|place| at_border(*place));
    places
        .map(|place| {
            let [red, green, blue]: Tone =
                std::array::from_fn(|part| (background[place][part] - picture[place][part]).abs());
            f64::from(((red + green + blue) / 3.0).min(LIMIT))
        })
        .sum()
}

/// Each channel's least or greatest value within two pixels.
fn filtered(pixels: &[Tone], choose: fn(f32, f32) -> f32) -> Vec<Tone> {
    let near = |place: usize| place.saturating_sub(2)..(place + 3).min(SIDE);
    let pixel = |row: usize, column: usize| {
        let window = near(row).flat_map(|row| near(column).map(move |column| pixels[row * SIDE + column]));
        window.reduce(|a, b| std::array::from_fn(|part| choose(a[part], b[part]))).unwrap_or_default()
    };
    (0..SIDE * SIDE).map(|place| pixel(place / SIDE, place % SIDE)).collect()
}

/// Luma and two colour differences, weighted.
fn perceptual(tone: Tone) -> [f32; 3] {
    let [red, green, blue] = tone;
    let luma = 0.3 * red + 0.59 * green + 0.11 * blue;
    [0.7 * luma, 1.2 * (red - luma), blue - luma]
}

/// The same in `f64`, as the Python program computes it where light falls on a background.
fn perceptual_f64(tone: [f64; 3]) -> [f64; 3] {
    let [red, green, blue] = tone;
    let luma = 0.3 * red + 0.59 * green + 0.11 * blue;
    [0.7 * luma, 1.2 * (red - luma), blue - luma]
}

/// Shape, colour, place and radius of the object that a mask covers.
fn read_object(picture: &[Tone], mask: &Mask, outlines: &[Outline]) -> Option<Object> {
    let bounds = mask.bounds()?;
    let grid = mask.sampled(&bounds, GRID);
    let overlaps = outlines.iter().map(|outline| (grid.overlap(&outline.grid), outline));
    // of equal overlaps the last counts, as in Python's maximum of pairs
    let (overlap, outline) = overlaps.max_by(|a, b| a.0.total_cmp(&b.0))?;
    let radius = bounds.longest() as f64 / SIDE as f64 / outline.width;
    let core = mask.eroded().eroded();
    let color = median(picture, if core.area() >= LEAST_CORE { &core } else { mask });
    let (x, y) = bounds.middle();
    Some(Object {
        shape: outline.shape,
        color: nearest_color(color),
        radius,
        overlap,
        x: x / SIDE as f64 - outline.shift.0 * radius,
        y: y / SIDE as f64 - outline.shift.1 * radius,
    })
}

fn nearest_color(color: Tone) -> &'static str {
    let seen = perceptual(color);
    let differences = COLORS.iter().map(|(_, tone)| {
        let tone = perceptual(tone.map(|value| f32::from(value) / 255.0));
        let [luma, red, blue]: [f32; 3] = std::array::from_fn(|part| (tone[part] - seen[part]).abs());
        f64::from(luma + red + blue)
    });
    COLORS[smallest(differences)].0
}

/// The median of each channel over a mask, which must not be empty.
fn median(picture: &[Tone], mask: &Mask) -> Tone {
    std::array::from_fn(|channel| {
        let inside = picture.iter().zip(mask.pixels()).filter(|(_, inside)| **inside);
        let mut values: Vec<f32> = inside.map(|(tone, _)| tone[channel]).collect();
        values.sort_by(f32::total_cmp);
        let middle = values.len() / 2;
        if values.len().is_multiple_of(2) {
            (values[middle - 1] + values[middle]) / 2.0
        } else {
            values[middle]
        }
    })
}

/// The number of the smallest value; the first of equal ones.
fn smallest(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(number, _)| number)
}
