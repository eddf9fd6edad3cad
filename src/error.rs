//! The one error type: each variant says by whose fault, and names the things involved.

use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the file, tensor, key or option that it went wrong with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors that do not fit together; found while recording, before anything runs.
    #[error("{operation}: {tensor} has {found}, expected {expected}")]
    Shape {
        /// The operation that refused.
        operation: &'static str,
        /// The tensor at fault.
        tensor: String,
        /// What the operation needs.
        expected: String,
        /// What it was given.
        found: String,
    },

    /// A weight file that is missing tensors, damaged, or not what its config says.
    #[error("{}: {}{problem}", file.display(), named("tensor", tensor.as_deref()))]
    Weights {
        /// The safetensors file.
        file: PathBuf,
        /// The tensor at fault, by its name in the file.
        tensor: Option<String>,
        /// What was expected and what was found.
        problem: String,
    },

    /// A configuration file with a missing, malformed or unsupported entry.
    #[error("{}: {}{problem}", file.display(), named("key", key.as_deref()))]
    Config {
        /// The configuration file.
        file: PathBuf,
        /// The key at fault.
        key: Option<String>,
        /// What was expected and what was found.
        problem: String,
    },

    /// An option of the caller that cannot be honoured.
    #[error("{option}: {problem}")]
    Option {
        /// The name of the option, as the caller knows it.
        option: String,
        /// What was expected and what was found.
        problem: String,
    },

    /// No GPU adapter, or none that fits the request.
    #[error("{}", no_adapter(wanted.as_deref(), found))]
    NoAdapter {
        /// The adapter asked for, by index or part of its name.
        wanted: Option<String>,
        /// The adapters that are there.
        found: Vec<String>,
    },

    /// The adapter or its driver refused or failed.
    #[error("{action}: {message}")]
    Device {
        /// What was being done.
        action: String,
        /// The driver's or wgpu's words.
        message: String,
    },

    /// The device was lost: driver reset, watchdog, or unplugged. Build a new engine to go on.
    #[error("the GPU was lost: {message}")]
    DeviceLost {
        /// The driver's words.
        message: String,
    },

    /// The device has not enough memory.
    #[error(
        "out of GPU memory: {what} needs {}; what helps: 16-bit storage (--dtype f16), --low-memory, --stream-weights, \
         a smaller picture", mebibytes(*bytes)
    )]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// Its size.
        bytes: u64,
    },

    /// One tensor is larger than the adapter can bind.
    #[error("{what} needs {}, but this adapter allows {} at most: {advice}", mebibytes(*needed), mebibytes(*limit))]
    Limit {
        /// What is too large.
        what: String,
        /// Its size in bytes.
        needed: u64,
        /// The adapter's limit in bytes.
        limit: u64,
        /// What to try.
        advice: &'static str,
    },

    /// The values stopped being numbers.
    #[error("{what} holds values that are not finite: {advice}")]
    NotFinite {
        /// Which tensor.
        what: String,
        /// What to try.
        advice: &'static str,
    },

    /// A file that cannot be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done with it.
        action: &'static str,
        /// The system's words.
        source: std::io::Error,
    },

    /// A file that a server did not give, or not whole.
    #[error("{what} cannot be downloaded: {problem}")]
    Download {
        /// The model, or the file of it.
        what: String,
        /// The server and its words, or what was expected and what arrived.
        problem: String,
    },

    /// Stopped at the caller's request; nothing was written.
    #[error("cancelled after {completed} of {steps} steps")]
    Cancelled {
        /// Steps that were completed.
        completed: usize,
        /// Steps of the run.
        steps: usize,
    },
}

impl Error {
    /// An [`Error::Option`].
    pub fn option(option: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Option { option: option.into(), problem: problem.into() }
    }

    /// An [`Error::Config`] about one key.
    pub fn config(file: impl AsRef<Path>, key: &str, problem: impl Into<String>) -> Self {
        Self::Config { file: file.as_ref().to_owned(), key: Some(key.to_owned()), problem: problem.into() }
    }

    /// An [`Error::Config`] about a whole file.
    pub fn config_file(file: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Config { file: file.as_ref().to_owned(), key: None, problem: problem.into() }
    }

    /// An [`Error::Weights`] about one tensor.
    pub fn weights(file: impl AsRef<Path>, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Weights {
            file: file.as_ref().to_owned(),
            tensor: Some(tensor.to_owned()),
            problem: problem.into(),
        }
    }

    /// An [`Error::Weights`] about a whole file.
    pub fn weights_file(file: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Weights { file: file.as_ref().to_owned(), tensor: None, problem: problem.into() }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }

    /// An [`Error::Device`].
    pub fn device(action: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self::Device { action: action.into(), message: message.to_string() }
    }
}

fn named(kind: &str, name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("{kind} \"{name}\": "))
}

/// A size for people: `12.3 MiB`.
pub(crate) fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
    let size = bytes as f64 / f64::from(1 << 20);
    format!("{size:.1} MiB")
}

fn no_adapter(wanted: Option<&str>, found: &[String]) -> String {
    const INSTALL: &str = "install a Vulkan driver (without a GPU, Mesa's software driver: \
        `apt-get install mesa-vulkan-drivers` on Debian and Ubuntu, `dnf install mesa-vulkan-drivers` on Fedora)";
    match (wanted, found) {
        (_, []) => format!("no GPU adapter was found: {INSTALL}"),
        (Some(wanted), found) => {
            format!("no adapter matches \"{wanted}\"; there are: {}", found.join(", "))
        }
        (None, found) => format!("no usable adapter among: {}", found.join(", ")),
    }
}
