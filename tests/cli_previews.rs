//! The program `generate` with previews and tiny autoencoders, as a user or a script runs it.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use program::{command_of, failed, names, succeeded, text};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/sd1/model");
const TINY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/tiny_autoencoder/taesd_decoder.safetensors");

fn run(folder: &Path, more: &[&str]) -> std::process::Output {
    let mut arguments =
        vec!["a small boat", "--model", MODEL, "--steps", "4", "--width", "64", "--height", "64"];
    arguments.extend(["--scheduler", "ddim", "--quiet"]);
    arguments.extend(more);
    command_of("generate", folder, &arguments).output().unwrap()
}

/// Width and height of a PNG file, after its eight bytes of signature and eight of the first chunk's head.
fn size(path: &Path) -> [u32; 2] {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[1..4], b"PNG", "{}", path.display());
    [16, 20].map(|at| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn a_preview_is_written_and_changes_no_picture() {
    let folder = tempfile::tempdir().unwrap();
    succeeded(&run(folder.path(), &["--output", "plain.png"]));
    let previews = ["--preview", "preview.png", "--preview-every", "2", "--preview-vae", TINY];
    succeeded(&run(folder.path(), &[&["--output", "watched.png"], &previews[..]].concat()));
    assert_eq!(names(folder.path()), ["plain.png", "preview.png", "watched.png"], "nothing else is left");
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("plain.png") == read("watched.png"), "the same file");
    assert_eq!(size(&folder.path().join("preview.png")), [64, 64], "as large as the picture");

    succeeded(&run(folder.path(), &["--output", "tiny.png", "--vae", TINY]));
    assert!(read("plain.png") != read("tiny.png"), "another decoder");
    assert!(text(&read("tiny.png")).contains("VAE: taesd_decoder.safetensors"), "the picture says so");
}

#[test]
fn previews_that_cannot_be_made_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, words) in [
        (&["--preview-every", "2"][..], 2, &["--preview"][..]),
        (&["--preview", "p.png", "--preview-every", "0"], 2, &["--preview-every", "found 0"]),
        (&["--preview", "p.png"], 2, &["--preview-every", "--preview-vae"]),
        (&["--preview", "out.png"], 2, &["--preview", "out.png is another output already"]),
        (&["--preview", "none/p.png"], 1, &["none/p.png", "cannot write"]),
        (&["--preview", "p.png", "--preview-vae", "none"], 2, &["--preview-vae", "none does not exist"]),
        (
            &["--preview", "p.png", "--preview-vae", MODEL],
            2,
            &["--preview-vae", "expected a tiny autoencoder"],
        ),
    ] {
        failed(&arguments.join(" "), &run(folder.path(), arguments), code, words);
    }
    assert_eq!(names(folder.path()), [""; 0], "files were left");
}
