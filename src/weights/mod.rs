//! Checkpoints, and how layers ask them for packed weights.
//!
//! Building a model only checks names and shapes: a layer gets its [`Tensor`] at once, and the [`Loader`] keeps
//! a list of [`Pending`] tensors whose values are converted and uploaded afterwards, chunk by chunk.

mod checkpoint;
mod damage;
mod directory;
mod embedding;
mod int8;
mod lora;
mod model_files;
mod names_diffusers;
pub mod names_latent_diffusion;
pub mod names_open_clip;
pub mod names_original_ddpm;
mod nearest;
mod networks;
pub mod originals_latent_diffusion;
mod packing;
mod pickles;
mod recognition;
mod replacements;
mod single_file;
mod source;
mod stable_diffusion;
mod stored;
mod tiny_autoencoder;
mod upload;

use std::collections::BTreeSet;
use std::fmt::Display;

pub use checkpoint::Checkpoint;
pub use directory::{Component, NetworkFiles};
pub use embedding::Embedding;
pub(crate) use embedding::Word;
pub use int8::WeightStorage;
pub use lora::Lora;
pub(crate) use lora::{Changes, LoraFiles, Network};
pub use model_files::{ModelFiles, ModelKind, Original};
pub use packing::Pending;
pub use recognition::CheckpointKind;
pub use replacements::Replacements;
pub(crate) use replacements::vae_files;
pub use stable_diffusion::{RefinerFiles, SchedulerSource, StableDiffusionFiles, StableDiffusionXlFiles};
pub(crate) use upload::write_all;

use crate::error::{Error, Result};
use crate::tensor::{ElementType, Shape, Tensor};
use packing::{Layout, Part};

/// The size of a binding that every adapter allows.
const BINDING: u64 = 128 << 20;

/// What the layers of one model asked for.
#[derive(Debug)]
pub struct Loader {
    model: String,
    element: ElementType,
    storage: WeightStorage,
    binding: u64,
    pending: Vec<Pending>,
    used: BTreeSet<String>,
}

impl Loader {
    /// For the model known to the profiler as `model`, with matrices stored as `element` (F16 or F32).
    ///
    /// # Panics
    /// If `element` is U32 or Int8.
    pub fn new(model: impl Into<String>, element: ElementType) -> Self {
        assert!(
            matches!(element, ElementType::F16 | ElementType::F32),
            "activations are floating-point values"
        );
        let storage = WeightStorage::AsActivations;
        Self {
            model: model.into(),
            element,
            storage,
            binding: BINDING,
            pending: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    /// The same, with matrices stored another way than activations.
    #[must_use]
    pub fn with_weight_storage(self, storage: WeightStorage) -> Self {
        Self { storage, ..self }
    }

    /// Builds something whose matrices are stored as activations are, whatever the others are.
    ///
    /// # Errors
    /// What `build` returns.
    pub(crate) fn as_activations<T>(&mut self, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let storage = std::mem::take(&mut self.storage);
        let built = build(self);
        self.storage = storage;
        built
    }

    /// The same, with tables cut into ranges of up to `limit` bytes where that is less than the 128 MiB that every
    /// adapter binds.
    #[must_use]
    pub fn with_binding_limit(mut self, limit: u64) -> Self {
        self.binding = BINDING.min(limit);
        self
    }

    /// How activations are stored, and matrices if nothing else is said of them.
    #[must_use]
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The tensors asked for so far, in that order.
    #[must_use]
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Bytes of all tensors asked for so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pending.iter().map(|pending| pending.tensor.bytes()).sum()
    }

    /// The tensors asked for, to be uploaded.
    #[must_use]
    pub fn into_pending(self) -> Vec<Pending> {
        self.pending
    }

    /// Tensors of the checkpoint that no layer asked for, sorted.
    /// Integer tensors and `position_ids` are left out: no model reads them.
    #[must_use]
    pub fn unused(&self, checkpoint: &Checkpoint) -> Vec<String> {
        checkpoint.readable().filter(|name| !self.used.contains(*name)).map(str::to_owned).collect()
    }

    fn push(
        &mut self,
        label: &str,
        shape: Shape,
        element: ElementType,
        source: (Vec<Part>, Layout),
    ) -> Tensor {
        let label = format!("{}/{label}", self.model);
        let tensor = Tensor::external(label, shape, element);
        let (parts, layout) = source;
        self.used.extend(parts.iter().filter_map(|part| part.name.clone()));
        self.pending.push(Pending { tensor: tensor.clone(), parts, layout });
        tensor
    }
}

/// A place in the tree of a checkpoint's names.
///
/// Names are those of today's diffusers and transformers; older spellings in the file are found by themselves.
#[derive(Clone, Debug)]
pub struct Weights<'a> {
    checkpoint: &'a Checkpoint,
    prefix: String,
}

impl<'a> Weights<'a> {
    fn new(checkpoint: &'a Checkpoint) -> Self {
        Self { checkpoint, prefix: String::new() }
    }

    /// The place called `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl Display) -> Self {
        Self { checkpoint: self.checkpoint, prefix: self.path(name) }
    }

    /// The whole name of the tensor called `name` here.
    #[must_use]
    pub fn path(&self, name: impl Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Whether there is a tensor called `name` here.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.is_assumed() || self.checkpoint.find(&self.path(name)).is_some()
    }

    /// Biases, scales of norms.
    ///
    /// # Shapes
    /// - in the file: `[length]`
    /// - returns `[length]`, f32
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing, has another shape, or holds no floats.
    pub fn vector(&self, loader: &mut Loader, name: &str, length: usize) -> Result<Tensor> {
        self.vectors(loader, &[name], &[length])
    }

    /// Vectors one after the other: the biases of [`matrix`](Self::matrix).
    ///
    /// # Shapes
    /// - in the file: `[lengths[i]]` each
    /// - returns `[sum of lengths]`, f32
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing, has another shape, or holds no floats.
    ///
    /// # Panics
    /// If there are not as many lengths as names.
    pub fn vectors(&self, loader: &mut Loader, names: &[&str], lengths: &[usize]) -> Result<Tensor> {
        assert_eq!(names.len(), lengths.len(), "every vector has its length");
        let mut parts = Vec::with_capacity(names.len());
        for (name, length) in names.iter().zip(lengths) {
            parts.push(Part { name: Some(self.find(name, &[*length])?), first: 0, count: *length });
        }
        Ok(self.push_vectors(loader, names, parts))
    }

    /// As [`vectors`](Self::vectors), but vectors that are missing are zero; none if all are missing.
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor that is there has another shape, or holds no floats.
    ///
    /// # Panics
    /// If there are not as many lengths as names.
    pub fn optional_vectors(
        &self,
        loader: &mut Loader,
        names: &[&str],
        lengths: &[usize],
    ) -> Result<Option<Tensor>> {
        assert_eq!(names.len(), lengths.len(), "every vector has its length");
        let mut parts = Vec::with_capacity(names.len());
        for (name, length) in names.iter().zip(lengths) {
            let found = if self.has(name) { Some(self.find(name, &[*length])?) } else { None };
            parts.push(Part { name: found, first: 0, count: *length });
        }
        if parts.iter().all(|part| part.name.is_none()) {
            return Ok(None);
        }
        Ok(Some(self.push_vectors(loader, names, parts)))
    }

    /// Weights of linear layers with the same input, side by side.
    ///
    /// # Shapes
    /// - in the file: `[outputs[i], inputs]` each, or `[outputs[i], inputs, 1, 1]`
    /// - returns `[inputs, sum of outputs]`, in the loader's element type, or [`Int8`](ElementType::Int8) where the
    ///   loader's [`WeightStorage`] says so
    ///
    /// # Errors
    /// [`Error::Weights`] if a tensor is missing, has another shape, or holds no floats.
    ///
    /// # Panics
    /// If there are not as many outputs as names.
    pub fn matrix(
        &self,
        loader: &mut Loader,
        names: &[&str],
        inputs: usize,
        outputs: &[usize],
    ) -> Result<Tensor> {
        assert_eq!(names.len(), outputs.len(), "every matrix has its outputs");
        let mut parts = Vec::with_capacity(names.len());
        for (name, count) in names.iter().zip(outputs) {
            parts.push(Part { name: Some(self.find(name, &[*count, inputs])?), first: 0, count: *count });
        }
        let columns = outputs.iter().sum();
        let element = loader.storage.element(inputs, columns, loader.element);
        let layout = Layout::Transposed { inputs, taps: 1 };
        Ok(loader.push(&self.label(names), Shape::from([inputs, columns]), element, (parts, layout)))
    }

    /// The weight of a convolution with a kernel of `[height, width]`.
    ///
    /// # Shapes
    /// - in the file: `[outputs, inputs, height, width]`; `[outputs, inputs]` where the kernel is one pixel
    /// - returns `[height * width * inputs, outputs]`, stored as [`matrix`](Self::matrix) says,
    ///   row `(y * width + x) * inputs + input`
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing, has another shape, or holds no floats.
    pub fn convolution(
        &self,
        loader: &mut Loader,
        name: &str,
        outputs: usize,
        inputs: usize,
        kernel: [usize; 2],
    ) -> Result<Tensor> {
        let [height, width] = kernel;
        let found = self.find(name, &[outputs, inputs, height, width])?;
        let taps = height * width;
        let parts = vec![Part { name: Some(found), first: 0, count: outputs }];
        let shape = Shape::from([taps * inputs, outputs]);
        let element = loader.storage.element(inputs, outputs, loader.element);
        Ok(loader.push(&self.path(name), shape, element, (parts, Layout::Transposed { inputs, taps })))
    }

    /// An embedding table, as it is.
    ///
    /// # Shapes
    /// - in the file: `[rows, columns]`
    /// - returns `[rows, columns]`, in the loader's element type
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing, has another shape, or holds no floats.
    pub fn table(&self, loader: &mut Loader, name: &str, rows: usize, columns: usize) -> Result<Tensor> {
        let element = loader.element;
        self.table_of(loader, name, [rows, columns], element)
    }

    /// As [`table`](Self::table), stored as `element`.
    ///
    /// # Errors
    /// As [`table`](Self::table).
    pub fn table_of(
        &self,
        loader: &mut Loader,
        name: &str,
        [rows, columns]: [usize; 2],
        element: ElementType,
    ) -> Result<Tensor> {
        let found = self.find(name, &[rows, columns])?;
        let parts = vec![Part { name: Some(found), first: 0, count: rows * columns }];
        let shape = Shape::from([rows, columns]);
        Ok(loader.push(&self.path(name), shape, element, (parts, Layout::Sequence)))
    }

    /// An embedding table in ranges of rows, each small enough to be bound anywhere.
    ///
    /// # Shapes
    /// - in the file: `[rows, columns]`
    /// - returns `[rows of the range, columns]` each, in the loader's element type
    ///
    /// # Errors
    /// As [`table`](Self::table).
    pub fn tables(
        &self,
        loader: &mut Loader,
        name: &str,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<Tensor>> {
        let found = self.find(name, &[rows, columns])?;
        let row_bytes = columns as u64 * loader.element.bytes();
        let most = usize::try_from((loader.binding / row_bytes.max(1)).max(1)).unwrap_or(usize::MAX);
        let mut tables = Vec::new();
        let mut first = 0;
        while first < rows {
            let count = most.min(rows - first);
            let part = Part { name: Some(found.clone()), first: first * columns, count: count * columns };
            let shape = Shape::from([count, columns]);
            let label = format!("{}/{first}", self.path(name));
            tables.push(loader.push(&label, shape, loader.element, (vec![part], Layout::Sequence)));
            first += count;
        }
        Ok(tables)
    }

    fn push_vectors(&self, loader: &mut Loader, names: &[&str], parts: Vec<Part>) -> Tensor {
        let shape = Shape::from([parts.iter().map(|part| part.count).sum::<usize>()]);
        loader.push(&self.label(names), shape, ElementType::F32, (parts, Layout::Sequence))
    }

    fn label(&self, names: &[&str]) -> String {
        self.path(names.join("+"))
    }

    /// Checks that a tensor is there and has the shape; the name that it was found by.
    fn find(&self, name: &str, expected: &[usize]) -> Result<String> {
        let path = self.path(name);
        if self.checkpoint.is_assumed() {
            return Ok(path);
        }
        let (found, entry) = self.checkpoint.find(&path).ok_or_else(|| self.checkpoint.missing(&path))?;
        let refuse = |problem| Err(Error::weights(self.checkpoint.file_of(entry), &entry.name, problem));
        if let Some(problem) = entry.stored.problem() {
            return refuse(problem);
        }
        if matrix_extents(&entry.shape) != matrix_extents(expected) {
            return refuse(format!("has shape {:?}, expected {expected:?}", entry.shape));
        }
        Ok(found.to_owned())
    }
}

/// A convolution of one pixel is a linear layer, and old files store some linear layers so.
fn matrix_extents(shape: &[usize]) -> &[usize] {
    match shape {
        [_, _, 1, 1] => &shape[..2],
        _ => shape,
    }
}
