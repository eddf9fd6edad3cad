//! The program `generate` with SDXL's refiner, as a user or a script runs it.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use program::{command_of, failed, names, succeeded, text};
use serde_json::Value;

const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/sdxl/model");
const REFINER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/refiner/model");

fn run(folder: &Path, model: &str, more: &[&str]) -> std::process::Output {
    let mut arguments =
        vec!["a castle on a hill", "--model", model, "--steps", "10", "--seed", "3", "--quiet"];
    arguments.extend(more);
    command_of("generate", folder, &arguments).output().unwrap()
}

#[test]
fn base_and_refiner_in_one_run_are_those_of_two() {
    let folder = tempfile::tempdir().unwrap();
    let size = ["--width", "64", "--height", "64", "--save-latents"];
    let chain = ["whole", "--refiner", REFINER, "--refiner-start", "0.6", "--stats", "stats", "--low-memory"];
    succeeded(&run(folder.path(), BASE, &[&size[..], &chain, &["--cache-interval", "2"]].concat()));
    let first = ["base", "--denoising-end", "0.6", "--cache-interval", "2"];
    succeeded(&run(folder.path(), BASE, &[&size[..], &first].concat()));
    assert_eq!(names(folder.path()), ["base", "out.png", "stats", "whole"], "no picture of noisy latents");
    let picture = fs::read(folder.path().join("out.png")).unwrap();
    assert!(text(&picture).contains("Refiner: model, Refiner switch at: 0.6"), "the picture says so");
    assert!(text(&picture).contains("Steps: 10"), "those of the whole run");

    let last = ["--latents", "base", "--denoising-start", "0.6", "--save-latents", "refined"];
    succeeded(&run(folder.path(), REFINER, &[&last[..], &["--cache-interval", "2"]].concat()));
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    assert!(read("whole") == read("refined"), "the same latents to the bit");

    let statistics: Value = serde_json::from_slice(&read("stats")).unwrap();
    let calls = |part: &str| statistics[part]["steps"].as_array().unwrap().len();
    assert_eq!(calls("base") + calls("refiner"), 10, "the calls of both");
}

#[test]
fn what_cannot_be_chained_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, words) in [
        (&["--refiner", "none"][..], 2, &["--refiner", "none does not exist"][..]),
        (&["--refiner", REFINER, "--refiner-start", "1.5"], 2, &["--refiner-start", "found 1.5"]),
        (&["--refiner-start", "0.5"], 2, &["--refiner"]),
        (&["--denoising-end", "0.5"], 2, &["--save-latents"]),
        (&["--denoising-start", "0.5"], 2, &["--latents"]),
        (&["--refiner", REFINER, "--denoising-end", "0.5", "--save-latents", "l"], 2, &["--denoising-end"]),
        (&["--aesthetic-score", "7"], 2, &["--aesthetic-score", "no refiner"]),
        (
            &["--refiner", REFINER, "--cache-interval", "2", "--cache-branch", "helper:99"],
            2,
            &["--cache-branch"],
        ),
    ] {
        failed(&arguments.join(" "), &run(folder.path(), BASE, arguments), code, words);
    }
    assert_eq!(names(folder.path()), [""; 0], "files were left");
}
