//! Many tensors at once: packed on several cores, each handed on as soon as it is ready.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{Checkpoint, Pending};
use crate::error::Result;
use crate::tensor::Tensor;

/// More threads than this read no faster, and each holds a chunk of 16 MiB.
const MOST_THREADS: usize = 6;

/// What takes the bytes of a tensor, from an offset on.
pub(crate) type Sink<'a> = dyn FnMut(&Tensor, u64, &[u8]) -> Result<()> + Send + 'a;

/// Packs tensors and hands their bytes to `sink` with the tensor and an offset, as [`Pending::write`]. Of what is read
/// from the files nothing stays in memory.
///
/// # Errors
/// Those of [`Pending::write`], of the first tensor that has one.
pub(crate) fn write_all(pending: &[&Pending], checkpoint: &Checkpoint, sink: &mut Sink<'_>) -> Result<()> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let sink = Mutex::new(sink);
    // Tensors are taken in order, so that those in front of one that fails have been taken, and are finished.
    let work = || {
        let mut first = None;
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(pending) = pending.get(number) else { break };
            let outcome = pending.write(checkpoint, &mut |offset, bytes| {
                let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
                sink(&pending.tensor, offset, bytes)
            });
            pending.names().for_each(|name| checkpoint.forget(name));
            if let Err(error) = outcome {
                failed.store(true, Ordering::Relaxed);
                first = Some((number, error));
            }
        }
        first
    };
    let mut errors: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(pending.len())).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        others.chain([own]).flatten().collect()
    });
    errors.sort_by_key(|(number, _)| *number);
    errors.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
}
