//! Copies of small models that can be damaged, and what an error must say.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use deepcache::gpu::Gpu;
use deepcache::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// How a file of the model is changed.
pub(crate) enum Change {
    Text(&'static str),
    Bytes(fn(&mut Vec<u8>)),
    /// What is there by what stands in its place.
    Replace(&'static str, &'static str),
    /// One key of a JSON file; the pointer is RFC 6901's.
    Key(&'static str, Value),
    /// One key of the header of a safetensors file.
    Header(&'static str, Value),
    /// One tensor of a safetensors file, stored anew.
    Tensor(&'static str, Dtype, &'static [usize], fn(usize) -> Vec<u8>),
    /// Another file of the model in its place.
    Copy(&'static str),
    Rename(&'static str),
    Remove,
}

/// The variant of an error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Cancelled,
    Config,
    Io,
    Limit,
    Option,
    Weights,
    Other,
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Cancelled { .. } => Kind::Cancelled,
        Error::Config { .. } => Kind::Config,
        Error::Io { .. } => Kind::Io,
        Error::Limit { .. } | Error::OutOfMemory { .. } => Kind::Limit,
        Error::Option { .. } => Kind::Option,
        Error::Weights { .. } => Kind::Weights,
        _ => Kind::Other,
    }
}

/// Checks that something failed with this kind of error, in one line that holds these words.
pub(crate) fn says<T>(name: &str, outcome: Result<T>, expected: Kind, words: &[&str]) {
    if let Some(problem) = mismatch(outcome, expected, words) {
        panic!("{name}: {problem}");
    }
}

/// What is wrong with an outcome that should be this kind of error, in one line that holds these words.
pub(crate) fn mismatch<T>(outcome: Result<T>, expected: Kind, words: &[&str]) -> Option<String> {
    let Err(error) = outcome else { return Some("was accepted".to_owned()) };
    let message = error.to_string();
    if kind(&error) != expected {
        return Some(format!("expected an error of {expected:?}, found: {message}"));
    }
    if let Some(word) = words.iter().find(|word| !message.contains(**word)) {
        return Some(format!("\"{message}\" does not say \"{word}\""));
    }
    let long = message.contains('\n') || message.len() > 1000;
    long.then(|| format!("\"{message}\" is long"))
}

/// The GPU of this test program. A machine without an adapter fails here.
pub(crate) fn gpu() -> Arc<Gpu> {
    Arc::new(Gpu::open(None).unwrap_or_else(|error| panic!("{error}")))
}

/// A copy of a small model.
pub(crate) struct Model {
    original: PathBuf,
    folder: tempfile::TempDir,
}

impl Model {
    /// The small Stable Diffusion model.
    pub(crate) fn new() -> Self {
        Self::of("assets/tiny")
    }

    /// A model's folder in this repository.
    pub(crate) fn of(folder: &str) -> Self {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let copy = tempfile::tempdir().unwrap();
        copy_folder(&original, copy.path());
        Self { original, folder: copy }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Makes a file what it was.
    pub(crate) fn restore(&self, file: &str) {
        fs::copy(self.original.join(file), self.folder.path().join(file)).unwrap();
    }

    pub(crate) fn change(&self, file: &str, change: &Change) {
        let path = self.folder.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        match change {
            Change::Text(text) => bytes = text.as_bytes().to_vec(),
            Change::Bytes(edit) => edit(&mut bytes),
            Change::Replace(what, by) => {
                let text = String::from_utf8(bytes).unwrap();
                assert!(text.contains(what), "{file} has no {what:?}");
                bytes = text.replacen(what, by, 1).into_bytes();
            }
            Change::Key(pointer, value) => {
                let mut entries: Value = serde_json::from_slice(&bytes).unwrap();
                put(&mut entries, pointer, value);
                bytes = entries.to_string().into_bytes();
            }
            Change::Header(pointer, value) => edit_header(&mut bytes, |header| put(header, pointer, value)),
            Change::Rename(name) => edit_header(&mut bytes, |header| {
                let entry = header.as_object_mut().unwrap().remove(*name).unwrap();
                header[format!("{name}s")] = entry;
            }),
            Change::Tensor(name, dtype, shape, value) => {
                bytes = replaced(&bytes, name, *dtype, shape, *value);
            }
            Change::Copy(other) => bytes = fs::read(self.original.join(other)).unwrap(),
            Change::Remove => return fs::remove_file(&path).unwrap(),
        }
        fs::write(&path, bytes).unwrap();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        if path.is_dir() {
            fs::create_dir(&copy).unwrap();
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, copy).unwrap();
        }
    }
}

/// Puts a value at a JSON pointer (RFC 6901) whose parent is there.
fn put(entries: &mut Value, pointer: &str, value: &Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match entries.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value.clone(),
        parent => parent[key] = value.clone(),
    }
}

fn edit_header(bytes: &mut Vec<u8>, edit: impl FnOnce(&mut Value)) {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk().unwrap())).unwrap();
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    edit(&mut header);
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let values = bytes.split_off(8 + length);
    *bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes.extend(values);
}

/// A safetensors file in which one tensor is another.
fn replaced(bytes: &[u8], name: &str, dtype: Dtype, shape: &[usize], value: fn(usize) -> Vec<u8>) -> Vec<u8> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    assert!(file.tensor(name).is_ok(), "there is no {name}");
    let data: Vec<u8> = (0..shape.iter().product()).flat_map(value).collect();
    let mut tensors = file.tensors();
    for (other, view) in &mut tensors {
        if other == name {
            *view = TensorView::new(dtype, shape.to_vec(), &data).unwrap();
        }
    }
    safetensors::serialize(tensors, None).unwrap()
}

/// A value as safetensors stores it.
pub(crate) fn f16(value: f32) -> Vec<u8> {
    half::f16::from_f32(value).to_le_bytes().to_vec()
}

/// Runs what should fail, and measures that it fails soon.
pub(crate) fn soon<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let outcome = work();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{name}: took {took:?}");
    outcome
}

/// A safetensors file with one tensor, all of whose values are the same.
pub(crate) fn one_tensor(name: &str, dtype: Dtype, shape: &[usize], value: &[u8]) -> Vec<u8> {
    let data = value.repeat(shape.iter().product());
    safetensors::serialize([(name, TensorView::new(dtype, shape.to_vec(), &data).unwrap())], None).unwrap()
}
