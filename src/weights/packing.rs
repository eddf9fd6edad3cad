//! From the bytes of a checkpoint to the bytes that kernels read: converted, transposed, in bounded chunks.

use std::collections::BTreeSet;

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::checkpoint::Checkpoint;
use super::int8;
use super::source::Source;
use crate::error::Result;
use crate::tensor::{ElementType, Tensor};

#[cfg(target_endian = "big")]
compile_error!("weights are copied as little-endian values, which is what files and GPUs hold");

/// No chunk is larger, unless a single row of a matrix is.
const CHUNK_BYTES: usize = 16 << 20;

/// Outputs of a tile: its rows in the file, its columns in the packed matrix.
const TILE_OUTPUTS: usize = 32;

/// Values of a tile that are contiguous in the file; with 32 outputs a tile fits the first-level cache.
const TILE_SPAN: usize = 320;

/// A tensor that layers already hold and whose values are still to be converted and uploaded.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The tensor that the layers hold.
    pub tensor: Tensor,
    pub(super) parts: Vec<Part>,
    pub(super) layout: Layout,
}

/// One tensor of the file that becomes part of a packed one.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The name that it was found by; without one, the values are zero.
    pub(super) name: Option<String>,
    /// The value of a sequence that it begins with; 0 for a matrix.
    pub(super) first: usize,
    /// The outputs of a matrix, or the values of a sequence.
    pub(super) count: usize,
}

/// How the values of the parts are ordered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layout {
    /// As in the file, part after part.
    Sequence,
    /// Each part `[O, I, K]` in the file, packed side by side as `[K, I, sum O]`.
    Transposed {
        /// I
        inputs: usize,
        /// K: positions of the kernel, 1 for a linear layer.
        taps: usize,
    },
}

impl Pending {
    /// Whether it is made of one of these tensors of the file.
    pub(crate) fn reads_one_of(&self, names: &BTreeSet<String>) -> bool {
        self.parts.iter().any(|part| part.name.as_ref().is_some_and(|name| names.contains(name)))
    }

    /// The tensors of the file that it is made of.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| part.name.as_deref())
    }

    /// Converts the values and hands them to `sink`, with their byte offset in the tensor.
    ///
    /// Chunks are at most 16 MiB and cover the tensor once, in any order.
    /// Offsets are multiples of four, and so are all lengths but perhaps that of the chunk that ends the tensor.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if a value is not finite, or too large for the tensor's element type;
    /// what `sink` returns, otherwise.
    pub fn write(
        &self,
        checkpoint: &Checkpoint,
        sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        match self.tensor.element() {
            ElementType::F16 => self.pack::<f16>(checkpoint, sink),
            ElementType::F32 => self.pack::<f32>(checkpoint, sink),
            ElementType::Int8 => self.pack::<i8>(checkpoint, sink),
            ElementType::U32 => unreachable!("weights are never packed as integers"),
        }
    }

    fn pack<P: Packed>(
        &self,
        checkpoint: &Checkpoint,
        sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut sources = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let source = part.name.as_deref().map(|name| Source::new(checkpoint, name)).transpose()?;
            sources.push((source, part.count));
        }
        match self.layout {
            Layout::Sequence => {
                let firsts: Vec<usize> = self.parts.iter().map(|part| part.first).collect();
                pack_sequence::<P>(&sources, &firsts, sink)
            }
            Layout::Transposed { inputs, taps } => {
                // The scales of rows that are packed as integers lie in front of them.
                let scales = if P::SCALED { int8::scales(&sources, inputs * taps)? } else { Vec::new() };
                let behind = byte_offset::<f32>(scales.len());
                if P::SCALED {
                    sink(0, bytemuck::cast_slice(&scales))?;
                }
                let sink = &mut |offset: u64, bytes: &[u8]| sink(behind + offset, bytes);
                pack_transposed::<P>(&sources, inputs, taps, &scales, sink)
            }
        }
    }
}

fn pack_sequence<P: Packed>(
    sources: &[(Option<Source<'_>>, usize)],
    firsts: &[usize],
    sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let total: usize = sources.iter().map(|(_, count)| count).sum();
    let mut chunk = vec![P::zeroed(); total.min(CHUNK_BYTES / size_of::<P>())];
    let mut values = vec![0.0; TILE_SPAN];
    let (mut filled, mut written) = (0, 0);
    for ((source, count), first) in sources.iter().zip(firsts) {
        let mut start = 0;
        while start < *count {
            let run = TILE_SPAN.min(count - start).min(chunk.len() - filled);
            let target = &mut chunk[filled..filled + run];
            read(source.as_ref(), first + start, 1.0, &mut values[..run], target)?;
            start += run;
            filled += run;
            if filled == chunk.len() {
                sink(byte_offset::<P>(written), bytemuck::cast_slice(&chunk))?;
                written += filled;
                filled = 0;
            }
        }
    }
    if filled > 0 {
        sink(byte_offset::<P>(written), bytemuck::cast_slice(&chunk[..filled]))?;
    }
    Ok(())
}

fn pack_transposed<P: Packed>(
    sources: &[(Option<Source<'_>>, usize)],
    inputs: usize,
    taps: usize,
    scales: &[f32],
    sink: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let columns: usize = sources.iter().map(|(_, count)| count).sum();
    if columns * inputs * taps == 0 {
        return Ok(());
    }
    let batch = inputs_per_batch(columns * size_of::<P>(), inputs, taps);
    let mut packed = vec![P::zeroed(); taps * batch * columns]; // [K, batch, sum O]
    let mut tile = Tile::new(taps);
    for first in (0..inputs).step_by(batch) {
        let count = batch.min(inputs - first);
        let packed = &mut packed[..taps * count * columns];
        let mut column = 0;
        for (source, outputs) in sources {
            for output in (0..*outputs).step_by(TILE_OUTPUTS) {
                let height = TILE_OUTPUTS.min(outputs - output);
                for input in (first..first + count).step_by(tile.inputs) {
                    let width = tile.inputs.min(first + count - input);
                    let start = |row: usize| ((output + row) * inputs + input) * taps;
                    let scale = |row: usize| scales.get(column + output + row).copied().unwrap_or(1.0);
                    tile.fill(source.as_ref(), height, width * taps, start, scale)?;
                    for tap in 0..taps {
                        for step in 0..width {
                            let row = tap * count + (input - first) + step;
                            let place = row * columns + column + output;
                            tile.column(step * taps + tap, &mut packed[place..place + height]);
                        }
                    }
                }
            }
            column += outputs;
        }
        if count == inputs {
            sink(0, bytemuck::cast_slice(packed))?;
        } else {
            for (tap, slab) in packed.chunks_exact(count * columns).enumerate() {
                sink(byte_offset::<P>((tap * inputs + first) * columns), bytemuck::cast_slice(slab))?;
            }
        }
    }
    Ok(())
}

/// Inputs that are packed at once, so that memory is bounded and every offset is a multiple of four.
fn inputs_per_batch(row_bytes: usize, inputs: usize, taps: usize) -> usize {
    let batch = (CHUNK_BYTES / (row_bytes * taps)).clamp(1, inputs);
    let step = if row_bytes.is_multiple_of(4) {
        1
    } else if row_bytes.is_multiple_of(2) {
        2
    } else {
        4
    };
    if batch == inputs {
        batch
    } else if inputs.is_multiple_of(step) {
        (batch / step * step).max(step)
    } else {
        inputs // Of an odd number of odd rows, only the whole is aligned. No known model has one so large.
    }
}

fn byte_offset<P>(values: usize) -> u64 {
    values as u64 * size_of::<P>() as u64
}

/// A block of a matrix, converted and still in the file's order.
struct Tile<P> {
    inputs: usize,
    span: usize,
    values: Vec<f32>,
    packed: Vec<P>, // [O, I, K]
}

impl<P: Packed> Tile<P> {
    fn new(taps: usize) -> Self {
        let inputs = (TILE_SPAN / taps).max(1);
        let span = inputs * taps;
        Self { inputs, span, values: vec![0.0; span], packed: vec![P::zeroed(); span * TILE_OUTPUTS] }
    }

    fn fill(
        &mut self,
        source: Option<&Source<'_>>,
        height: usize,
        length: usize,
        start: impl Fn(usize) -> usize,
        scale: impl Fn(usize) -> f32,
    ) -> Result<()> {
        for row in 0..height {
            let target = &mut self.packed[row * self.span..][..length];
            read(source, start(row), scale(row), &mut self.values[..length], target)?;
        }
        Ok(())
    }

    /// One value of every output.
    fn column(&self, position: usize, target: &mut [P]) {
        for (value, row) in target.iter_mut().zip(self.packed.chunks_exact(self.span)) {
            *value = row[position];
        }
    }
}

pub(super) fn fits(value: f32, largest: f32) -> bool {
    value.abs() <= largest
}

/// Reads `values.len()` values of one scale from `start` on, checks and converts them; zeros without a source.
fn read<P: Packed>(
    source: Option<&Source<'_>>,
    start: usize,
    scale: f32,
    values: &mut [f32],
    target: &mut [P],
) -> Result<()> {
    let Some(source) = source else {
        target.fill(P::zeroed());
        return Ok(());
    };
    source.decode(start, values);
    // A fold instead of `all` has no early exit, so that it becomes vector instructions.
    if !values.iter().fold(true, |fit, value| fit & fits(*value, P::LARGEST)) {
        return Err(source.refuse(start, values, P::LARGEST));
    }
    P::pack(values, scale, target);
    Ok(())
}

/// An element type that kernels read.
trait Packed: Pod {
    const LARGEST: f32;
    /// Whether the values of a row are multiples of its scale.
    const SCALED: bool = false;
    fn pack(values: &[f32], scale: f32, target: &mut [Self]);
}

impl Packed for f32 {
    const LARGEST: Self = Self::MAX;
    fn pack(values: &[f32], _: f32, target: &mut [Self]) {
        target.copy_from_slice(values);
    }
}

impl Packed for f16 {
    const LARGEST: f32 = 65504.0;
    fn pack(values: &[f32], _: f32, target: &mut [Self]) {
        target.convert_from_f32_slice(values);
    }
}

impl Packed for i8 {
    const LARGEST: f32 = f32::MAX;
    const SCALED: bool = true;
    fn pack(values: &[f32], scale: f32, target: &mut [Self]) {
        int8::quantise(values, scale, target);
    }
}

#[cfg(test)]
mod tests {
    use super::{CHUNK_BYTES, inputs_per_batch};

    #[test]
    fn batches_are_bounded_and_aligned() {
        for (row_bytes, inputs, taps) in
            [(6, 512, 9), (2560, 1280, 9), (20480, 1280, 1), (6, 3, 9), (4 << 20, 64, 9), (6 << 10, 4000, 9)]
        {
            let batch = inputs_per_batch(row_bytes, inputs, taps);
            assert!((1..=inputs).contains(&batch), "{batch} of {inputs} inputs");
            assert!(batch * row_bytes <= CHUNK_BYTES, "a slab of {batch} rows of {row_bytes} bytes");
            for first in (0..inputs).step_by(batch) {
                for tap in 0..if batch == inputs { 1 } else { taps } {
                    let offset = (tap * inputs + first) * row_bytes;
                    assert!(offset.is_multiple_of(4), "offset {offset} is not aligned");
                }
            }
        }
    }

    #[test]
    fn odd_rows_of_halves_are_packed_in_pairs() {
        let row_bytes = 2 * 100_001;
        let batch = inputs_per_batch(row_bytes, 1000, 1);
        assert!(batch.is_multiple_of(2) && batch < 1000, "a batch of {batch} breaks alignment");
        // and of bytes in fours
        let batch = inputs_per_batch(100_001, 1000, 1);
        assert!(batch.is_multiple_of(4) && batch < 1000, "a batch of {batch} breaks alignment");
        assert_eq!(inputs_per_batch(100_001, 1002, 1), 1002);
    }
}
