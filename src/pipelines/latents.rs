//! Latents on the host, and their files.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::faults::ADVICE;
use crate::error::{Error, Result};
use crate::files::write_whole;

/// The name of the tensor in a file.
const NAME: &str = "latents";

/// Latents of several pictures: `[N, C, h, w]`, f32, as diffusers lays them out.
#[derive(Clone, Debug, PartialEq)]
pub struct Latents {
    shape: [usize; 4],
    values: Vec<f32>,
}

impl Latents {
    /// Latents of this shape.
    ///
    /// # Errors
    /// [`Error::Option`] if the number of values is not the shape's, or one is not finite.
    pub fn new(shape: [usize; 4], values: Vec<f32>) -> Result<Self> {
        let count = shape.iter().try_fold(1_usize, |count, extent| count.checked_mul(*extent));
        if count != Some(values.len()) || values.is_empty() {
            let problem = format!("{} values do not fill the shape {shape:?}", values.len());
            return Err(Error::option("latents", problem));
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::option("latents", format!("value {position} is not finite")));
        }
        Ok(Self { shape, values })
    }

    /// `[N, C, h, w]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The values, fastest along the width.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// How far these are from others: the root mean square of the differences.
    ///
    /// # Errors
    /// [`Error::Option`] if the shapes differ.
    pub fn distance(&self, other: &Self) -> Result<f64> {
        if self.shape != other.shape {
            let problem = format!("{:?} cannot be compared with {:?}", self.shape, other.shape);
            return Err(Error::option("latents", problem));
        }
        Ok(distance(&self.values, &other.values))
    }

    /// Reads the tensor `latents` of a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Weights`] if it is damaged, has no such tensor, or the
    /// tensor is not f32 `[N, C, h, w]` of finite values.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|error| Error::io(path, "read", error))?;
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| Error::weights_file(path, format!("not a safetensors file: {error}")))?;
        let tensor = file.tensor(NAME).map_err(|_| {
            let names = file.names();
            Error::weights(path, NAME, format!("is missing; the file has {names:?}"))
        })?;
        if tensor.dtype() != Dtype::F32 {
            return Err(Error::weights(path, NAME, format!("is {:?}, expected F32", tensor.dtype())));
        }
        let shape: [usize; 4] = tensor.shape().try_into().map_err(|_| {
            Error::weights(path, NAME, format!("has shape {:?}, expected [N, C, h, w]", tensor.shape()))
        })?;
        let values = bytemuck::pod_collect_to_vec(tensor.data());
        Self::new(shape, values).map_err(|error| Error::weights(path, NAME, error.to_string()))
    }

    /// Writes the tensor `latents` to a safetensors file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let view = TensorView::new(Dtype::F32, self.shape.to_vec(), bytemuck::cast_slice(&self.values))
            .map_err(|error| Error::weights_file(path, error.to_string()))?;
        let bytes = safetensors::serialize([(NAME, view)], None)
            .map_err(|error| Error::weights_file(path, error.to_string()))?;
        write_whole(path, &bytes)
    }

    /// One picture's latents as a device has them: `[h, w, C]`.
    pub(super) fn channels_last(&self, picture: usize) -> Vec<f32> {
        let [_, channels, height, width] = self.shape;
        let area = height * width;
        let plane = &self.values[picture * channels * area..(picture + 1) * channels * area];
        (0..area * channels).map(|index| plane[(index % channels) * area + index / channels]).collect()
    }

    /// Puts pictures of `[h, w, C]` values together.
    pub(super) fn from_channels_last(
        [channels, height, width]: [usize; 3],
        pictures: &[Vec<f32>],
    ) -> Result<Self> {
        let area = height * width;
        let mut values = Vec::with_capacity(pictures.len() * channels * area);
        for picture in pictures {
            values
                .extend((0..channels * area).map(|index| picture[(index % area) * channels + index / area]));
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NotFinite { what: "the denoised latents".to_owned(), advice: ADVICE });
        }
        Self::new([pictures.len(), channels, height, width], values)
    }
}

/// The root mean square of the differences.
pub(super) fn distance(left: &[f32], right: &[f32]) -> f64 {
    let squares = left.iter().zip(right).map(|(left, right)| (f64::from(*left) - f64::from(*right)).powi(2));
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
    let count = left.len() as f64;
    (squares.sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_last_and_back_is_the_same() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 5_u16).map(f32::from).collect();
        let latents = Latents::new([2, 3, 4, 5], values).unwrap();
        let pictures = [latents.channels_last(0), latents.channels_last(1)];
        assert_eq!(pictures[0][..3], [0.0, 20.0, 40.0]);
        assert_eq!(Latents::from_channels_last([3, 4, 5], &pictures).unwrap(), latents);
    }
}
