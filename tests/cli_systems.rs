//! The program `generate` on every kind of model, and its options of DeepCache.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use program::{command_of, failed, names, succeeded, text};
use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn generate(folder: &Path, arguments: &[&str]) -> Output {
    command_of("generate", folder, arguments).output().unwrap()
}

/// Runs with a model of the goldens.
fn with_model(folder: &Path, model: &str, arguments: &[&str]) -> Output {
    let model = repository("tests/goldens").join(model);
    generate(folder, &[&["--model", &model.to_string_lossy()], arguments].concat())
}

const LDM: &str = "ldm4g/model/model.safetensors";
const CIFAR: &str = "ddpm-cifar/model";

#[test]
fn classes_are_drawn_by_their_number_with_several_pictures_each() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--class-label", "3", "--class-label", "7", "--steps", "1", "--count", "2", "--stats", "s.json"];
    let output = with_model(folder.path(), LDM, &arguments);
    succeeded(&output);
    let files = ["out-0.png", "out-1.png", "out-2.png", "out-3.png", "s.json"];
    assert_eq!(names(folder.path()), files);
    let file = fs::File::open(folder.path().join("out-2.png")).unwrap();
    let reader = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
    let said = reader.info().utf8_text[0].get_text().unwrap();
    assert!(said.starts_with("class 7"), "the third picture is the first of the second class: {said}");
}

#[test]
fn an_unconditional_model_draws_from_noise_alone() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--steps", "2", "--scheduler", "ddim", "--timestep-spacing", "quadratic", "--quiet"];
    let output = with_model(folder.path(), CIFAR, &arguments);
    succeeded(&output);
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_eq!(names(folder.path()), ["out.png"]);
}

#[test]
fn what_a_model_does_not_want_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rows: [(&str, &[&str], &[&str]); 8] = [
        (LDM, &["a dog"], &["PROMPT", "not a text to image model, but class-conditional"]),
        (LDM, &[], &["--class-label", "the number or the name of a class"]),
        (LDM, &["--class-label", "11"], &["--class-label", "11"]),
        (
            LDM,
            &["--class-label", "golden retriever"],
            &["--class-label", "a name of ImageNet", "use a number"],
        ),
        (LDM, &["--class-label", "golden"], &["--class-label", "\"golden\""]),
        (CIFAR, &["--class-label", "1"], &["--class-label", "but unconditional"]),
        (CIFAR, &["--negative-prompt", "x"], &["--negative-prompt", "but unconditional"]),
        ("ldm4g/golden", &[], &["--model", "model_index.json"]),
    ];
    for (model, arguments, words) in rows {
        let output = with_model(folder.path(), model, &[arguments, &["--quiet"]].concat());
        failed(&format!("{model} {}", arguments.join(" ")), &output, 2, words);
    }
    assert_eq!(names(folder.path()), [""; 0], "files were left");
}

#[test]
fn options_of_the_sampler_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let rows: [(&[&str], &[&str]); 6] = [
        (&["--sigmas", "cubic"], &["--sigmas", "karras", "\"cubic\""]),
        (&["--timestep-spacing", "even"], &["--timestep-spacing", "leading", "\"even\""]),
        (&["--rng", "cuda"], &["--rng", "philox", "\"cuda\""]),
        (&["--eta", "2"], &["--eta", "2"]),
        (&["--guidance-rescale", "1.5"], &["--guidance-rescale", "1.5"]),
        (&["--sigmas", "karras", "--scheduler", "ddim"], &["--sigmas", "ddim"]),
    ];
    for (arguments, words) in rows {
        let output = generate(folder.path(), &[&["x", "--quiet"], arguments].concat());
        failed(&arguments.join(" "), &output, 2, words);
    }
}

/// A profile of the tiny model with 20 steps of DDIM, written by hand: the feature moves as fast in every call.
fn profile() -> String {
    let distances: Vec<Vec<f64>> =
        (0..20).map(|call| (call + 1..20).map(|other| f64::from(other - call) / 10.0).collect()).collect();
    let weights: Vec<f64> = (0..20).map(|call| if call == 0 { 0.0 } else { 1.0 }).collect();
    let timesteps: Vec<f64> = (0..20).map(|call| f64::from(951 - 50 * call)).collect();
    serde_json::json!({
        "format": "deepcache cache profile", "version": 1, "pictures": 1,
        "subject": {"in_channels": 4, "block_out_channels": [32, 64, 64, 64], "layers_per_block": 2,
            "scheduler": "ddim", "timesteps": timesteps, "guided": true},
        "branches": [{"branch": 0, "shallow_cost": 0.1, "weights": weights, "distances": distances}],
    })
    .to_string()
}

/// The run that the profile is of.
const RUN: [&str; 8] = ["--steps", "20", "--scheduler", "ddim", "--width", "64", "--height", "64"];

#[test]
fn caches_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.json"), profile()).unwrap();
    fs::write(folder.path().join("half.json"), &profile()[..200]).unwrap();
    let auto = ["--cache-schedule", "auto"];
    let planned = ["--cache-schedule", "auto", "--cache-profile", "p.json"];
    let rows: [(&[&[&str]], &[&str]); 17] = [
        (&[&["--cache-schedule", "square"]], &["--cache-schedule", "\"square\""]),
        (&[&["--cache-schedule", "centered"]], &["--cache-schedule", "cache interval"]),
        (&[&["--cache-schedule", "list:0,5,99"]], &["--cache-schedule", "99"]),
        (&[&["--cache-schedule", "[3, 5]"]], &["--cache-schedule", "[3, 5]"]),
        (&[&["--cache-schedule", "centered:25", "--cache-interval", "5"]], &["--cache-schedule", "25", "20"]),
        (&[&["--cache-threshold", "0"]], &["--cache-threshold"]),
        (
            &[&["--cache-threshold", "0.2", "--cache-interval", "2"]],
            &["--cache-threshold", "--cache-interval"],
        ),
        (&[&["--cache-forecast", "cubic", "--cache-interval", "2"]], &["--cache-forecast", "\"cubic\""]),
        (&[&["--cache-budget", "5"]], &["--cache-budget", "--cache-schedule auto"]),
        (&[&auto], &["--cache-schedule", "--cache-profile"]),
        (&[&planned], &["--cache-schedule", "--cache-budget"]),
        (&[&planned, &["--cache-budget", "0"]], &["--cache-budget", "1 to 20 full calls, found 0"]),
        (&[&planned, &["--cache-speedup", "50"]], &["--cache-speedup", "at most 6.90"]),
        (
            &[&planned, &["--cache-speedup", "2", "--cache-branch", "5"]],
            &["--cache-branch", "5 is not in the cache"],
        ),
        (&[&planned, &["--cache-budget", "5", "--steps", "10"]], &["--cache-profile", "20, this run has 10"]),
        (
            &[&planned, &["--cache-budget", "5", "--scheduler", "euler"]],
            &["--cache-profile", "ddim, this run has euler"],
        ),
        (&[&planned, &["--cache-budget", "5", "--guidance-scale", "1"]], &["--cache-profile", "no guidance"]),
    ];
    for (arguments, words) in rows {
        let given = arguments.concat();
        let mut all = vec!["a ring", "--quiet"];
        // What a row says itself takes the place of what the run says.
        all.extend(RUN.chunks(2).filter(|option| !given.contains(&option[0])).flatten());
        all.extend(&given);
        let output = generate(folder.path(), &all);
        failed(&given.join(" "), &output, 2, words);
    }
    let half = ["--cache-schedule", "auto", "--cache-profile", "half.json", "--cache-budget", "3", "--quiet"];
    let output = generate(folder.path(), &[&["a ring"], &RUN[..], &half].concat());
    failed("half a profile", &output, 1, &["half.json", "is not JSON"]);
    assert_eq!(names(folder.path()), ["half.json", "p.json"], "files were left");
}

#[test]
fn a_profile_decides_which_steps_are_full() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("p.json"), profile()).unwrap();
    let planned = ["--cache-schedule", "auto", "--cache-profile", "p.json", "--stats", "s.json"];
    let output =
        generate(folder.path(), &[&["a ring"], &RUN[..], &planned, &["--cache-budget", "4"]].concat());
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(said.contains("4 full calls (0,") && said.contains("times less work"), "{said}");
    let statistics: Value = serde_json::from_slice(&fs::read(folder.path().join("s.json")).unwrap()).unwrap();
    let full = statistics["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "full").count();
    assert_eq!(full, 4, "{statistics}");
}
