//! The examples as a user or a script runs them.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// An example, which cargo builds before it runs the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("examples");
    let path = built.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is missing: run `cargo build --example {name}`", path.display());
    path
}

/// A run of an example in a folder.
pub(crate) fn command_of(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    // What was tuned on this machine must not count.
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kept");
    command.current_dir(folder).env("DEEPCACHE_FOLDER", kept).args(arguments);
    command
}

/// What a program wrote.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The names of the files in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Checks that a run failed with this exit code and one line of error that holds these words.
pub(crate) fn failed(name: &str, output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {said}");
    assert!(output.stdout.is_empty(), "{name}: printed {}", text(&output.stdout));
    assert!(said.starts_with("error: "), "{name}: {said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{name}: {said}");
    assert!(!said.contains("panicked"), "{name}: {said}");
    for word in words {
        assert!(said.contains(word), "{name}: \"{said}\" does not say \"{word}\"");
    }
}

/// Checks that a run came to its end.
pub(crate) fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}
