//! Checkpoints that tests write: of names and shapes, and under other element types.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// One tensor: name, type, shape, bytes.
pub(crate) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// Writes tensors.
pub(crate) fn write(path: &Path, tensors: &[Stored]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Writes tensors of zeros.
pub(crate) fn write_zeros(path: &Path, tensors: &[(&str, &[usize])]) {
    let zeros = tensors.iter().map(|(name, shape)| {
        let bytes = vec![0; 2 * shape.iter().product::<usize>()];
        ((*name).to_owned(), Dtype::F16, shape.to_vec(), bytes)
    });
    write(path, &zeros.collect::<Vec<_>>());
}

/// The tensors of a file, each changed, or left out where there is none in its place.
pub(crate) fn changed(path: &Path, change: impl Fn(Stored) -> Option<Stored>) -> Vec<Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()));
    tensors.filter_map(change).collect()
}

/// The values of a tensor of 16 or 32 bits; none for other types.
pub(crate) fn values((_, dtype, _, bytes): &Stored) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F16 => {
            Some(bytes.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes).to_f32()).collect())
        }
        Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()),
        _ => None,
    }
}

/// Copies a file, with each of its floats as another type.
pub(crate) fn convert(from: &Path, to: &Path, dtype: Dtype, encode: impl Fn(f32) -> Vec<u8>) {
    let tensors = changed(from, |stored| match values(&stored) {
        Some(values) => Some((stored.0, dtype, stored.2, values.into_iter().flat_map(&encode).collect())),
        None => Some(stored),
    });
    write(to, &tensors);
}
