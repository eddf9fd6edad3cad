//! Shape, element type and place of a tensor: a proxy, with no device behind it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// How one value is stored on the device; arithmetic is `f32` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 32-bit unsigned integer: token ids, step indices, packed pixels.
    U32,
    /// 8-bit signed integer, to be multiplied by the 32-bit scale of its column: matrices of weights only.
    ///
    /// A tensor `[K, N]` is N scales (f32), and behind them its values, four in 32 bits, the last filled up with zeros.
    Int8,
}

impl ElementType {
    /// Bytes of one value.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::U32 => 4,
            Self::F16 => 2,
            Self::Int8 => 1,
        }
    }

    /// Bytes of a tensor of this shape: its values, and the scales of its columns where there are any.
    #[must_use]
    pub fn bytes_of(self, shape: &Shape) -> u64 {
        let values = shape.count() as u64 * self.bytes();
        match self {
            Self::F32 | Self::F16 | Self::U32 => values,
            Self::Int8 => Self::F32.bytes() * shape.channels() as u64 + values,
        }
    }

    /// The distance from 1 to the next larger value.
    #[must_use]
    pub const fn epsilon(self) -> f64 {
        match self {
            Self::F32 => f32::EPSILON as f64,
            Self::F16 => 0.000_976_562_5,
            Self::U32 | Self::Int8 => 0.0,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::U32 => "u32",
            Self::Int8 => "int8",
        })
    }
}

/// Extents of a tensor, slowest first. Images are `[N, H, W, C]`, tokens `[N, T, C]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Box<[usize]>);

impl Shape {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.iter().product()
    }

    /// The extents.
    #[must_use]
    pub fn extents(&self) -> &[usize] {
        &self.0
    }

    /// The fastest extent: the channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Everything but the channels: how many rows of channels there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.0.split_last().map_or(1, |(_, rows)| rows.iter().product())
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    fn from(extents: [usize; R]) -> Self {
        Self(extents.into())
    }
}

impl From<&[usize]> for Shape {
    fn from(extents: &[usize]) -> Self {
        Self(extents.into())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Memory that outlives a recording: a weight, the latents, a kept feature.
///
/// Only a name and a size; the executor and the reference each hold what is behind it.
#[derive(Clone, Debug)]
pub struct External(Arc<ExternalInfo>);

#[derive(Debug)]
struct ExternalInfo {
    id: u64,
    label: String,
    bytes: u64,
}

impl External {
    /// A new piece of memory of `bytes` bytes, known to the profiler as `label`.
    pub fn new(label: impl Into<String>, bytes: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(ExternalInfo { id, label: label.into(), bytes }))
    }

    /// Unique in this process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Its name for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Its size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }
}

/// Where a tensor's values lie.
#[derive(Clone, Debug)]
pub enum Storage {
    /// In a slot that the memory plan chooses; dies with its last reader.
    Transient {
        /// The recording that it belongs to.
        recording: u64,
        /// Its index there.
        index: usize,
    },
    /// In memory that outlives the recording.
    External(External),
}

/// A shaped view of storage that need not exist yet.
#[derive(Clone, Debug)]
pub struct Tensor {
    shape: Shape,
    element: ElementType,
    storage: Storage,
    /// The byte of the storage that it begins with.
    offset: u64,
}

impl Tensor {
    pub(crate) fn new(shape: Shape, element: ElementType, storage: Storage) -> Self {
        Self { shape, element, storage, offset: 0 }
    }

    /// A tensor in new memory that outlives recordings.
    pub fn external(label: impl Into<String>, shape: impl Into<Shape>, element: ElementType) -> Self {
        let shape = shape.into();
        let bytes = element.bytes_of(&shape);
        Self::new(shape, element, Storage::External(External::new(label, bytes)))
    }

    /// Its extents.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How its values are stored.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// Where its values lie.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The memory behind it, if it outlives the recording.
    #[must_use]
    pub fn as_external(&self) -> Option<&External> {
        match &self.storage {
            Storage::External(external) => Some(external),
            Storage::Transient { .. } => None,
        }
    }

    /// Bytes of all values, and of the scales of its columns where it has any.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.element.bytes_of(&self.shape)
    }

    /// The same values under another shape; costs nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] if the counts differ.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.count() != self.shape.count() {
            return Err(Error::Shape {
                operation: "reshape",
                tensor: "input".to_owned(),
                expected: format!("as many values as {shape}"),
                found: self.shape.to_string(),
            });
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// Some of its rows of channels, `[count, C]`, where they lie; costs nothing.
    ///
    /// Devices bind memory from multiples of 256 bytes on, so the rows before should take as many.
    ///
    /// # Panics
    /// If it has fewer rows, or scales, which belong to all of them.
    #[must_use]
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let channels = self.shape.channels();
        assert!(first + count <= self.shape.rows(), "{} has rows {first} to {}", self.shape, first + count);
        assert!(self.element != ElementType::Int8, "rows of integers lie apart from their scales");
        let offset = self.offset + (first * channels) as u64 * self.element.bytes();
        Self { shape: Shape::from([count, channels]), offset, ..self.clone() }
    }

    /// The byte of its storage that it begins with: 0 but for [`rows`](Self::rows).
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The four extents of an image tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if it has another rank.
    pub fn image_extents(&self, operation: &'static str, tensor: &str) -> Result<[usize; 4]> {
        self.shape.extents().try_into().map_err(|_| self.wrong(operation, tensor, "[N, H, W, C]"))
    }

    /// The three extents of a token tensor.
    ///
    /// # Errors
    /// [`Error::Shape`] if it has another rank.
    pub fn token_extents(&self, operation: &'static str, tensor: &str) -> Result<[usize; 3]> {
        self.shape.extents().try_into().map_err(|_| self.wrong(operation, tensor, "[N, T, C]"))
    }

    /// Checks the shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is another one.
    pub fn expect(&self, operation: &'static str, tensor: &str, extents: &[usize]) -> Result<()> {
        if self.shape.extents() == extents {
            return Ok(());
        }
        Err(self.wrong(operation, tensor, &Shape::from(extents).to_string()))
    }

    /// Checks the element type.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is another one.
    pub fn expect_element(&self, operation: &'static str, tensor: &str, element: ElementType) -> Result<()> {
        if self.element == element {
            return Ok(());
        }
        Err(Error::Shape {
            operation,
            tensor: tensor.to_owned(),
            expected: element.to_string(),
            found: self.element.to_string(),
        })
    }

    /// Checks that it is a matrix that products with values of an element type read: of that type, or of 8 bits.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is of another type.
    pub(crate) fn expect_weight(&self, operation: &'static str, element: ElementType) -> Result<()> {
        match self.element {
            ElementType::Int8 => Ok(()),
            _ => self.expect_element(operation, "weight", element),
        }
    }

    pub(crate) fn wrong(&self, operation: &'static str, tensor: &str, expected: &str) -> Error {
        Error::Shape {
            operation,
            tensor: tensor.to_owned(),
            expected: expected.to_owned(),
            found: self.shape.to_string(),
        }
    }
}
