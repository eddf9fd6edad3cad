//! Weights from their files onto the device.

use crate::error::Result;
use crate::gpu::{Memory, Purpose};
use crate::tensor::ElementType;
use crate::weights::{Checkpoint, Component, Loader};

/// Builds one model of a directory and uploads its weights, chunk by chunk.
///
/// `name` is the first part of its weights' labels; matrices are stored as `element`.
///
/// # Errors
/// [`Error::Weights`](crate::Error::Weights) and [`Error::Io`](crate::Error::Io) from the files,
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory) and other faults of the device.
pub fn load_model<M>(
    component: &Component,
    memory: &mut Memory,
    name: &str,
    element: ElementType,
    build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<M>,
) -> Result<M> {
    let checkpoint = Checkpoint::open(&component.weights)?;
    let mut loader = Loader::new(name, element);
    let model = build(&checkpoint, &mut loader)?;
    let pending = loader.into_pending();
    memory.allocate_packed(pending.iter().map(|pending| &pending.tensor), Purpose::Weights)?;
    for pending in &pending {
        pending.write(&checkpoint, &mut |offset, bytes| memory.write(&pending.tensor, offset, bytes))?;
    }
    Ok(model)
}
