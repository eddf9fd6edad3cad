//! The program `generate` with LoRAs and textual inversions.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;

use program::{command_of, failed, succeeded};
use support::{Goldens, json, repository};

/// Arguments for a run of the model of the pack `sd1`, as its references were made.
fn arguments(cases: &serde_json::Value, prompt: &str) -> Vec<String> {
    let text = |key: &str| cases[key].as_str().map_or_else(|| cases[key].to_string(), str::to_owned);
    let model = repository("tests/goldens/sd1/model").to_str().unwrap().to_owned();
    let options = [
        ("--model", model),
        ("--negative-prompt", text("negative_prompt")),
        ("--steps", text("steps")),
        ("--seed", text("seed")),
        ("--guidance-scale", text("guidance")),
        ("--scheduler", text("scheduler")),
        ("--width", text("size")),
        ("--height", text("size")),
        ("--dtype", "f32".to_owned()),
        ("--save-latents", "latents.safetensors".to_owned()),
    ];
    let options = options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    [prompt.to_owned(), "--quiet".to_owned()].into_iter().chain(options).collect()
}

/// Runs the program, and compares the latents that it has written.
fn draws(arguments: &[String], expected: &[f64]) {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    succeeded(&command_of("generate", folder.path(), &arguments).output().unwrap());
    let bytes = fs::read(folder.path().join("latents.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = file.tensor("latents").unwrap().data().as_chunks().0.to_vec();
    let found: Vec<f64> = values.into_iter().map(|bytes| f64::from(f32::from_le_bytes(bytes))).collect();
    support::assert_close("latents", &found, expected, 5e-4, 2.5e-3);
    let png = fs::read(folder.path().join("out.png")).unwrap();
    let said = ["LoRA: ", "Embedding: "].iter().any(|word| String::from_utf8_lossy(&png).contains(word));
    assert!(said, "the picture does not say what it was made with");
}

#[test]
fn loras_with_weights_and_learned_words_are_given_by_path() {
    let path = |name: &str| repository(&format!("tests/goldens/{name}")).to_str().unwrap().to_owned();
    let cases = json("lora/cases.json");
    let mut with_loras = arguments(&cases, cases["prompt"].as_str().unwrap());
    for lora in ["sd1-processors.safetensors", "sd1-diffusers.safetensors:-0.7"] {
        with_loras.extend(["--lora".to_owned(), path(&format!("lora/{lora}"))]);
    }
    draws(&with_loras, &Goldens::open("lora/golden.safetensors").values("out.diffusers"));
    let cases = json("textual-inversion/cases.json");
    let case = &cases["cases"][1];
    let mut with_words = arguments(&cases, case["prompt"].as_str().unwrap());
    for word in ["learned.safetensors", "style.safetensors", "one.safetensors:sks"] {
        with_words.extend(["--embedding".to_owned(), path(&format!("textual-inversion/{word}"))]);
    }
    let expected = Goldens::open("textual-inversion/golden.safetensors");
    draws(&with_words, &expected.values(case["out"].as_str().unwrap()));
}

#[test]
fn what_is_wrong_with_them_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository("tests/goldens/sd1/model").to_str().unwrap().to_owned();
    let lora = repository("tests/goldens/lora/sd1-kohya.safetensors").to_str().unwrap().to_owned();
    let strong = format!("{lora}:strong");
    let rows: [(&[&str], i32, &[&str]); 5] = [
        (
            &["--model", &model, "--lora", &strong],
            2,
            &["--lora", "\"strong\" is not a number", "FILE:WEIGHT"],
        ),
        (&["--model", &model, "--embedding", "word:"], 2, &["--embedding", "FILE:TOKEN"]),
        (&["--model", &model, "--lora", "absent.safetensors"], 1, &["absent.safetensors", "cannot open"]),
        (
            &["--model", &model, "--embedding", &lora],
            1,
            &["sd1-kohya.safetensors", "expected a textual inversion"],
        ),
        (&["--model", &lora], 1, &["holds a LoRA", "--lora"]),
    ];
    for (more, code, words) in rows {
        let arguments = [&["a lighthouse", "--quiet"], more].concat();
        let output = command_of("generate", folder.path(), &arguments).output().unwrap();
        failed(&more.join(" "), &output, code, words);
    }
}
