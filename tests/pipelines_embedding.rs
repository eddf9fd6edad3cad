//! Words that textual inversions teach to a model, against diffusers.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/loops.rs"]
mod loops;
#[path = "support/malformed.rs"]
mod malformed;
mod support;

use std::fs;
use std::path::Path;

use checkpoints::write;
use deepcache::Result;
use deepcache::pipelines::{Condition, DiffusionPipeline, LoadOptions, Request, StorageType};
use deepcache::tokenizer::ClipTokenizer;
use deepcache::weights::{Embedding, ModelFiles};
use loops::{GPU, number, run};
use malformed::{Kind, says};
use safetensors::Dtype;
use serde_json::Value;
use support::{Goldens, assert_close, json, repository};

const FOLDER: &str = "tests/goldens/textual-inversion";

fn load(model: &str, embeddings: Vec<Embedding>, storage: StorageType) -> Result<DiffusionPipeline> {
    let options = LoadOptions { embeddings, ..storage.into() };
    DiffusionPipeline::load_on(GPU.clone(), repository(&format!("tests/goldens/{model}/model")), &options)
}

fn embeddings(case: &Value) -> Vec<Embedding> {
    let entries = case["embeddings"].as_array().unwrap().iter();
    let read = |entry: &Value| Embedding {
        path: repository(FOLDER).join(entry["file"].as_str().unwrap()),
        token: entry["token"].as_str().map(str::to_owned),
    };
    entries.map(read).collect()
}

fn draw(pipeline: &mut DiffusionPipeline, cases: &Value, prompt: &str) -> Vec<f64> {
    let negative_prompt = cases["negative_prompt"].as_str().unwrap().to_owned();
    let request = Request {
        condition: Condition::Prompt { prompt: prompt.to_owned(), negative_prompt },
        steps: Some(number(&cases["steps"])),
        guidance_scale: cases["guidance"].as_f64(),
        scheduler: Some(cases["scheduler"].as_str().unwrap().parse().unwrap()),
        seed: cases["seed"].as_u64().unwrap(),
        height: Some(number(&cases["size"])),
        width: Some(number(&cases["size"])),
        ..Request::unconditional()
    };
    run(pipeline, &request).latents.values().iter().map(|&value| f64::from(value)).collect()
}

#[test]
fn learned_words_draw_what_diffusers_draws() {
    let cases = json("textual-inversion/cases.json");
    let goldens = Goldens::open("textual-inversion/golden.safetensors");
    let all = cases["cases"].as_array().unwrap();
    for model in ["sd1", "sdxl"] {
        let of_model: Vec<&Value> = all.iter().filter(|case| case["model"] == model).collect();
        let words = embeddings(of_model[0]);
        let mut full = load(model, words.clone(), StorageType::F32).unwrap_or_else(|error| panic!("{error}"));
        let mut half = load(model, words, StorageType::F16).unwrap_or_else(|error| panic!("{error}"));
        for case in of_model {
            let (prompt, expected) =
                (case["prompt"].as_str().unwrap(), goldens.values(case["out"].as_str().unwrap()));
            assert_close(prompt, &draw(&mut full, &cases, prompt), &expected, 5e-4, 2.5e-3);
            assert_close(prompt, &draw(&mut half, &cases, prompt), &expected, 3e-2, 1e-1);
        }
    }
}

#[test]
fn learned_words_have_the_ids_of_diffusers() {
    let mut words = ClipTokenizer::open(repository("tests/goldens/sd1/model/tokenizer")).unwrap();
    let size = words.vocabulary_size();
    for (word, count) in [("<fox-toy>", 3), ("style", 1), ("sks", 1)] {
        words.learn(word, count).unwrap();
    }
    assert_eq!(words.vocabulary_size(), size + 5, "every vector has an id");
    let cases = json("textual-inversion/cases.json");
    for case in cases["cases"].as_array().unwrap().iter().filter(|case| case["model"] == "sd1") {
        let (prompt, ids) = (case["prompt"].as_str().unwrap(), case["ids"].as_array().unwrap());
        let expected: Vec<u32> = ids.iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect();
        assert_eq!(words.encode(prompt).unwrap().ids, expected, "{prompt}");
    }
    let [upper, lower] = ["A <FOX-TOY>", "a <fox-toy>"].map(|prompt| words.encode(prompt).unwrap());
    assert_eq!((upper.ids, upper.tokens), (lower.ids, 4), "upper case is another word");
    for (word, reason) in [("<fox-toy>", "already"), ("style", "already"), ("", "no word"), ("  ", "no word")]
    {
        says(word, words.learn(word, 1), Kind::Option, &["embedding", reason]);
    }
    says("a part of a word", words.learn("<fox-toy>_1", 1), Kind::Option, &["already"]);
    assert_eq!(words.vocabulary_size(), size + 5, "what was refused was learned");
}

#[test]
fn damaged_files_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("word.safetensors");
    let refused = |name: &str, model: &str, path: &Path, words: &[&str]| {
        let file = path.file_name().unwrap().to_str().unwrap();
        let outcome = load(model, vec![Embedding::new(path)], StorageType::F32);
        says(name, outcome, Kind::Weights, &[&[file], words].concat());
    };
    let tensor = |name: &str, dtype, shape: &[usize], byte: u8| {
        (name.to_owned(), dtype, shape.to_vec(), vec![byte; 4 * shape.iter().product::<usize>()])
    };
    // 1. shapes
    for (shape, words) in [
        (&[2, 33][..], "has shape [2, 33], expected [vectors, 32]"),
        (&[768], "has shape [768], expected [vectors, 32]"),
        (&[1, 1, 32], "has shape [1, 1, 32], expected [vectors, 32]"),
        (&[0, 32], "holds 0 vectors, expected 1 to 75"),
        (&[76, 32], "holds 76 vectors, expected 1 to 75"),
    ] {
        write(&path, &[tensor("<cat>", Dtype::F32, shape, 0)]);
        refused("shape", "sd1", &path, &["<cat>", words]);
    }
    write(&path, &[tensor("clip_l", Dtype::F32, &[2, 24], 0), tensor("clip_g", Dtype::F32, &[3, 32], 0)]);
    refused("numbers", "sdxl", &path, &["clip_g", "holds 3 vectors, but \"clip_l\" holds 2"]);
    // 2. values
    write(&path, &[tensor("<cat>", Dtype::F32, &[2, 32], 0xff)]);
    refused("NaN", "sd1", &path, &["<cat>", "not finite (NaN) at [0, 0]"]);
    write(&path, &[tensor("<cat>", Dtype::I32, &[2, 32], 0)]);
    refused("integers", "sd1", &path, &["<cat>", "holds integers"]);
    // 3. names
    let [learned, toy] = ["learned.safetensors", "toy.safetensors"].map(|name| repository(FOLDER).join(name));
    refused("of SDXL", "sd1", &toy, &["holds 2 tensors", "\"clip_g\"", "one text encoder"]);
    refused("for SDXL", "sdxl", &learned, &["holds 1 tensors", "\"clip_l\" and \"clip_g\""]);
    let other = repository("tests/goldens/lora/sd1-kohya.safetensors");
    refused("a LoRA", "sd1", &other, &["holds a LoRA", "expected a textual inversion"]);
    // 4. files
    let whole = fs::read(&learned).unwrap();
    fs::write(&path, &whole[..whole.len() - 4]).unwrap();
    refused("cut off", "sd1", &path, &["cut off or damaged"]);
    fs::write(&path, b"PK\x03\x04....archive/data.pkl").unwrap();
    refused("pickle", "sd1", &path, &["PyTorch pickle"]);
    let absent =
        load("sd1", vec![Embedding::new(folder.path().join("absent.safetensors"))], StorageType::F32);
    says("absent", absent, Kind::Io, &["absent.safetensors"]);
    // 5. words and models
    let twice = load("sd1", vec![Embedding::new(&learned), Embedding::new(&learned)], StorageType::F32);
    says("twice", twice, Kind::Option, &["embedding", "\"<fox-toy>\" is in the vocabulary already"]);
    let other = load("ddpm-cifar", vec![Embedding::new(&learned)], StorageType::F32);
    says("DDPM", other, Kind::Option, &["embedding", "learned.safetensors", "Stable Diffusion"]);
    says(
        "as the model",
        ModelFiles::open(&toy),
        Kind::Weights,
        &["holds a textual inversion", "--embedding"],
    );
}
