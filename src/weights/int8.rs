//! Matrices of 8-bit integers: which tensors become such, and how their values do.

use std::str::FromStr;

use super::packing::fits;
use super::source::Source;
use crate::error::{Error, Result};
use crate::tensor::ElementType;

/// How matrices of weights are stored on the device.
///
/// With [`Int8`](Self::Int8), linear layers and convolutions that read and make at least 16 channels have 8-bit
/// integers with one f32 scale for each output, the largest of its weights divided by 127 (symmetric, `w = scale * q`).
/// Kernels multiply what they read by the integers, and the sums by the scale, so activations stay as they are.
///
/// As they are stay also: biases and norms; the first and the last convolution, which have few channels; embeddings of
/// timesteps and of tokens, and the projection of a text encoder, which are small; and all of the VAE or VQ decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightStorage {
    /// As activations are: 16-bit or 32-bit floats.
    #[default]
    AsActivations,
    /// 8-bit integers and scales, where a tensor is large enough.
    Int8,
}

/// A matrix with fewer inputs or outputs stays as it is: what reads or makes the sample itself has so few, and there
/// the scales would weigh as much as what is saved.
const LEAST_CHANNELS: usize = 16;

impl WeightStorage {
    /// How a matrix from `inputs` to `outputs` channels is stored beside activations of an element type.
    pub(super) fn element(self, inputs: usize, outputs: usize, activations: ElementType) -> ElementType {
        match self {
            Self::Int8 if inputs.min(outputs) < LEAST_CHANNELS => activations,
            storage => storage.beside(activations),
        }
    }

    /// The type that large matrices have beside activations of an element type.
    pub(crate) fn beside(self, activations: ElementType) -> ElementType {
        match self {
            Self::AsActivations => activations,
            Self::Int8 => ElementType::Int8,
        }
    }
}

impl FromStr for WeightStorage {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "dtype" => Ok(Self::AsActivations),
            "int8" => Ok(Self::Int8),
            other => Err(Error::option("weights", format!("\"{other}\" is not dtype or int8"))),
        }
    }
}

/// The largest integer; -128 is left out, so that both signs reach as far.
const LARGEST: f32 = 127.0;

/// Values that are looked at together.
const SPAN: usize = 4096;

/// The scale of every output of matrices side by side, whose rows have so many values in the file.
///
/// # Errors
/// [`Error::Weights`] if a value is not finite.
pub(super) fn scales(sources: &[(Option<Source<'_>>, usize)], row: usize) -> Result<Vec<f32>> {
    let mut scales = Vec::with_capacity(sources.iter().map(|(_, outputs)| outputs).sum());
    let mut values = vec![0.0; row.min(SPAN)];
    for (source, outputs) in sources {
        for output in 0..*outputs {
            let largest = match source {
                Some(source) => largest(source, output * row, row, &mut values)?,
                None => 0.0,
            };
            scales.push(scale(largest));
        }
    }
    Ok(scales)
}

/// The largest absolute value of `count` from `start` on.
fn largest(source: &Source<'_>, start: usize, count: usize, values: &mut [f32]) -> Result<f32> {
    let mut largest = 0.0_f32;
    for first in (start..start + count).step_by(values.len()) {
        let values = &mut values[..(start + count - first).min(SPAN)];
        source.decode(first, values);
        // Infinity is the largest of all, but no comparison finds what is not a number.
        if !values.iter().fold(true, |fit, value| fit & fits(*value, f32::MAX)) {
            return Err(source.refuse(first, values, f32::MAX));
        }
        largest = values.iter().fold(largest, |largest, value| largest.max(value.abs()));
    }
    Ok(largest)
}

/// The scale of weights of up to this size; 0 where they are all so small that their integers would not be exact, which
/// no f16 could tell from 0 either.
fn scale(largest: f32) -> f32 {
    let scale = largest / LARGEST;
    if scale.is_normal() { scale } else { 0.0 }
}

/// The nearest integers, of halves the even one.
pub(super) fn quantise(values: &[f32], scale: f32, target: &mut [i8]) {
    /// Adding it moves a whole number to the lowest bits of a float, rounded.
    const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23
    if scale == 0.0 {
        target.fill(0);
        return;
    }
    for (integer, value) in target.iter_mut().zip(values) {
        let nearest = (value / scale).clamp(-LARGEST, LARGEST) + SHIFT;
        *integer = nearest.to_bits().to_le_bytes()[0].cast_signed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_the_nearest_ones() {
        let scale = scale(2.54);
        let values: Vec<f32> = (-1270..=1270).map(|number| 0.002 * number as f32).collect();
        let mut integers = vec![0; values.len()];
        quantise(&values, scale, &mut integers);
        for (value, integer) in values.iter().zip(&integers) {
            let found = scale * f32::from(*integer);
            assert!((found - value).abs() <= 0.500_01 * scale, "{value} became {found}");
        }
        assert_eq!((integers[0], integers[1270], integers[2540]), (-127, 0, 127));
    }

    #[test]
    fn the_largest_and_the_smallest_floats_have_scales() {
        for largest in [f32::MAX, 1.0, 1e-30, f32::MIN_POSITIVE, 1e-45, 0.0] {
            let scale = scale(largest);
            assert!(scale.is_finite(), "{largest}");
            let mut integers = [1; 3];
            quantise(&[largest, -largest, 0.0], scale, &mut integers);
            let expected = if largest > 1e-36 { [127, -127, 0] } else { [0; 3] };
            assert_eq!(integers, expected, "{largest}");
        }
    }

    #[test]
    fn what_has_few_channels_stays_as_it_is() {
        let element = |inputs, outputs| WeightStorage::Int8.element(inputs, outputs, ElementType::F16);
        assert_eq!(element(16, 16), ElementType::Int8);
        assert_eq!([element(4, 320), element(320, 4), element(9, 320)], [ElementType::F16; 3]);
        let kept = WeightStorage::AsActivations.element(320, 320, ElementType::F32);
        assert_eq!(kept, ElementType::F32);
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        assert_eq!("int8".parse::<WeightStorage>().unwrap(), WeightStorage::Int8);
        assert_eq!("dtype".parse::<WeightStorage>().unwrap(), WeightStorage::AsActivations);
        let refused = "int4".parse::<WeightStorage>().unwrap_err().to_string();
        assert!(refused.contains("int4") && refused.contains("int8"), "{refused}");
    }
}
