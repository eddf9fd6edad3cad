//! Safetensors files, mapped and checked: what is in them, and where.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use safetensors::SafeTensors;

use super::Weights;
use super::damage::{LENGTH_BYTES, explain};
use super::lora::{Change, Changes};
use super::names_diffusers::alternatives;
use super::nearest::nearest;
use super::stored::Stored;
use crate::error::{Error, Result};

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
    /// Values behind those of the file.
    pub(super) appended: Arc<[f32]>,
}

#[derive(Debug)]
struct MappedFile {
    path: PathBuf,
    map: Mmap,
    /// What the header says besides.
    notes: HashMap<String, String>,
}

/// The tensors of one or more safetensors files, mapped into memory and not yet read.
#[derive(Debug)]
pub struct Checkpoint {
    files: Arc<Vec<MappedFile>>,
    /// By the name that layers ask for.
    entries: BTreeMap<String, Entry>,
    /// Whether every tensor that a layer asks for is taken to be there.
    assumed: bool,
    /// What the file would call a tensor that is not there.
    original: Option<OriginalName>,
    /// What is added to the values of tensors when they are read.
    changes: Changes,
}

/// The name that a file's layout has for a tensor of today's name.
#[derive(Clone)]
struct OriginalName(Arc<Rename>);

/// Another name for a name.
type Rename = dyn Fn(&str) -> Option<String> + Send + Sync;

impl fmt::Debug for OriginalName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OriginalName")
    }
}

impl Checkpoint {
    /// Maps the files and checks their headers; the values stay on disk until they are packed.
    ///
    /// Layers read F32, F16, BF16 and the 8-bit `F8_E4M3` and `F8_E5M2`; tensors of other types may lie in the
    /// file as long as no layer asks for them.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be opened, [`Error::Weights`] if one is not a whole safetensors file, is a
    /// pickle, or repeats a tensor of another file; [`Error::Option`] if `paths` is empty.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::option("weights", "no file was given"));
        }
        let (mut files, mut entries) = (Vec::new(), BTreeMap::new());
        for path in paths {
            add(path, &mut files, &mut entries)?;
        }
        Ok(Self { files: Arc::new(files), entries, assumed: false, original: None, changes: Changes::new() })
    }

    /// A checkpoint without files in which every tensor is taken to be there, with the shape that is asked for.
    ///
    /// Models built from it can be recorded and their cost counted, but they have no values to upload.
    #[must_use]
    pub fn assumed() -> Self {
        Self {
            files: Arc::default(),
            entries: BTreeMap::new(),
            assumed: true,
            original: None,
            changes: Changes::new(),
        }
    }

    /// The same tensors under the same names once more, without changes.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            files: Arc::clone(&self.files),
            entries: self.entries.clone(),
            assumed: self.assumed,
            original: self.original.clone(),
            changes: Changes::new(),
        }
    }

    /// The same tensors under other names: those for which `rename` has one. Errors go on using the names in the
    /// file.
    #[must_use]
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let renamed = self.entries.iter().filter_map(|(name, entry)| Some((rename(name)?, entry.clone())));
        Self {
            files: Arc::clone(&self.files),
            entries: renamed.collect(),
            assumed: self.assumed,
            original: None,
            changes: Changes::new(),
        }
    }

    /// The same tensors, with those cut along their first extent into as many of equal size as `names` gives.
    #[must_use]
    pub(super) fn cut_apart<const PARTS: usize>(
        self,
        names: impl Fn(&str) -> Option<[String; PARTS]>,
    ) -> Self {
        let mut entries = BTreeMap::new();
        for (name, entry) in self.entries {
            let rows = entry.shape.first().copied().unwrap_or(0);
            match names(&name).filter(|_| rows.is_multiple_of(PARTS)) {
                None => {
                    entries.insert(name, entry);
                }
                Some(names) => {
                    let bytes = (entry.end - entry.start) / PARTS;
                    for (number, name) in names.into_iter().enumerate() {
                        let start = entry.start + number * bytes;
                        let mut shape = entry.shape.clone();
                        shape[0] = rows / PARTS;
                        entries.insert(name, Entry { start, end: start + bytes, shape, ..entry.clone() });
                    }
                }
            }
        }
        Self { entries, ..self }
    }

    /// The name in the file of a tensor, by the name that layers ask for.
    #[must_use]
    pub fn name_in_file(&self, name: &str) -> Option<&str> {
        self.find(name).map(|(_, entry)| entry.name.as_str())
    }

    /// The same tensors; errors about one that is missing call it what `original` calls it, which is what
    /// [`renamed`](Self::renamed) was given, backwards.
    #[must_use]
    pub fn with_original_names(
        self,
        original: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { original: Some(OriginalName(Arc::new(original))), ..self }
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

    pub(super) fn entry_mut(&mut self, found: &str) -> Option<&mut Entry> {
        self.entries.get_mut(found)
    }

    /// The file that holds a tensor.
    pub(super) fn file_of(&self, entry: &Entry) -> &Path {
        &self.files[entry.file].path
    }

    /// The values of a tensor as they lie in the file.
    pub(super) fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.files[entry.file].map[entry.start..entry.end]
    }

    /// Tells the system that a tensor's values are not needed soon: what was read of them need not stay in memory.
    pub(super) fn forget(&self, name: &str) {
        #[cfg(unix)]
        if let Some((_, entry)) = self.find(name) {
            let map = &self.files[entry.file].map;
            let (advice, length) = (memmap2::UncheckedAdvice::DontNeed, entry.end - entry.start);
            // SAFETY: The map is read-only and of a file, so that its pages are read again when they are asked for.
            #[expect(unsafe_code, reason = "pages would count as the process's memory until all is loaded")]
            let advised = unsafe { map.unchecked_advise_range(advice, entry.start, length) };
            // It is advice: without it all works as well.
            let _ = advised;
        }
        #[cfg(not(unix))]
        let _ = name;
    }

    /// What the header of a file says under a key.
    pub(super) fn note(&self, key: &str) -> Option<&str> {
        self.files.iter().find_map(|file| file.notes.get(key)).map(String::as_str)
    }

    /// What is added to the values of a tensor, by the name that it is found by.
    pub(super) fn changes_of(&self, found: &str) -> &[Change] {
        self.changes.get(found).map_or(&[], Vec::as_slice)
    }

    /// What is added to the values of tensors.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// From now on these changes are added to the values when they are read, in the place of those before, which come
    /// back.
    pub(crate) fn change(&mut self, changes: Changes) -> Changes {
        std::mem::replace(&mut self.changes, changes)
    }

    /// Tensors that a layer could read: floating point, and not the position ids that some files store so.
    pub(super) fn readable(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|(name, entry)| entry.stored.is_readable() && !name.ends_with("position_ids"))
            .map(|(name, _)| name.as_str())
    }

    /// The extents of a tensor that must have `RANK` of them, 1 to 65536 each.
    ///
    /// # Errors
    /// [`Error::Weights`] if there is no such tensor, or it has another shape.
    pub fn extents<const RANK: usize>(&self, name: &str) -> Result<[usize; RANK]> {
        let (_, entry) = self.find(name).ok_or_else(|| self.missing(name))?;
        let extents = <[usize; RANK]>::try_from(&entry.shape[..]).ok();
        extents.filter(|extents| extents.iter().all(|extent| (1..=1 << 16).contains(extent))).ok_or_else(
            || {
                self.problem(
                    name,
                    format!("has shape {:?}, expected {RANK} extents from 1 to 65536", entry.shape),
                )
            },
        )
    }

    /// An [`Error::Weights`] about a tensor, by the file's own name for it.
    #[must_use]
    pub fn problem(&self, name: &str, problem: impl Into<String>) -> Error {
        match self.find(name) {
            Some((_, entry)) => Error::weights(self.file_of(entry), &entry.name, problem),
            None => Error::weights(self.files().next().unwrap_or(Path::new("")), name, problem),
        }
    }

    /// An [`Error::Weights`] about the whole.
    #[must_use]
    pub fn refuse(&self, problem: impl Into<String>) -> Error {
        Error::weights_file(self.files().next().unwrap_or(Path::new("")), problem)
    }

    /// What to say about a tensor that is not there.
    pub(super) fn missing(&self, name: &str) -> Error {
        let mut problem = "is missing".to_owned();
        let original = self.original.as_ref().and_then(|OriginalName(original)| original(name));
        if original.is_none() && self.entries.iter().any(|(name, entry)| entry.name != *name) {
            problem += " under the name that the file's layout has for it";
        }
        let others = if original.is_some() { Vec::new() } else { alternatives(name) };
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
        Error::weights(&first.path, original.as_deref().unwrap_or(name), problem)
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
        let stored = Stored::of(info.dtype);
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
            appended: Arc::default(),
        };
        entries.insert(name, entry);
    }
    let notes = metadata.metadata().clone().unwrap_or_default();
    files.push(MappedFile { path: path.to_owned(), map, notes });
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
