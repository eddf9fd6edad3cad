//! Safetensors files, mapped and checked: what is in them, and where.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::tensor::{Dtype, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};

use super::Weights;
use super::names_diffusers::alternatives;
use crate::error::{Error, Result};

/// Bytes in front of the header: its length.
const LENGTH_BYTES: usize = 8;

/// How the values of one tensor are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// Integers, which no layer reads.
    Integer,
}

impl Stored {
    /// Bytes of one floating-point value.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::Integer => 4,
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its name in the file.
    pub(super) name: String,
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) stored: Stored,
    pub(super) shape: Vec<usize>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

/// The tensors of one or more safetensors files, mapped into memory and not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    files: Arc<Vec<MappedFile>>,
    /// By the name that layers ask for.
    entries: BTreeMap<String, Entry>,
    /// Whether every tensor that a layer asks for is taken to be there.
    assumed: bool,
}

impl Checkpoint {
    /// Maps the files and checks their headers; the values stay on disk until they are packed.
    ///
    /// Tensors must be F16, BF16 or F32; I64 and I32 tensors are known but never read.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened, [`Error::Weights`] if one is not a whole safetensors file,
    /// holds another element type, or repeats a tensor of another file; [`Error::Option`] if `paths` is empty.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::option("weights", "no file was given"));
        }
        let (mut files, mut entries) = (Vec::new(), BTreeMap::new());
        for path in paths {
            add(path, &mut files, &mut entries)?;
        }
        Ok(Self { files: Arc::new(files), entries, assumed: false })
    }

    /// A checkpoint without files in which every tensor is taken to be there, with the shape that is asked for.
    ///
    /// Models built from it can be recorded and their cost counted, but they have no values to upload.
    #[must_use]
    pub fn assumed() -> Self {
        Self { files: Arc::default(), entries: BTreeMap::new(), assumed: true }
    }

    /// The same tensors under other names: those for which `rename` has one. Errors go on using the names in the
    /// file.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let renamed = self.entries.iter().filter_map(|(name, entry)| Some((rename(name)?, entry.clone())));
        Self { files: Arc::clone(&self.files), entries: renamed.collect(), assumed: self.assumed }
    }

    /// The top of the tree of names.
    #[must_use]
    pub fn root(&self) -> Weights<'_> {
        Weights::new(self)
    }

    /// All tensors by the names that layers ask for, or by older ones, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The files, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// The shape of a tensor, by today's name or by an older one.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// A tensor by today's name or by an older one, with the name that it was found by.
    pub(super) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        let exact = self.entries.get_key_value(name);
        exact
            .or_else(|| {
                alternatives(name).iter().find_map(|other| self.entries.get_key_value(other.as_str()))
            })
            .map(|(name, entry)| (name.as_str(), entry))
    }

    /// The file that holds a tensor.
    pub(super) fn file_of(&self, entry: &Entry) -> &Path {
        &self.files[entry.file].path
    }

    /// The values of a tensor as they lie in the file.
    pub(super) fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].map[entry.start..entry.end]
    }

    /// Tensors that a layer could read: floating point, and not the position ids that some files store so.
    pub(super) fn readable(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|(name, entry)| entry.stored != Stored::Integer && !name.ends_with("position_ids"))
            .map(|(name, _)| name.as_str())
    }

    /// What to say about a tensor that is not there.
    pub(super) fn missing(&self, name: &str) -> Error {
        let mut problem = "is missing".to_owned();
        if self.entries.iter().any(|(name, entry)| entry.name != *name) {
            problem += " under the name that the file's layout has for it";
        }
        let others = alternatives(name);
        if !others.is_empty() {
            problem += &format!(" (so is \"{}\", its other name)", others.join("\", \""));
        }
        let mut names = std::iter::once(name).chain(others.iter().map(String::as_str));
        if let Some(near) = names.find_map(|name| nearest(name, self.entries.keys())) {
            let own = self.entries.get(near).map_or(near, |entry| entry.name.as_str());
            problem += &format!("; there is \"{own}\"");
        }
        let Some(first) = self.files.first() else {
            return Error::option("weights", format!("\"{name}\" was assumed, so it has no values"));
        };
        if self.files.len() > 1 {
            let files: Vec<_> = self.files().skip(1).map(|path| path.display().to_string()).collect();
            problem += &format!("; also looked in {}", files.join(", "));
        }
        Error::weights(&first.path, name, problem)
    }

    /// Whether every tensor that a layer asks for is taken to be there.
    pub(super) fn is_assumed(&self) -> bool {
        self.assumed
    }
}

fn add(path: &Path, files: &mut Vec<MappedFile>, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let map = map_file(path)?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|error| explain(path, &map, &error))?;
    let data = LENGTH_BYTES + header;
    for (name, info) in metadata.tensors() {
        let stored = match info.dtype {
            Dtype::F16 => Stored::F16,
            Dtype::BF16 => Stored::BF16,
            Dtype::F32 => Stored::F32,
            Dtype::I64 | Dtype::I32 => Stored::Integer,
            other => {
                let problem = format!("is stored as {other:?}; supported are F16, BF16 and F32");
                return Err(Error::weights(path, &name, problem));
            }
        };
        if let Some(first) = entries.get(&name) {
            let problem = format!("is also in {}", files[first.file].path.display());
            return Err(Error::weights(path, &name, problem));
        }
        let entry = Entry {
            name: name.clone(),
            file: files.len(),
            start: data + info.data_offsets.0,
            end: data + info.data_offsets.1,
            stored,
            shape: info.shape.clone(),
        };
        entries.insert(name, entry);
    }
    files.push(MappedFile { path: path.to_owned(), map });
    Ok(())
}

fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|source| Error::io(path, "open", source))?;
    let metadata = file.metadata().map_err(|source| Error::io(path, "look at", source))?;
    if metadata.is_dir() {
        return Err(Error::weights_file(path, "is a directory, expected a safetensors file"));
    }
    if metadata.len() == 0 {
        return Err(Error::weights_file(path, "is empty, expected a safetensors file"));
    }
    // SAFETY: The map is private and read-only. Should another process shorten the file meanwhile, the system
    // ends this process; no value is trusted before it has been checked.
    #[expect(unsafe_code, reason = "weights are mapped, because reading gigabytes whole would double them")]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|source| Error::io(path, "map", source))
}

/// Says what is wrong with a file that the safetensors crate refused, naming the tensor where there is one.
fn explain(path: &Path, bytes: &[u8], error: &SafeTensorError) -> Error {
    if bytes.starts_with(b"version https://git-lfs") {
        return Error::weights_file(path, "is a Git LFS pointer instead of the weights: run `git lfs pull`");
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

/// The name most like `wanted`, if one is like it.
fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a String> + Clone) -> Option<&'a str> {
    let longer = |name: &&String| {
        name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.'))
            || wanted.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
    };
    if let Some(name) = names.clone().find(longer) {
        return Some(name);
    }
    let (distance, name) = names.map(|name| (edits(wanted, name), name)).min()?;
    (distance * 4 <= wanted.len()).then_some(name)
}

/// Single-character changes between two names (Levenshtein distance).
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, character) in left.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn edits_count_single_characters() {
        assert_eq!(edits("weight", "weight"), 0, "equal names differ");
        assert_eq!(edits("weight", "weights"), 1, "one insertion");
        assert_eq!(edits("conv1", "conv2"), 1, "one replacement");
        assert_eq!(edits("", "abc"), 3, "all inserted");
    }

    #[test]
    fn a_name_under_a_prefix_is_the_nearest() {
        let names = ["conv_im.weight".to_owned(), "model.diffusion_model.conv_in.weight".to_owned()];
        assert_eq!(
            nearest("conv_in.weight", names.iter()),
            Some("model.diffusion_model.conv_in.weight"),
            "the prefix was not seen"
        );
    }

    #[test]
    fn unlike_names_are_not_near() {
        let names = ["abc".to_owned()];
        assert_eq!(nearest("down_blocks.0.weight", names.iter()), None, "everything is near");
    }
}
