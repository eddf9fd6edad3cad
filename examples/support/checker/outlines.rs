//! What the shapes look like from a little to the left and a little to the right.

use super::masks::Mask;
use super::scenes::{Round as _, SHAPES, coordinates, distances};

/// Points along each side of the square in which shapes are compared.
pub(super) const GRID: usize = 48;
/// Pixels along each side of the drawings of outlines.
const COUNT: usize = 257;
/// Half of the side of the drawings, where the shapes have radius one.
const EXTENT: f64 = 1.4;

/// A filled shape of radius one.
#[derive(Debug)]
pub(super) struct Outline {
    pub(super) shape: &'static str,
    /// The shape in the square around it.
    pub(super) grid: Mask,
    /// Side of that square.
    pub(super) width: f64,
    /// Where its middle lies from the shape's own centre: right, down.
    pub(super) shift: (f64, f64),
}

/// All shapes at five rotations.
pub(super) fn outlines() -> Vec<Outline> {
    [-6.0_f64, -3.0, 0.0, 3.0, 6.0].into_iter().flat_map(rotated).collect()
}

fn rotated(degrees: f64) -> Vec<Outline> {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let (sine, cosine) = (sine.to_f32(), cosine.to_f32());
    let line = coordinates(COUNT, EXTENT.to_f32());
    let mut drawings = vec![Vec::with_capacity(COUNT * COUNT); SHAPES.len()];
    for y in &line {
        for x in &line {
            let distances = distances(x * cosine + y * sine, y * cosine - x * sine);
            for (drawing, distance) in drawings.iter_mut().zip(distances) {
                drawing.push(distance < 0.0);
            }
        }
    }
    let unit = 2.0 * EXTENT / COUNT as f64;
    let outline = |(shape, drawing): (&&'static str, Vec<bool>)| {
        let mask = Mask::new(COUNT, drawing);
        let bounds = mask.bounds()?;
        let (x, y) = bounds.middle();
        let middle = COUNT as f64 / 2.0;
        Some(Outline {
            shape,
            grid: mask.sampled(&bounds, GRID),
            width: bounds.longest() as f64 * unit,
            shift: ((x - middle) * unit, (y - middle) * unit),
        })
    };
    SHAPES.iter().zip(drawings).filter_map(outline).collect()
}
