//! How the sample of a run becomes a picture: in one piece, or in overlapping tiles.

use std::sync::Arc;

use super::VaeTiling;
use super::encoding::{bytes_of, floats_of};
use super::faults::Check;
use super::frame::recording_of;
use super::model::Decoder;
use super::tiles::attempts_of;
use crate::error::{Error, Result};
use crate::gpu::choices::Choices;
use crate::gpu::recording::{Recording, largest_binding};
use crate::gpu::{Executor, Memory, Program};
use crate::kernels::pixels::pixels;
use crate::models::vae::tiling::Tiles;
use crate::tensor::{ElementType, Tensor};

/// The name of the recordings that make pictures.
pub(super) const DECODE: &str = "decode";

/// What helps where the VAE is too large and must not be cut.
const ADVICE: &str = "use --vae-tiling auto (VaeTiling::Auto), a smaller picture, or 16-bit storage";

/// The tensors of a decode, and where its tiles lie; by default nothing is decoded.
#[derive(Debug, Default)]
pub(super) struct Decoding {
    /// `None` where the picture is decoded whole.
    tiles: Option<Tiles>,
    /// One for every size of a tile.
    pieces: Vec<Piece>,
    /// Height and width of the picture in pixels.
    size: [usize; 2],
}

/// What is decoded at once.
#[derive(Debug)]
struct Piece {
    /// Height and width in latents.
    size: [usize; 2],
    /// What is decoded, `[1, h, w, C]`.
    sample: Tensor,
    /// The packed pixels, `[1, H, W]`; the values of a tile, `[1, H, W, 3]`.
    output: Tensor,
    check: Check,
}

/// The ways to decode a sample, the best first: the sides of tiles in latents, `None` for the whole.
///
/// More than one where it is left open: the later ones take less memory. What cannot be bound is left out, as far as
/// anything else remains.
pub(super) fn attempts(
    decoder: &Decoder,
    size: [usize; 2],
    tiling: VaeTiling,
    limit: u64,
    choices: &Arc<Choices>,
) -> Result<Vec<Option<usize>>> {
    let Some(usual_side) = decoder.tile_side() else {
        return match tiling {
            VaeTiling::Always => {
                Err(Error::option("vae tiling", "this model has no VAE that could decode in tiles"))
            }
            VaeTiling::Auto | VaeTiling::Never => Ok(vec![None]),
        };
    };
    attempts_of(size, usual_side, tiling, |side| {
        let piece = side.map_or(size, |side| size.map(|extent| extent.min(side)));
        let (piece, tiled) = (Piece::new(decoder, piece, side.is_some()), side.is_some());
        let recording = piece.record(decoder, tiled, recording_of(DECODE, choices))?;
        Ok(largest_binding(&[&recording]).is_none_or(|(_, bytes)| bytes <= limit))
    })
}

/// An error about a decode or encode that is too large, with what helps where tiles were forbidden.
pub(super) fn advise(error: Error, tiling: VaeTiling) -> Error {
    match error {
        Error::Limit { what, needed, limit, .. }
            if tiling == VaeTiling::Never && (what.starts_with("decode/") || what.starts_with("encode/")) =>
        {
            Error::Limit { what, needed, limit, advice: ADVICE }
        }
        other => other,
    }
}

impl Decoding {
    /// For a sample of this height and width, in tiles of `side` latents.
    pub(super) fn new(decoder: &Decoder, size: [usize; 2], side: Option<usize>) -> Self {
        let upsampling = decoder.upsampling();
        let tiles = side.map(|side| Tiles::new(size, side, upsampling));
        let sizes = tiles.as_ref().map_or_else(|| vec![size], Tiles::sizes);
        let pieces = sizes.into_iter().map(|size| Piece::new(decoder, size, tiles.is_some())).collect();
        Self { tiles, pieces, size: size.map(|extent| extent * upsampling) }
    }

    /// The side of its tiles in latents.
    pub(super) fn side(&self) -> Option<usize> {
        self.tiles.as_ref().map(Tiles::side)
    }

    /// Everything that is to be allocated.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.pieces
            .iter()
            .flat_map(|piece| [&piece.sample, &piece.output].into_iter().chain(piece.check.tensors()))
    }

    /// Records the decode of every piece, under a name.
    pub(super) fn record(
        &self,
        decoder: &Decoder,
        name: &str,
        choices: &Arc<Choices>,
    ) -> Result<Vec<Recording>> {
        let tiled = self.tiles.is_some();
        self.pieces.iter().map(|piece| piece.record(decoder, tiled, recording_of(name, choices))).collect()
    }

    /// Decodes a sample, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn decode(
        &self,
        sample: &[f32],
        programs: &[Program],
        recordings: &[Recording],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<(u32, u32, Vec<u8>)> {
        let [height, width] = self.size.map(|extent| u32::try_from(extent).unwrap_or(u32::MAX));
        let mut play = |piece: usize, values: &[f32]| {
            self.pieces[piece].play(values, (&programs[piece], &recordings[piece]), memory, executor)
        };
        let Some(tiles) = &self.tiles else {
            let packed = play(0, sample)?;
            let rgb = packed.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
            return Ok((width, height, rgb));
        };
        let picture = tiles.join(3, |tile| {
            let place = |piece: &Piece| piece.size == tile.size;
            let piece = self.pieces.iter().position(place).expect("a piece for every size of a tile");
            let bytes = play(piece, &tiles.cut(sample, tile))?;
            Ok::<_, Error>(floats_of(&bytes, self.pieces[piece].output.element()))
        })?;
        Ok((width, height, picture.into_iter().map(byte).collect()))
    }
}

impl Piece {
    fn new(decoder: &Decoder, size: [usize; 2], tiled: bool) -> Self {
        let [height, width] = size;
        let channels = decoder.sample_channels();
        let stored = decoder.sample_element();
        let pixels = size.map(|extent| extent * decoder.upsampling());
        let sample = Tensor::external("decoded_sample", [1, height, width, channels], stored);
        let output = if tiled {
            Tensor::external("tile", [1, pixels[0], pixels[1], 3], stored)
        } else {
            Tensor::external("pixels", [1, pixels[0], pixels[1]], ElementType::U32)
        };
        Self { size, sample, output, check: Check::new() }
    }

    fn record(&self, decoder: &Decoder, tiled: bool, mut recording: Recording) -> Result<Recording> {
        let image = decoder.record(&mut recording, &self.sample)?; // [1, H, W, 3]
        self.check.record(&mut recording, &image)?;
        if tiled {
            recording.place(&image, &self.output);
        } else {
            let packed = pixels(&mut recording, &image)?; // [1, H, W]
            recording.place(&packed, &self.output);
        }
        Ok(recording)
    }

    fn play(
        &self,
        sample: &[f32],
        programmed: (&Program, &Recording),
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Vec<u8>> {
        memory.write(&self.sample, 0, &bytes_of(sample, self.sample.element()))?;
        self.check.play("the decoded picture", programmed, memory, executor)?;
        memory.read(&self.output)
    }
}

/// A value of -1 to 1 as the kernel `pixels` makes a byte of it.
pub(super) fn byte(value: f32) -> u8 {
    let unit = value * 0.5 + 0.5;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255; NaN becomes 0")]
    let byte = (unit.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    byte
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{PlanMode, plan_slots};
    use crate::pipelines::LoadOptions;
    use crate::pipelines::loading::open_model;
    use crate::weights::ModelFiles;

    fn decoder() -> Decoder {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny");
        let files = ModelFiles::open(path).unwrap();
        open_model(&files, &LoadOptions::default(), ElementType::F32, u64::MAX).unwrap().model.decoder
    }

    #[test]
    fn smaller_tiles_are_tried_one_after_the_other() {
        let (decoder, choices) = (decoder(), Arc::default());
        let sides = |size, tiling, limit| attempts(&decoder, size, tiling, limit, &choices).unwrap();
        let large = [64, 40];
        assert_eq!(sides(large, VaeTiling::Never, 0), [None]);
        assert_eq!(sides(large, VaeTiling::Auto, u64::MAX), [None, Some(60), Some(28), Some(12)]);
        assert_eq!(sides(large, VaeTiling::Always, u64::MAX), [Some(16)], "of the training pictures");
        assert_eq!(sides([16, 16], VaeTiling::Always, u64::MAX), [None], "no larger than a tile");
        // Nothing fits: what is said is about the whole, or about the tile that was asked for.
        assert_eq!(sides(large, VaeTiling::Auto, 1), [None]);
        assert_eq!(sides(large, VaeTiling::Always, 1), [Some(16)]);
    }

    #[test]
    fn every_attempt_takes_less_memory() {
        let (decoder, choices) = (decoder(), Arc::default());
        let size = [64, 40];
        let sides = attempts(&decoder, size, VaeTiling::Auto, u64::MAX, &choices).unwrap();
        let bytes = sides.iter().map(|side| {
            let recordings = Decoding::new(&decoder, size, *side).record(&decoder, DECODE, &choices).unwrap();
            plan_slots(&recordings.iter().collect::<Vec<_>>(), PlanMode::Shared).bytes()
        });
        let bytes: Vec<u64> = bytes.collect();
        assert!(bytes.is_sorted_by(|before, after| before > after), "{bytes:?}");
    }

    #[test]
    fn a_byte_is_what_the_kernel_makes_of_a_value() {
        let values = [-2.0, -1.0, -0.5, 0.0, 0.25, 0.999, 1.0, 7.0, f32::NAN];
        for value in values {
            let packed = crate::reference::pixels::pixels(&[f64::from(value)], 1)[0];
            assert_eq!(f64::from(byte(value)), packed % 256.0, "{value}");
        }
    }
}
