//! Progress on the terminal.

use deepcache::pipelines::Progress;
use indicatif::{ProgressBar, ProgressStyle};

/// A line that says what is going on.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

/// A bar on standard error; nothing where `quiet`.
pub(crate) fn progress_bar(quiet: bool) -> Bar {
    Bar(if quiet { ProgressBar::hidden() } else { ProgressBar::new(0).with_style(waiting()) })
}

impl Bar {
    /// What a run is doing.
    pub(crate) fn show(&self, progress: Progress<'_>) {
        match progress {
            Progress::Encoding => self.wait("preparing and encoding the prompt"),
            Progress::Denoising { completed, of, .. } => self.count("denoising", completed, of),
            Progress::Decoding { .. } => self.wait("decoding"),
            _ => {}
        }
    }

    /// Something that takes a while and cannot be counted.
    pub(crate) fn wait(&self, what: &'static str) {
        self.0.set_style(waiting());
        self.0.set_message(what);
        self.0.tick();
    }

    /// So much of something is done.
    pub(crate) fn count(&self, what: &str, completed: usize, of: usize) {
        let template = format!("{what} {{wide_bar}} {{pos}}/{{len}} [{{elapsed}} < {{eta}}]");
        self.0.set_style(style(&template));
        self.0.set_length(of as u64);
        self.0.set_position(completed as u64);
        self.0.tick();
    }

    /// A line of text above the bar, which stays.
    pub(crate) fn say(&self, text: &str) {
        self.0.suspend(|| eprintln!("{text}"));
    }

    /// Removes the line.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Waiting for something that cannot be counted.
fn waiting() -> ProgressStyle {
    style("{msg} [{elapsed}]")
}
