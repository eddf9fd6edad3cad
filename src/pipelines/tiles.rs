//! In which tiles a VAE can decode or encode on a device.

use super::VaeTiling;
use crate::error::Result;
use crate::models::vae::tiling::TILE_STEP;

/// Smaller tiles are nothing but seams.
pub(super) const SMALLEST_SIDE: usize = 2 * TILE_STEP;

/// The ways to go over a sample of this height and width, the best first: the sides of tiles in latents, `None` for
/// the whole.
///
/// More than one where it is left open: the later ones take less memory. What cannot be bound, as `fits` tells, is
/// left out, as far as anything else remains. `tile_side` is that of training pictures.
pub(super) fn attempts_of(
    size: [usize; 2],
    tile_side: usize,
    tiling: VaeTiling,
    fits: impl Fn(Option<usize>) -> Result<bool>,
) -> Result<Vec<Option<usize>>> {
    let longest = size[0].max(size[1]);
    let (first, whole) = match tiling {
        VaeTiling::Never => return Ok(vec![None]),
        VaeTiling::Always if longest <= tile_side => return Ok(vec![None]),
        VaeTiling::Always => (tile_side, false),
        VaeTiling::Auto => (longest - 1, fits(None)?),
    };
    let mut attempts = if whole { vec![None] } else { Vec::new() };
    // The largest side that can be bound, of those that are multiples of four.
    let (mut low, mut high) = (SMALLEST_SIDE.min(first) / TILE_STEP, first / TILE_STEP);
    while low < high {
        let middle = (low + high).div_ceil(2);
        if fits(Some(middle * TILE_STEP))? {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    let mut side = low * TILE_STEP;
    // A picture of fewer latents than a tile is not cut; and what does not fit in the smallest tile does not fit.
    if side > 0 && fits(Some(side))? {
        attempts.push(Some(side));
        while tiling == VaeTiling::Auto && side >= 2 * SMALLEST_SIDE {
            side = side / 2 / TILE_STEP * TILE_STEP;
            attempts.push(Some(side));
        }
    }
    if attempts.is_empty() {
        attempts.push((tiling == VaeTiling::Always).then_some(first));
    }
    Ok(attempts)
}
