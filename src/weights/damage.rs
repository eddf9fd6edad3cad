//! What is wrong with a file that is no whole safetensors file.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensorError;
use safetensors::tensor::TensorInfo;

use super::pickles::{PICKLE, is_pickle};
use crate::error::Error;

/// Bytes in front of the header: its length.
pub(super) const LENGTH_BYTES: usize = 8;

/// Says what is wrong with a file that the safetensors crate refused, naming the tensor where there is one.
pub(super) fn explain(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    if bytes.starts_with(b"version https://git-lfs") {
        return Error::weights_file(path, "is a Git LFS pointer instead of the weights: run `git lfs pull`");
    }
    if is_pickle(bytes) {
        return Error::weights_file(path, PICKLE);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Error::weights_file(path, "is a zip archive, expected a safetensors file");
    }
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    let after = bytes.len().saturating_sub(LENGTH_BYTES);
    let header = || header_entries(bytes, length);
    match error {
        SafeTensorError::HeaderTooSmall => Error::weights_file(
            path,
            format!("has {} bytes, too few for a safetensors file, which starts with 8", bytes.len()),
        ),
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => Error::weights_file(
            path,
            format!(
                "claims a header of {length} bytes, but {after} follow: it is damaged, cut off, \
                 or not a safetensors file"
            ),
        ),
        SafeTensorError::InvalidHeader(_) => {
            Error::weights_file(path, "has a header that is not text: it is not a safetensors file")
        }
        SafeTensorError::InvalidHeaderDeserialization(error) | SafeTensorError::JsonError(error) => {
            let problem = match error.classify() {
                serde_json::error::Category::Data => "has a header that does not describe tensors",
                _ => "has a header that is not JSON",
            };
            Error::weights_file(path, format!("{problem}: {error}"))
        }
        SafeTensorError::InvalidOffset(name) => Error::weights(
            path,
            name,
            "has offsets that overlap another tensor's, leave a gap, or end before they start: \
             the file is damaged",
        ),
        SafeTensorError::MetadataIncompleteBuffer => {
            let needed = header().iter().map(|(_, info)| info.data_offsets.1).max().unwrap_or(0);
            let present = u64::try_from(after).unwrap_or(u64::MAX).saturating_sub(length);
            Error::weights_file(
                path,
                format!(
                    "holds {present} bytes of values, but its header describes {needed}: \
                     it is cut off or damaged"
                ),
            )
        }
        SafeTensorError::TensorInvalidInfo
        | SafeTensorError::ValidationOverflow
        | SafeTensorError::MisalignedSlice => {
            let Some((name, info)) =
                header().into_iter().find(|(_, info)| described_bytes(info) != size(info))
            else {
                return Error::weights_file(path, format!("is damaged: {error}"));
            };
            let problem = match described_bytes(&info) {
                Some(bytes) => format!(
                    "has shape {:?} of {:?}, which is {bytes} bytes, but its offsets {:?} are {} apart",
                    info.shape,
                    info.dtype,
                    info.data_offsets,
                    size(&info).unwrap_or(0)
                ),
                None => format!("has the absurd shape {:?}: the file is damaged", info.shape),
            };
            Error::weights(path, &name, problem)
        }
        other => Error::weights_file(path, other.to_string()),
    }
}

fn header_entries(bytes: &[u8], length: u64) -> Vec<(String, TensorInfo)> {
    let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(LENGTH_BYTES);
    let header = bytes.get(LENGTH_BYTES..end).unwrap_or_default();
    let entries: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).unwrap_or_default();
    let described = entries.into_iter().filter(|(name, _)| name != "__metadata__");
    described.filter_map(|(name, value)| Some((name, serde_json::from_value(value).ok()?))).collect()
}

fn described_bytes(info: &TensorInfo) -> Option<usize> {
    let values = info.shape.iter().try_fold(1usize, |count, extent| count.checked_mul(*extent))?;
    let bits = values.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

fn size(info: &TensorInfo) -> Option<usize> {
    info.data_offsets.1.checked_sub(info.data_offsets.0)
}
