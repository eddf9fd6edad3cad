//! Models changed by LoRA, LoHa and `LoKr` files, against diffusers, PEFT and the formulas of LyCORIS.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/loops.rs"]
mod loops;
#[path = "support/malformed.rs"]
mod malformed;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use checkpoints::{Stored, changed, convert, write};
use deepcache::Result;
use deepcache::pipelines::{Condition, DiffusionPipeline, LoadOptions, Request, StorageType};
use deepcache::weights::{Lora, ModelFiles, Replacements};
use loops::{GPU, run};
use malformed::{Kind, says};
use safetensors::Dtype;
use serde_json::Value;
use support::{Goldens, assert_close, json, repository};

fn lora(file: &str, weight: f32) -> Lora {
    Lora { path: repository("tests/goldens/lora").join(file), weight }
}

fn load_as(model: &str, loras: &[Lora], storage: StorageType) -> Result<DiffusionPipeline> {
    let folder = repository("tests/goldens").join(model);
    let in_one_file = folder.join("config");
    let (path, config) = if in_one_file.is_dir() {
        (folder.join("model.safetensors"), Some(in_one_file))
    } else {
        (folder.join("model"), None)
    };
    let replacements = Replacements { config, vae: None };
    let storage = Some(storage);
    let options = LoadOptions { storage, replacements, loras: loras.to_vec(), ..LoadOptions::default() };
    DiffusionPipeline::load_on(GPU.clone(), path, &options)
}

fn load(model: &str, loras: &[Lora]) -> DiffusionPipeline {
    load_as(model, loras, StorageType::F32).unwrap_or_else(|error| panic!("{error}"))
}

fn request(cases: &Value) -> Request {
    let text = |key: &str| cases[key].as_str().unwrap().to_owned();
    let number = |key: &str| usize::try_from(cases[key].as_u64().unwrap()).unwrap();
    Request {
        condition: Condition::Prompt { prompt: text("prompt"), negative_prompt: text("negative_prompt") },
        steps: Some(number("steps")),
        guidance_scale: cases["guidance"].as_f64(),
        scheduler: Some(text("scheduler").parse().unwrap()),
        seed: cases["seed"].as_u64().unwrap(),
        height: Some(number("size")),
        width: Some(number("size")),
        ..Request::unconditional()
    }
}

fn draw(pipeline: &mut DiffusionPipeline) -> Vec<f64> {
    let generation = run(pipeline, &request(&json("lora/cases.json")));
    generation.latents.values().iter().map(|&value| f64::from(value)).collect()
}

fn loras_of(case: &Value) -> Vec<Lora> {
    let loras = case["loras"].as_array().unwrap().iter();
    #[expect(clippy::cast_possible_truncation, reason = "weights are short numbers")]
    loras
        .map(|entry| lora(entry["file"].as_str().unwrap(), entry["weight"].as_f64().unwrap() as f32))
        .collect()
}

#[test]
fn changed_models_draw_what_the_reference_draws() {
    let cases = json("lora/cases.json");
    let goldens = Goldens::open("lora/golden.safetensors");
    let golden = |name: &str| goldens.values(&format!("out.{name}"));
    for model in ["sd1", "sdxl", "single-sdxl"] {
        let mut pipeline = load(model, &[]);
        let plain = draw(&mut pipeline);
        assert_close(model, &plain, &golden(&format!("plain.{model}")), 5e-4, 2.5e-3);
        for case in cases["cases"].as_array().unwrap().iter().filter(|case| case["model"] == model) {
            let (name, loras) = (case["name"].as_str().unwrap(), loras_of(case));
            // 1. one after the other in one pipeline
            pipeline.set_loras(&loras).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(pipeline.warnings(), [""; 0], "{name}: something is left out");
            assert_eq!(pipeline.loras(), loras, "{name}");
            let found = draw(&mut pipeline);
            assert_close(name, &found, &golden(name), 5e-4, 2.5e-3);
            // 2. from the start
            let loaded = draw(&mut load(model, &loras));
            assert!(found == loaded, "{name}: exchanged LoRAs are not those that are loaded");
        }
        pipeline.set_loras(&[]).unwrap();
        assert!(draw(&mut pipeline) == plain, "{model} is not what it was");
    }
}

#[test]
fn low_memory_changes_nothing() {
    let loras = [lora("sd1-kohya.safetensors", 0.8)];
    let [plain, changed] = [draw(&mut load("sd1", &[])), draw(&mut load("sd1", &loras))];
    let options = LoadOptions { low_memory: true, ..StorageType::F32.into() };
    let path = repository("tests/goldens/sd1/model");
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), path, &options).unwrap();
    assert!(draw(&mut pipeline) == plain, "without LoRAs");
    pipeline.set_loras(&loras).unwrap();
    assert!(draw(&mut pipeline) == changed, "with one");
    pipeline.set_loras(&[]).unwrap();
    assert!(draw(&mut pipeline) == plain, "without it again");
}

#[test]
fn storage_of_16_bits_rounds_the_sum_once() {
    let loras = [lora("sd1-kohya.safetensors", 0.8)];
    let mut pipeline = load_as("sd1", &loras, StorageType::F16).unwrap();
    let expected = Goldens::open("lora/golden.safetensors").values("out.kohya");
    assert_close("kohya, f16", &draw(&mut pipeline), &expected, 3e-2, 1e-1);
}

/// A copy of a LoRA file, each of its tensors changed or left out.
fn damaged(folder: &Path, file: &str, change: impl Fn(Stored) -> Option<Stored>) -> PathBuf {
    let path = folder.join("damaged.safetensors");
    write(&path, &changed(&lora(file, 1.0).path, change));
    path
}

const KEY: &str = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q";

fn reshaped(mut stored: Stored, name: &str, shape: &[usize]) -> Stored {
    if stored.0 == name {
        stored.2 = shape.to_vec();
        stored.3 = vec![0; 2 * shape.iter().product::<usize>()];
    }
    stored
}

#[test]
fn damaged_files_are_explained_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = load("sd1", &[lora("sd1-loha.safetensors", 0.9)]);
    let before = draw(&mut pipeline);
    let [down, up] = ["lora_down.weight", "lora_up.weight"].map(|part| format!("{KEY}.{part}"));
    let mut refused = |name: &str, path: &Path, words: &[&str]| {
        let file = path.file_name().unwrap().to_str().unwrap();
        says(name, pipeline.set_loras(&[Lora::new(path)]), Kind::Weights, &[&[file], words].concat());
        says(name, load_as("sd1", &[Lora::new(path)], StorageType::F32), Kind::Weights, words);
    };
    let kohya = "sd1-kohya.safetensors";
    // 1. shapes
    let target = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight";
    let path = damaged(folder.path(), kohya, |stored| Some(reshaped(stored, &down, &[4, 33])));
    refused("inputs", &path, &[&down, "has shape [4, 33], expected [4, 32]", target]);
    let path = damaged(folder.path(), kohya, |stored| Some(reshaped(stored, &up, &[31, 4])));
    refused("outputs", &path, &[&up, "has shape [31, 4], expected [32, 4]", target]);
    let path = damaged(folder.path(), kohya, |stored| Some(reshaped(stored, &down, &[5, 32])));
    refused("ranks", &path, &[&down, "has shape [5, 32], expected [4, 32]"]);
    let path = damaged(folder.path(), kohya, |stored| Some(reshaped(stored, &up, &[32, 0])));
    refused("no rank", &path, &[&up, "has shape [32, 0], expected a matrix"]);
    let alpha = format!("{KEY}.alpha");
    let path = damaged(folder.path(), kohya, |stored| Some(reshaped(stored, &alpha, &[2])));
    refused("alpha", &path, &[&alpha, "has shape [2], expected one value"]);
    // 2. parts
    let path = damaged(folder.path(), kohya, |stored| (stored.0 != up).then_some(stored));
    refused("no up", &path, &[&down, "\"up\" of this layer is missing"]);
    let path = damaged(folder.path(), "sd1-loha.safetensors", |stored| {
        (!stored.0.ends_with("down_blocks_2_attentions_0_proj_in.hada_w2_b")).then_some(stored)
    });
    refused(
        "no factor",
        &path,
        &["down_blocks_2_attentions_0_proj_in", "\"hada_w2_b\" of this layer is missing"],
    );
    let scale = (format!("{KEY}.dora_scale"), Dtype::F16, vec![32], vec![0; 64]);
    let path = folder.path().join("dora.safetensors");
    write(&path, &[changed(&lora(kohya, 1.0).path, Some), vec![scale]].concat());
    refused("DoRA", &path, &[&format!("{KEY}.dora_scale"), "DoRA"]);
    let again = (
        format!("unet.{}.lora_A.weight", target.replace(".weight", "")),
        Dtype::F16,
        vec![4, 32],
        vec![0; 256],
    );
    write(&path, &[changed(&lora(kohya, 1.0).path, Some), vec![again]].concat());
    refused("twice", &path, &["is the same part of a layer as", &down]);
    // 3. values
    let path = folder.path().join("nan.safetensors");
    let nan = half::f16::NAN.to_le_bytes();
    write(
        &path,
        &changed(&lora(kohya, 1.0).path, |mut stored| {
            if stored.0 == up {
                stored.3[130..132].copy_from_slice(&nan);
            }
            Some(stored)
        }),
    );
    refused("NaN", &path, &[&up, "not finite (NaN) at [16, 1]"]);
    let path = damaged(folder.path(), kohya, |stored| {
        Some(if stored.0 == down { (stored.0, Dtype::I32, vec![4, 32], vec![0; 512]) } else { stored })
    });
    refused("integers", &path, &[&down, "holds integers"]);
    // 4. files
    let path = folder.path().join("cut.safetensors");
    let whole = fs::read(lora(kohya, 1.0).path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    refused("cut off", &path, &["cut off or damaged"]);
    fs::write(&path, b"PK\x03\x04....archive/data.pkl").unwrap();
    refused("pickle", &path, &["PyTorch pickle"]);
    refused(
        "a model",
        &repository("tests/goldens/single/model.safetensors"),
        &["holds Stable Diffusion 1, expected a LoRA"],
    );
    write(&path, &[("x.y".to_owned(), Dtype::F16, vec![1], vec![0; 2])]);
    refused("something else", &path, &["is not a LoRA by the names of its tensors", "x.y"]);
    let xl = lora("single-sdxl.safetensors", 1.0).path;
    let other = damaged(folder.path(), "single-sdxl.safetensors", |stored| {
        stored.0.starts_with("text_encoder_2").then_some(stored)
    });
    refused("of another model", &other, &["changes nothing in this model", "text_encoder_2."]);
    refused("of another shape", &xl, &["has shape"]);
    // 5. what is no file, and no number
    let absent = Lora::new(folder.path().join("absent.safetensors"));
    says("absent", pipeline.set_loras(&[absent]), Kind::Io, &["absent.safetensors"]);
    says("NaN", pipeline.set_loras(&[lora(kohya, f32::NAN)]), Kind::Option, &["lora", "NaN"]);
    // 6. nothing has changed
    assert_eq!(pipeline.loras(), [lora("sd1-loha.safetensors", 0.9)]);
    assert!(draw(&mut pipeline) == before, "a file that was refused has changed something");
}

#[test]
fn what_fits_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("more.safetensors");
    let more = [
        "lora_unet_down_blocks_9_conv.lora_up.weight",
        "lora_te2_x.alpha",
        "bundle_emb.cat.string_to_param.*",
    ]
    .map(|name| (name.to_owned(), Dtype::F16, vec![1], vec![0; 2]));
    write(&path, &[changed(&lora("sd1-kohya.safetensors", 1.0).path, Some), more.to_vec()].concat());
    let mut pipeline = load("sd1", &[Lora { path: path.clone(), weight: 0.8 }]);
    let told = pipeline.warnings().to_vec();
    let count = changed(&path, Some).len();
    let words = [
        "more.safetensors",
        &format!("3 of {count} tensors fit nothing"),
        "down_blocks_9_conv",
        "bundle_emb",
    ];
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(words.iter().all(|word| told[0].contains(word)), "{told:?}");
    let expected = Goldens::open("lora/golden.safetensors").values("out.kohya");
    assert_close("with more", &draw(&mut pipeline), &expected, 5e-4, 2.5e-3);
    pipeline.set_loras(&[]).unwrap();
    assert_eq!(pipeline.warnings(), [""; 0], "a LoRA that is gone is still told of");
}

#[test]
fn sums_that_16_bits_cannot_hold_are_refused_and_undone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    convert(&lora("sd1-kohya.safetensors", 1.0).path, &path, Dtype::F32, |value| {
        (value * 1e6).to_le_bytes().to_vec()
    });
    let mut pipeline = load_as("sd1", &[], StorageType::F16).unwrap();
    let before = draw(&mut pipeline);
    let outcome = pipeline.set_loras(&[Lora::new(&path)]);
    says("large", outcome, Kind::Weights, &["beyond 65504", "changed by", "large.safetensors"]);
    assert!(draw(&mut pipeline) == before, "half of a change was left");
}

#[test]
fn a_lora_is_for_stable_diffusion_and_no_model_itself() {
    let file = lora("sd1-kohya.safetensors", 1.0);
    says("as the model", ModelFiles::open(&file.path), Kind::Weights, &["holds a LoRA", "--lora"]);
    let options = LoadOptions { loras: vec![file], ..StorageType::F32.into() };
    let outcome =
        DiffusionPipeline::load_on(GPU.clone(), repository("tests/goldens/ddpm-cifar/model"), &options);
    says("DDPM", outcome, Kind::Option, &["lora", "sd1-kohya.safetensors", "Stable Diffusion"]);
}
