//! What the command lines of the examples have in common.

#![allow(dead_code, unused_imports, reason = "each program uses a part of this module")]

mod branches;
mod condition;
mod folder;
mod hub;
mod kept;
mod model;
mod progress;
mod sampling;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use deepcache::{Error, Result};

pub(crate) use branches::parse_branches;
pub(crate) use condition::{Conditions, check_names};
pub(crate) use folder::Folder;
pub(crate) use kept::{save_pipelines, tune};
pub(crate) use model::{ModelOptions, list_devices};
pub(crate) use progress::{Bar, progress_bar};
pub(crate) use sampling::Sampling;

/// A program: its command line read, its work done, its errors told.
///
/// The exit code is 2 where the command line is wrong, 1 where the work failed.
pub(crate) fn program<P: Parser>(run: impl FnOnce(&P) -> Result<()>) -> ExitCode {
    let options = match read::<P>() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain::<P>(&error));
            ExitCode::from(if matches!(error, Error::Option { .. }) { 2 } else { 1 })
        }
    }
}

/// Prints a line; that its reader has gone, as `head` does, is no fault.
pub(crate) fn print(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("standard output", "write to", error))
        }
        _ => Ok(()),
    }
}

/// Reads the command line. What is wrong with it comes back as one line; help and version are printed.
fn read<P: Parser>() -> std::result::Result<P, String> {
    P::try_parse().map_err(|error| {
        if !error.use_stderr() {
            error.exit();
        }
        let text = error.render().to_string();
        let end = text.find("Usage:").or_else(|| text.find("For more information")).unwrap_or(text.len());
        let words: Vec<&str> = text[..end].split_whitespace().skip(1).collect();
        format!("{} (--help shows all options)", words.join(" "))
    })
}

/// An error in the words of the command line: `--cache-branch`, where the library says `cache branch`.
fn explain<P: Parser>(error: &Error) -> String {
    if let Error::Option { option, problem } = error {
        let long = option.replace(' ', "-");
        if long == "prompt" {
            return format!("PROMPT: {problem} (--help shows all options)");
        }
        if P::command().get_arguments().any(|argument| argument.get_long() == Some(&long)) {
            return format!("--{long}: {problem}");
        }
    }
    error.to_string()
}

/// Whether Ctrl-C was pressed, from now on.
///
/// Without a handler Ctrl-C ends the program at once, which leaves no half file either.
pub(crate) fn interrupt() -> impl Fn() -> bool {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    move || stop.load(Ordering::Relaxed)
}
