//! Several runs as one: how far they are, and whether to go on.

use std::cell::Cell;
use std::ops::ControlFlow;

use deepcache::pipelines::Progress;
use deepcache::{Error, Result};

use crate::command::{Bar, progress_bar};

/// One part of the work, of one or several runs.
pub(crate) struct Watch<'a> {
    bar: Bar,
    what: &'static str,
    stopped: &'a dyn Fn() -> bool,
    /// Calls that are done, and all of them.
    calls: Cell<(usize, usize)>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(what: &'static str, quiet: bool, stopped: &'a dyn Fn() -> bool) -> Self {
        Self { bar: progress_bar(quiet), what, stopped, calls: Cell::new((0, 0)) }
    }

    /// Shows what run `run` of `runs` equally long ones is doing; the answer is for it.
    pub(crate) fn show(&self, progress: Progress<'_>, run: usize, runs: usize) -> ControlFlow<()> {
        match progress {
            Progress::Denoising { completed, of, .. } => {
                self.calls.set((run * of + completed, runs * of));
                self.bar.count(self.what, run * of + completed, runs * of);
            }
            Progress::Encoding if run > 0 => {}
            other => self.bar.show(other),
        }
        if (self.stopped)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Removes the line. Where the work was stopped, says at which call of all.
    pub(crate) fn finish<T>(&self, outcome: Result<T>) -> Result<T> {
        self.bar.finish();
        outcome.map_err(|error| match (error, self.calls.get()) {
            (Error::Cancelled { .. }, (completed, steps)) if steps > 0 => {
                Error::Cancelled { completed, steps }
            }
            (error, _) => error,
        })
    }
}
