//! Tiles of a sample that is decoded or encoded piece by piece, and how their results become one.
//!
//! Agrees with `diffusers.AutoencoderKL.tiled_decode` and `tiled_encode`: tiles begin every three quarters of a side, and where two
//! overlap, one fades into the other along a straight line, first downwards, then to the right. Every tile has group
//! norms and attention of its own, so that a tiled picture is not the whole one.

/// Sides of tiles are multiples of it, so that a quarter of one is a whole number of latents.
pub const TILE_STEP: usize = 4;

/// The part of a side that neighbouring tiles share, as a divisor: a quarter.
const OVERLAP: usize = 4;

/// Where the tiles of a sample lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Height and width of the sample, in latents.
    sample: [usize; 2],
    /// The side of a tile, in latents.
    side: usize,
    /// Pixels along one side of a latent.
    upsampling: usize,
}

/// One tile, in latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Row and column of its first latent.
    pub start: [usize; 2],
    /// Its height and width: those of all tiles, but at the lower and the right edge of the sample.
    pub size: [usize; 2],
}

impl Tiles {
    /// Tiles of so many latents a side for a sample of this height and width.
    ///
    /// The side is rounded down to a multiple of [`TILE_STEP`], and up to that.
    #[must_use]
    pub fn new(sample: [usize; 2], side: usize, upsampling: usize) -> Self {
        let side = (side - side % TILE_STEP).max(TILE_STEP);
        Self { sample, side, upsampling }
    }

    /// The side of a tile, in latents.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side
    }

    /// All tiles, row after row.
    pub fn all(&self) -> impl Iterator<Item = Tile> + '_ {
        self.starts(0).flat_map(move |row| self.starts(1).map(move |column| self.tile([row, column])))
    }

    /// The sizes that tiles have, each once: up to three heights and as many widths, since the last two tiles of a row may
    /// be cut off.
    #[must_use]
    pub fn sizes(&self) -> Vec<[usize; 2]> {
        let mut sizes: Vec<[usize; 2]> = Vec::new();
        for tile in self.all() {
            if !sizes.contains(&tile.size) {
                sizes.push(tile.size);
            }
        }
        sizes
    }

    /// The values of a tile, `[h, w, C]`, of a sample `[H, W, C]`.
    ///
    /// # Panics
    /// If the sample has another size than the tiles were made for.
    #[must_use]
    pub fn cut(&self, sample: &[f32], tile: Tile) -> Vec<f32> {
        let [height, width] = self.sample;
        let channels = sample.len() / (height * width);
        assert_eq!(sample.len(), height * width * channels, "the sample has the size of the tiles");
        let [first, left] = tile.start;
        let rows = (first..first + tile.size[0]).map(|row| (row * width + left) * channels);
        rows.flat_map(|start| &sample[start..start + tile.size[1] * channels]).copied().collect()
    }

    /// The picture `[H, W, C]` of the pictures of all tiles, `[h, w, C]` each, which `decode` makes one by one, row after
    /// row.
    ///
    /// Only two rows of tiles are held at once.
    ///
    /// # Errors
    /// Those of `decode`.
    ///
    /// # Panics
    /// If a picture has another size than its tile.
    pub fn join<E>(
        &self,
        channels: usize,
        mut decode: impl FnMut(Tile) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let [height, width] = self.sample.map(|extent| extent * self.upsampling);
        let overlap = self.side / OVERLAP * self.upsampling;
        let step = self.step() * self.upsampling;
        let mut picture = vec![0.0; height * width * channels];
        let mut above: Vec<Pixels> = Vec::new();
        for row in self.starts(0) {
            let mut current: Vec<Pixels> = Vec::new();
            for (number, column) in self.starts(1).enumerate() {
                let tile = self.tile([row, column]);
                let [tile_height, tile_width] = tile.size.map(|extent| extent * self.upsampling);
                let values = decode(tile)?;
                assert_eq!(values.len(), tile_height * tile_width * channels, "a tile has its own size");
                let mut pixels = Pixels { height: tile_height, width: tile_width, channels, values };
                if let Some(above) = above.get(number) {
                    pixels.fade_down(above, overlap);
                }
                if let Some(left) = current.last() {
                    pixels.fade_right(left, overlap);
                }
                let place = [row, column].map(|start| start * self.upsampling);
                pixels.paste(&mut picture, width, place, step);
                current.push(pixels);
            }
            above = current;
        }
        Ok(picture)
    }

    fn step(&self) -> usize {
        self.side - self.side / OVERLAP
    }

    fn starts(&self, axis: usize) -> impl Iterator<Item = usize> + use<> {
        (0..self.sample[axis]).step_by(self.step())
    }

    fn tile(&self, start: [usize; 2]) -> Tile {
        let [height, width] = self.sample;
        Tile { start, size: [self.side.min(height - start[0]), self.side.min(width - start[1])] }
    }
}

/// The picture of a tile, `[H, W, C]`.
struct Pixels {
    height: usize,
    width: usize,
    channels: usize,
    values: Vec<f32>,
}

impl Pixels {
    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width * self.channels..][..self.width * self.channels]
    }

    /// Fades from the last rows of the tile above into the first ones of this.
    fn fade_down(&mut self, above: &Self, overlap: usize) {
        let overlap = overlap.min(above.height).min(self.height);
        for row in 0..overlap {
            let (old, new) = shares(row, overlap);
            let length = self.width * self.channels;
            let values = self.values[row * length..][..length].iter_mut();
            for (value, above) in values.zip(above.row(above.height - overlap + row)) {
                *value = above * old + *value * new;
            }
        }
    }

    /// Fades from the last columns of the tile to the left into the first ones of this.
    fn fade_right(&mut self, left: &Self, overlap: usize) {
        let overlap = overlap.min(left.width).min(self.width);
        for row in 0..self.height {
            let channels = self.channels;
            let values = self.values[row * self.width * channels..].chunks_exact_mut(channels);
            let left = left.row(row)[(left.width - overlap) * channels..].chunks_exact(channels);
            for ((column, pixel), left) in values.enumerate().zip(left) {
                let (old, new) = shares(column, overlap);
                for (value, left) in pixel.iter_mut().zip(left) {
                    *value = left * old + *value * new;
                }
            }
        }
    }

    /// Copies what belongs to this tile alone, `step` pixels along each side, to its place in the picture.
    fn paste(&self, picture: &mut [f32], width: usize, [top, left]: [usize; 2], step: usize) {
        let columns = step.min(self.width) * self.channels;
        for row in 0..step.min(self.height) {
            let place = ((top + row) * width + left) * self.channels;
            picture[place..place + columns].copy_from_slice(&self.row(row)[..columns]);
        }
    }
}

/// The parts of the old and of the new tile at a place of their overlap.
fn shares(place: usize, overlap: usize) -> (f32, f32) {
    #[expect(clippy::cast_precision_loss, reason = "pixels of a side")]
    let share = place as f64 / overlap as f64;
    #[expect(clippy::cast_possible_truncation, reason = "values of a picture are f32")]
    let shares = ((1.0 - share) as f32, share as f32);
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNELS: usize = 3;

    #[test]
    fn tiles_cover_a_sample_with_a_quarter_in_common() {
        let tiles = Tiles::new([100, 64], 64, 8);
        let found: Vec<Tile> = tiles.all().collect();
        assert_eq!(found.len(), 6, "{found:?}");
        assert_eq!(found[0], Tile { start: [0, 0], size: [64, 64] });
        assert_eq!(found[1], Tile { start: [0, 48], size: [64, 16] });
        assert_eq!(found[5], Tile { start: [96, 48], size: [4, 16] });
        assert_eq!(tiles.sizes(), [[64, 64], [64, 16], [52, 64], [52, 16], [4, 64], [4, 16]]);
    }

    #[test]
    fn sides_are_multiples_of_four() {
        for (side, expected) in [(0, 4), (3, 4), (4, 4), (7, 4), (10, 8), (64, 64)] {
            assert_eq!(Tiles::new([9, 9], side, 8).side(), expected, "{side}");
        }
    }

    #[test]
    fn tiles_of_one_picture_give_that_picture() {
        let [height, width] = [13, 19];
        let sample: Vec<f32> = (0..height * width * CHANNELS).map(|value| value as f32).collect();
        let tiles = Tiles::new([height, width], 8, 1);
        let joined = tiles.join(CHANNELS, |tile| Ok::<_, ()>(tiles.cut(&sample, tile))).unwrap();
        for (found, expected) in joined.iter().zip(&sample) {
            assert!((found - expected).abs() <= 1e-4 * expected, "{found} is {expected}");
        }
    }

    #[test]
    fn an_overlap_fades_from_one_tile_to_the_next() {
        let tiles = Tiles::new([4, 16], 16, 1);
        assert_eq!(tiles.all().count(), 2, "the second tile begins at 12");
        let flat = |tile: Tile| {
            let value = if tile.start[1] == 0 { 0.0 } else { 8.0 };
            Ok::<_, ()>(vec![value; tile.size[0] * tile.size[1] * CHANNELS])
        };
        let joined = tiles.join(CHANNELS, flat).unwrap();
        let row: Vec<f32> = joined.chunks_exact(CHANNELS).take(16).map(|pixel| pixel[0]).collect();
        assert_eq!(row[..12], [0.0; 12]);
        assert_eq!(row[12..], [0.0, 2.0, 4.0, 6.0]);
    }
}
