//! How pictures become the moments of latents: in one piece, or in overlapping tiles.

use std::sync::Arc;

use super::faults::Check;
use super::frame::recording_of;
use super::tiles::attempts_of;
use super::{Latents, VaeTiling};
use crate::error::Result;
use crate::gpu::choices::Choices;
use crate::gpu::recording::{Recording, largest_binding};
use crate::gpu::{Executor, Memory, Program};
use crate::models::vae::VaeEncoder;
use crate::models::vae::tiling::Tiles;
use crate::tensor::{ElementType, Tensor};

/// diffusers clamps log-variances to these before it draws from them.
const LOG_VARIANCES: [f64; 2] = [-30.0, 20.0];

/// The tensors of an encode, and where its tiles lie.
#[derive(Debug)]
pub(super) struct Encoding {
    /// `None` where a picture is encoded whole; else the tiles of the picture and those of its latents.
    tiles: Option<[Tiles; 2]>,
    /// One for every size of a tile.
    pieces: Vec<Piece>,
    /// Height and width of the latents.
    size: [usize; 2],
    /// Values of a pixel of the moments.
    channels: usize,
}

/// What is encoded at once.
#[derive(Debug)]
struct Piece {
    /// Height and width in pixels.
    size: [usize; 2],
    /// What is encoded, `[1, H, W, 3]`.
    picture: Tensor,
    /// Means and log-variances, `[1, h, w, 2C]`.
    moments: Tensor,
    check: Check,
}

/// The ways to encode pictures of a sample of this size, the best first: the sides of tiles in latents, `None` for
/// the whole. As those of [decoding](super::decoding::attempts).
pub(super) fn attempts(
    vae: &VaeEncoder,
    size: [usize; 2],
    tiling: VaeTiling,
    limit: u64,
    choices: &Arc<Choices>,
) -> Result<Vec<Option<usize>>> {
    let factor = vae.config().upsampling();
    attempts_of(size, vae.config().tile_side(), tiling, |side| {
        let piece = side.map_or(size, |side| size.map(|extent| extent.min(side)));
        let piece = Piece::new(vae, piece.map(|extent| extent * factor));
        Ok(largest_binding(&[&piece.record(vae, choices)?]).is_none_or(|(_, bytes)| bytes <= limit))
    })
}

impl Encoding {
    /// For pictures of a sample of this height and width, in tiles of `side` latents.
    pub(super) fn new(vae: &VaeEncoder, size: [usize; 2], side: Option<usize>) -> Self {
        let factor = vae.config().upsampling();
        let pixels = size.map(|extent| extent * factor);
        let tiles = side.map(|side| {
            let latents = Tiles::new(size, side, 1);
            [Tiles::new(pixels, latents.side() * factor, 1), latents]
        });
        let sizes = tiles.as_ref().map_or_else(|| vec![pixels], |[pixels, _]| pixels.sizes());
        let pieces = sizes.into_iter().map(|size| Piece::new(vae, size)).collect();
        Self { tiles, pieces, size, channels: vae.moments() }
    }

    /// The side of its tiles in latents.
    pub(super) fn side(&self) -> Option<usize> {
        self.tiles.as_ref().map(|[_, latents]| latents.side())
    }

    /// Everything that is to be allocated.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.pieces
            .iter()
            .flat_map(|piece| [&piece.picture, &piece.moments].into_iter().chain(piece.check.tensors()))
    }

    /// Records the encode of every piece.
    pub(super) fn record(&self, vae: &VaeEncoder, choices: &Arc<Choices>) -> Result<Vec<Recording>> {
        self.pieces.iter().map(|piece| piece.record(vae, choices)).collect()
    }

    /// Encodes a picture `[H, W, 3]` of values from -1 to 1: its moments, `[h, w, 2C]`.
    pub(super) fn encode(
        &self,
        picture: &[f32],
        programs: &[Program],
        recordings: &[Recording],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Vec<f32>> {
        let mut play = |piece: usize, values: &[f32]| {
            self.pieces[piece].play(values, (&programs[piece], &recordings[piece]), memory, executor)
        };
        match &self.tiles {
            None => play(0, picture),
            Some([pixels, latents]) => {
                let mut cuts = pixels.all();
                latents.join(self.channels, |_| {
                    let cut = cuts.next().expect("a tile of pixels for every tile of latents");
                    let place = self.pieces.iter().position(|piece| piece.size == cut.size);
                    let place = place.expect("a piece for every size of a tile");
                    play(place, &pixels.cut(picture, cut))
                })
            }
        }
    }

    /// Draws latents `[1, C, h, w]` from moments: the noise is of one draw, as diffusers lays it out.
    pub(super) fn sample(&self, moments: &[f32], noise: &[f32], scaling_factor: f32) -> Result<Latents> {
        let [height, width] = self.size;
        let (area, channels) = (height * width, self.channels / 2);
        let value = |index: usize| {
            let place = index % area * self.channels + index / area;
            let [mean, log_variance] = [moments[place], moments[place + channels]].map(f64::from);
            let deviation = (0.5 * log_variance.clamp(LOG_VARIANCES[0], LOG_VARIANCES[1])).exp();
            #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
            let value = (f64::from(scaling_factor) * (mean + deviation * f64::from(noise[index]))) as f32;
            value
        };
        Latents::new([1, channels, height, width], (0..channels * area).map(value).collect())
    }
}

impl Piece {
    fn new(vae: &VaeEncoder, size: [usize; 2]) -> Self {
        let [height, width] = size;
        let [rows, columns] = size.map(|extent| extent / vae.config().upsampling());
        let (inputs, moments) = (vae.config().in_channels, vae.moments());
        Self {
            size,
            picture: Tensor::external("picture", [1, height, width, inputs], vae.element()),
            moments: Tensor::external("moments", [1, rows, columns, moments], vae.element()),
            check: Check::new(),
        }
    }

    fn record(&self, vae: &VaeEncoder, choices: &Arc<Choices>) -> Result<Recording> {
        let mut recording = recording_of("encode", choices);
        let moments = vae.record(&mut recording.scope("vae"), &self.picture)?; // [1, h, w, 2C]
        self.check.record(&mut recording, &moments)?;
        recording.place(&moments, &self.moments);
        Ok(recording)
    }

    fn play(
        &self,
        picture: &[f32],
        programmed: (&Program, &Recording),
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Vec<f32>> {
        memory.write(&self.picture, 0, &bytes_of(picture, self.picture.element()))?;
        self.check.play("the moments of the picture's latents", programmed, memory, executor)?;
        Ok(floats_of(&memory.read(&self.moments)?, self.moments.element()))
    }
}

/// Values as a device stores them.
pub(super) fn bytes_of(values: &[f32], element: ElementType) -> Vec<u8> {
    match element {
        ElementType::F16 => {
            values.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
        }
        _ => bytemuck::cast_slice(values).to_vec(),
    }
}

/// Values that a device has stored.
pub(super) fn floats_of(bytes: &[u8], element: ElementType) -> Vec<f32> {
    match element {
        ElementType::F16 => {
            bytemuck::pod_collect_to_vec::<u8, half::f16>(bytes).iter().map(|value| value.to_f32()).collect()
        }
        _ => bytemuck::pod_collect_to_vec(bytes),
    }
}
