//! The directory of a model: which files are found in it, and what is said when they are not.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs;
use std::path::Path;

use deepcache::Result;
use deepcache::weights::{ModelFiles, SchedulerSource, StableDiffusionFiles};
use serde_json::{Value, json};

fn index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null], "safety_checker": [null, null],
        "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// A model with empty files: only their names matter here.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "scheduler/scheduler_config.json",
    ];
    for file in files {
        write(folder.path(), file, "");
    }
    write(folder.path(), "model_index.json", &index().to_string());
    folder
}

fn write(root: &Path, file: &str, text: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn remove(root: &Path, file: &str) {
    fs::remove_file(root.join(file)).unwrap();
}

/// The files of a Stable Diffusion model.
fn open(path: impl AsRef<Path>) -> Result<StableDiffusionFiles> {
    match ModelFiles::open(path)? {
        ModelFiles::StableDiffusion(files) => Ok(*files),
        other => panic!("{other:?} is another kind"),
    }
}

fn refused(result: Result<StableDiffusionFiles>, words: &[&str]) {
    let message = result.expect_err("was accepted").to_string();
    for part in words {
        assert!(message.contains(part), "\"{message}\" does not say \"{part}\"");
    }
}

#[test]
fn a_whole_model_is_found() {
    let folder = model();
    let found = open(folder.path()).unwrap();
    assert_eq!(found.unet.weights, [folder.path().join("unet/diffusion_pytorch_model.safetensors")], "unet");
    assert_eq!(
        found.text_encoder.weights,
        [folder.path().join("text_encoder/model.safetensors")],
        "text encoder"
    );
    assert_eq!(found.vae.config, Some(folder.path().join("vae/config.json")), "configuration");
    assert_eq!(found.tokenizer, Some(folder.path().join("tokenizer")), "tokenizer");
    let scheduler = folder.path().join("scheduler/scheduler_config.json");
    assert_eq!(found.scheduler, SchedulerSource::File(scheduler), "scheduler");
    assert_eq!(found.warnings, [""; 0], "nothing to say");
}

#[test]
fn variants_are_found_in_their_order_and_plain_files_preferred() {
    let folder = model();
    let root = folder.path();
    let names = ["", ".fp16", ".bf16", ".fp32"]
        .map(|variant| format!("unet/diffusion_pytorch_model{variant}.safetensors"));
    for name in &names {
        write(root, name, "");
    }
    for name in &names {
        assert_eq!(open(root).unwrap().unet.weights, [root.join(name)], "another variant was preferred");
        remove(root, name);
    }
    write(root, "unet/diffusion_pytorch_model.non_ema.safetensors", "");
    refused(
        open(root),
        &["looked for", "variants fp16", "there is diffusion_pytorch_model.non_ema.safetensors"],
    );
}

#[test]
fn without_a_tokenizer_there_is_that_of_clip() {
    let folder = model();
    fs::remove_dir_all(folder.path().join("tokenizer")).unwrap();
    let mut changed = index();
    for _ in 0..2 {
        let found = open(folder.path()).unwrap();
        assert_eq!(found.tokenizer, None, "CLIP's own");
        assert!(found.warnings[0].contains("no folder \"tokenizer\""), "{:?}", found.warnings);
        changed.as_object_mut().unwrap().remove("tokenizer");
        write(folder.path(), "model_index.json", &changed.to_string());
    }
}

#[test]
fn shards_are_found_in_order() {
    let folder = model();
    let root = folder.path();
    remove(root, "unet/diffusion_pytorch_model.safetensors");
    let shards = ["a-00001-of-00002.safetensors", "a-00002-of-00002.safetensors"];
    let map = json!({"metadata": {}, "weight_map": {"x": shards[1], "y": shards[0], "z": shards[1]}});
    for index in [
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
        "unet/diffusion_pytorch_model.fp16.safetensors.index.json",
    ] {
        write(root, index, &map.to_string());
        for shard in shards {
            write(root, &format!("unet/{shard}"), "");
        }
        let found = open(root).unwrap().unet.weights;
        assert_eq!(found, shards.map(|shard| root.join("unet").join(shard)), "through {index}");
        remove(root, &format!("unet/{}", shards[1]));
        refused(open(root), &[shards[1], "does not exist", "index"]);
        remove(root, index);
    }
}

#[test]
fn indices_of_shards_stay_within_their_folder() {
    let folder = model();
    let root = folder.path();
    remove(root, "vae/diffusion_pytorch_model.safetensors");
    let file = "vae/diffusion_pytorch_model.safetensors.index.json";
    for name in [json!("../unet/diffusion_pytorch_model.safetensors"), json!("/etc/passwd"), json!(3)] {
        write(root, file, &json!({"weight_map": {"x": name}}).to_string());
        refused(open(root), &["weight_map", "expected the name of a file beside it"]);
    }
    for text in ["{}", r#"{"weight_map": {}}"#] {
        write(root, file, text);
        refused(open(root), &["index.json", "weight_map", "expected the file of every tensor"]);
    }
}

#[test]
fn what_is_no_model_is_explained() {
    let folder = model();
    let root = folder.path();
    refused(open(root.join("none")), &["none", "does not exist", "model_index.json", ".safetensors"]);
    refused(open(root.join("model_index.json")), &["model_index.json is not a checkpoint", "expected"]);
    fs::create_dir(root.join("empty")).unwrap();
    refused(open(root.join("empty")), &["is empty", "model_index.json", "LDMPipeline", "ermongroup/ddim"]);
    refused(open(root.join("tokenizer")), &["holds no model", "looked for", "model_index.json"]);
}

#[test]
fn other_pipelines_are_refused_by_name() {
    let folder = model();
    let cases = [
        (
            "_class_name",
            json!("StableDiffusion3Pipeline"),
            "supported are StableDiffusionPipeline, StableDiffusionXLPipeline, LDMPipeline",
        ),
        ("_class_name", json!(null), "is missing"),
        (
            "unet",
            json!(["diffusers", "UNet2DModel"]),
            "found \"UNet2DModel\", supported is UNet2DConditionModel",
        ),
        (
            "vae",
            json!(["diffusers", "AsymmetricAutoencoderKL"]),
            "found \"AsymmetricAutoencoderKL\", supported",
        ),
        ("tokenizer", json!([null, null]), "found [null,null], expected [library, class]"),
        ("text_encoder", json!("CLIPTextModel"), "expected [library, class]"),
    ];
    for (key, value, words) in cases {
        let mut changed = index();
        changed[key] = value;
        write(folder.path(), "model_index.json", &changed.to_string());
        refused(open(folder.path()), &["model_index.json", &format!("key \"{key}\""), words]);
    }
    let mut changed = index();
    changed.as_object_mut().unwrap().remove("scheduler");
    write(folder.path(), "model_index.json", &changed.to_string());
    refused(open(folder.path()), &["key \"scheduler\"", "is missing"]);
    write(folder.path(), "model_index.json", "{");
    refused(open(folder.path()), &["model_index.json", "is not JSON"]);
}

#[test]
fn missing_parts_say_what_was_looked_for() {
    let cases: [(&str, &[&str]); 5] = [
        ("unet/config.json", &["config.json", "does not exist"]),
        (
            "vae/diffusion_pytorch_model.safetensors",
            &["vae", "looked for diffusion_pytorch_model.safetensors"],
        ),
        ("text_encoder/model.safetensors", &["text_encoder", "looked for model.safetensors"]),
        ("tokenizer/merges.txt", &["neither tokenizer.json nor vocab.json with merges.txt"]),
        ("scheduler/scheduler_config.json", &["scheduler_config.json", "does not exist"]),
    ];
    for (file, words) in cases {
        let folder = model();
        remove(folder.path(), file);
        refused(open(folder.path()), words);
    }
    let folder = model();
    fs::remove_dir_all(folder.path().join("vae")).unwrap();
    refused(open(folder.path()), &["the folder vae beside it is missing"]);
}

#[test]
fn pickles_are_to_be_converted() {
    let folder = model();
    remove(folder.path(), "unet/diffusion_pytorch_model.safetensors");
    let path = folder.path().join("unet/diffusion_pytorch_model.bin");
    fs::write(path, b"PK\x03\x04....archive/data.pkl").unwrap();
    refused(
        open(folder.path()),
        &["diffusion_pytorch_model.bin", "can run programs", "Convert it", "safetensors"],
    );
}
