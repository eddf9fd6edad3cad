//! Shared by the tests: reading golden tensors and measuring how far a result is from them.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail, and tell how near they came")]

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// A path inside the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A golden tensor: its shape and its values in row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Golden {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

/// The tensors of one golden file, by name.
#[derive(Debug)]
pub(crate) struct Goldens {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Goldens {
    /// Opens a safetensors file below `tests/goldens`.
    pub(crate) fn open(path: &str) -> Self {
        let path = repository("tests/goldens").join(path);
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, bytes }
    }

    /// The names of all tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.file().names().into_iter().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// One tensor; panics where it is missing.
    pub(crate) fn tensor(&self, name: &str) -> Golden {
        let file = self.file();
        let view = file.tensor(name).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F32 => numbers(bytes, |bytes| f64::from(f32::from_le_bytes(bytes))),
            Dtype::F64 => numbers(bytes, f64::from_le_bytes),
            Dtype::I32 => numbers(bytes, |bytes| f64::from(i32::from_le_bytes(bytes))),
            Dtype::I64 => numbers(bytes, |bytes| i64::from_le_bytes(bytes) as f64),
            other => panic!("{}: \"{name}\" is {other:?}, which no golden has", self.path.display()),
        };
        Golden { shape: view.shape().to_vec(), values }
    }

    /// The values of one tensor.
    /// The bytes of a tensor as they lie in the file.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.file()
            .tensor(name)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
            .data()
            .to_vec()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).values
    }

    fn file(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }
}

fn numbers<const SIZE: usize>(bytes: &[u8], convert: impl Fn([u8; SIZE]) -> f64) -> Vec<f64> {
    bytes.chunks_exact(SIZE).map(|chunk| convert(chunk.try_into().unwrap())).collect()
}

/// Reads a JSON file below `tests/goldens`.
pub(crate) fn json(path: &str) -> serde_json::Value {
    let path = repository("tests/goldens").join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `|got - expected| / |expected|` in the Euclidean norm; 0 for two zero vectors.
pub(crate) fn relative_l2(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "tensors of different sizes");
    let difference: f64 = got.iter().zip(expected).map(|(got, expected)| (got - expected).powi(2)).sum();
    let size: f64 = expected.iter().map(|expected| expected.powi(2)).sum();
    if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
}

/// The largest `|got - expected|`, divided by `max(1, largest |expected|)`.
/// Infinite where a value is not a number.
pub(crate) fn max_abs(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "tensors of different sizes");
    let largest = expected.iter().fold(1.0, |largest: f64, expected| largest.max(expected.abs()));
    let apart = |(got, expected): (&f64, &f64)| {
        let apart = (got - expected).abs();
        if apart.is_nan() { f64::INFINITY } else { apart }
    };
    got.iter().zip(expected).map(apart).fold(0.0, f64::max) / largest
}

/// Fails where `got` is further from `expected` than a pair of tolerances; prints the two distances.
pub(crate) fn assert_close(
    what: &str,
    got: &[f64],
    expected: &[f64],
    relative_limit: f64,
    absolute_limit: f64,
) {
    let (relative, absolute) = (relative_l2(got, expected), max_abs(got, expected));
    println!("{what}: relative l2 {relative:.2e}, max abs {absolute:.2e}");
    assert!(relative <= relative_limit, "{what}: relative l2 {relative:.3e} is above {relative_limit:.1e}");
    assert!(absolute <= absolute_limit, "{what}: max abs {absolute:.3e} is above {absolute_limit:.1e}");
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
