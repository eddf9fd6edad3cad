//! Malformed latent diffusion and DDPM models, labels, schedules and profiles: every row ends in an error that names
//! what is wrong, soon and without a panic.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/malformed.rs"]
mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use deepcache::deepcache::{Budget, CacheProfile, CacheSchedule};
use deepcache::pipelines::{CacheOptions, Condition, DiffusionPipeline, LoadOptions, Request, StorageType};
use safetensors::Dtype;
use serde_json::{Value, json};
use support::{Change, Kind, Model, f16, gpu, mismatch, says, soon};

/// File, change, kind of error, words of its sentence.
type Row = (&'static str, Change, Kind, &'static [&'static str]);

const LDM: &str = "tests/goldens/ldm4g/model";
const LDM_WEIGHTS: &str = "model.safetensors";
const LDM_YAML: &str = "cin256-v2.yaml";
const CODEBOOK: &str = "first_stage_model.quantize.embedding.weight";
const CLASSES: &str = "cond_stage_model.embedding.weight";

const VQ_MODEL: &str = "tests/goldens/unconditional/ldm";
const VQ: &str = "vqvae/config.json";
const VQ_WEIGHTS: &str = "vqvae/diffusion_pytorch_model.safetensors";
const UNET: &str = "unet/config.json";

const ORIGINAL: &str = "tests/goldens/unconditional/original";
const ORIGINAL_YAML: &str = "small.yml";
const ORIGINAL_WEIGHTS: &str = "ema_small.safetensors";

fn small(index: usize) -> Vec<u8> {
    f16(if index.is_multiple_of(2) { 0.1 } else { -0.1 })
}

fn latent_diffusion_rows() -> Vec<Row> {
    use Change::{Remove, Rename, Replace, Tensor, Text};
    use Kind::{Config, Weights};
    vec![
        (LDM_YAML, Remove, Config, &["model.yaml", "does not exist", "YAML"]),
        (LDM_YAML, Text(""), Config, &["cin256-v2.yaml"]),
        (LDM_YAML, Text("model: [1, 2"), Config, &["cin256-v2.yaml", "line"]),
        (LDM_YAML, Text("model: 3"), Config, &["cin256-v2.yaml", "\"model\""]),
        (LDM_YAML, Text("a: &a [*a, *a]"), Config, &["cin256-v2.yaml"]),
        (LDM_YAML, Replace("ClassEmbedder", "FrozenCLIPEmbedder"), Config, &["FrozenCLIPEmbedder"]),
        (LDM_YAML, Replace("VQModelInterface", "AutoencoderKL"), Config, &["AutoencoderKL"]),
        (LDM_YAML, Replace("n_classes: 11", "n_classes: 12"), Weights, &[CLASSES, "[12, 48]", "[11, 48]"]),
        (LDM_YAML, Replace("n_classes: 11", "n_classes: 1"), Config, &["n_classes", "found 1"]),
        (LDM_YAML, Replace("n_classes: 11", "n_classes: -4"), Config, &["n_classes", "-4"]),
        (LDM_YAML, Replace("n_classes: 11", "n_classes: many"), Config, &["n_classes", "many"]),
        (LDM_YAML, Replace("n_embed: 256", "n_embed: 0"), Config, &["n_embed"]),
        (LDM_YAML, Replace("n_embed: 256", "n_embed: 255"), Weights, &[CODEBOOK, "[255, 3]", "[256, 3]"]),
        (LDM_YAML, Replace("embed_dim: 48", "embed_dim: 40"), Config, &["embed_dim", "40", "context_dim"]),
        (LDM_YAML, Replace("context_dim: 48", "context_dim: 40"), Config, &["embed_dim", "context_dim"]),
        (LDM_YAML, Replace("linear_start: 0.0015", "linear_start: 2"), Config, &["linear_start", "found 2"]),
        (LDM_YAML, Replace("linear_end: 0.0195", "linear_end: .nan"), Config, &["cin256-v2.yaml", "line 6"]),
        (LDM_YAML, Replace("channel_mult: [1, 1, 1, 1]", "channel_mult: []"), Config, &["channel_mult"]),
        (LDM_YAML, Replace("num_heads: 1", "num_heads: 7"), Config, &["num_heads"]),
        (LDM_YAML, Replace("model_channels: 64", "model_channels: 60"), Config, &["model_channels"]),
        (LDM_YAML, Replace("use_ema: False", "use_emu: False"), Config, &["use_emu"]),
        (LDM_YAML, Replace("use_ema: False", "use_ema: 3"), Config, &["use_ema", "3"]),
        (LDM_WEIGHTS, Text(""), Weights, &["model.safetensors", "is empty"]),
        (
            LDM_WEIGHTS,
            Rename(CODEBOOK),
            Weights,
            &["\"first_stage_model.quantize.embedding.weight\"", "missing", CODEBOOK],
        ),
        (LDM_WEIGHTS, Rename(CLASSES), Weights, &["\"embedding.weight\"", "missing", CLASSES]),
        (LDM_WEIGHTS, Tensor(CODEBOOK, Dtype::F16, &[256, 4], small), Weights, &[CODEBOOK, "[256, 4]"]),
        (LDM_WEIGHTS, Tensor(CODEBOOK, Dtype::F16, &[768], small), Weights, &[CODEBOOK, "[768]"]),
        (
            LDM_WEIGHTS,
            Tensor(CODEBOOK, Dtype::I64, &[256, 3], |_| vec![0; 8]),
            Weights,
            &[CODEBOOK, "holds integers"],
        ),
        (
            LDM_WEIGHTS,
            Tensor(CODEBOOK, Dtype::F16, &[256, 3], |index| f16(if index == 5 { f32::NAN } else { 0.0 })),
            Weights,
            &[CODEBOOK, "NaN", "[1, 2]"],
        ),
        (LDM_WEIGHTS, Tensor(CLASSES, Dtype::F16, &[10, 48], small), Weights, &[CLASSES, "[10, 48]"]),
    ]
}

fn vq_rows() -> Vec<Row> {
    use Change::{Key, Remove, Rename, Tensor};
    use Kind::{Config, Weights};
    vec![
        (VQ, Remove, Config, &["vqvae", "config.json"]),
        (VQ_WEIGHTS, Remove, Weights, &["vqvae"]),
        (VQ, Key("/num_vq_embeddings", json!(49)), Weights, &["quantize.embedding.weight", "[49, 3]"]),
        (VQ, Key("/num_vq_embeddings", json!(0)), Config, &["num_vq_embeddings"]),
        (VQ, Key("/num_vq_embeddings", json!(1_u64 << 40)), Config, &["num_vq_embeddings"]),
        (VQ, Key("/vq_embed_dim", json!(4)), Config, &["in_channels", "4 latent channels"]),
        (VQ, Key("/lookup_from_codebook", json!(true)), Config, &["lookup_from_codebook", "true"]),
        (VQ, Key("/norm_type", json!("spatial")), Config, &["norm_type", "spatial"]),
        (VQ, Key("/norm_num_groups", json!(7)), Config, &["norm_num_groups", "7"]),
        (VQ, Key("/block_out_channels", json!([16, 32])), Config, &["block_types"]),
        (VQ, Key("/latent_channels", json!(4)), Config, &["channels", "4"]),
        (VQ, Key("/_class_name", json!("AutoencoderKL")), Config, &["AutoencoderKL", "VQModel"]),
        (VQ_WEIGHTS, Rename("quantize.embedding.weight"), Weights, &["quantize.embedding.weight", "missing"]),
        (
            VQ_WEIGHTS,
            Tensor("quantize.embedding.weight", Dtype::F16, &[48, 3], |_| f16(f32::INFINITY)),
            Weights,
            &["quantize.embedding.weight", "[0, 0]"],
        ),
        (UNET, Key("/num_class_embeds", json!(10)), Config, &["num_class_embeds"]),
        (UNET, Key("/class_embed_type", json!("timestep")), Config, &["class_embed_type"]),
        (UNET, Key("/time_embedding_type", json!("fourier")), Config, &["time_embedding_type", "fourier"]),
        (UNET, Key("/attention_head_dim", json!(7)), Config, &["attention_head_dim", "7"]),
        (
            UNET,
            Key("/down_block_types", json!(["DownBlock2D", "SkipDownBlock2D"])),
            Config,
            &["SkipDownBlock2D"],
        ),
    ]
}

fn original_rows() -> Vec<Row> {
    use Change::{Remove, Rename, Replace, Text};
    use Kind::{Config, Weights};
    vec![
        (ORIGINAL_YAML, Remove, Config, &["ema_small.yaml", "does not exist", "YAML"]),
        (ORIGINAL_YAML, Text("[]"), Config, &["small.yml"]),
        (ORIGINAL_YAML, Replace("ch_mult:", "ch_mul:"), Config, &["ch_mul", "not known"]),
        (ORIGINAL_YAML, Replace("num_res_blocks: 1", "num_res_blocks: 2"), Weights, &["missing"]),
        (
            ORIGINAL_YAML,
            Replace("num_res_blocks: 1", "num_res_blocks: 1.5"),
            Config,
            &["num_res_blocks", "1.5"],
        ),
        (ORIGINAL_YAML, Replace("  ch: 32", "  ch: 33"), Config, &["model.ch", "33"]),
        (ORIGINAL_YAML, Replace("beta_schedule: linear", "beta_schedule: quad"), Config, &["quad", "linear"]),
        (ORIGINAL_YAML, Replace("beta_start: 0.0001", "beta_start: 0"), Config, &["beta_start", "found 0"]),
        (
            ORIGINAL_YAML,
            Replace("logit_transform: false", "logit_transform: true"),
            Config,
            &["logit_transform"],
        ),
        (ORIGINAL_YAML, Replace("data:", "date:"), Config, &["\"data\""]),
        (
            ORIGINAL_WEIGHTS,
            Rename("module.temb.dense.0.bias"),
            Weights,
            &["missing", "module.temb.dense.0.biass"],
        ),
    ]
}

fn check(model: &str, weights: Option<&str>, rows: Vec<Row>) {
    let gpu = gpu();
    let model = Model::of(model);
    let path = weights.map_or_else(|| model.path(), |name| model.path().join(name));
    let load = || DiffusionPipeline::load_on(gpu.clone(), &path, &StorageType::F32.into());
    let mut problems = Vec::new();
    for (number, (file, change, kind, words)) in rows.into_iter().enumerate() {
        model.change(file, &change);
        let name = format!("row {number}, {file}, {words:?}");
        problems.extend(mismatch(soon(&name, load), kind, words).map(|problem| format!("{name}: {problem}")));
        model.restore(file);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    load().expect("the model is whole again");
}

#[test]
fn damaged_latent_diffusion_checkpoints_are_explained() {
    check(LDM, Some(LDM_WEIGHTS), latent_diffusion_rows());
}

#[test]
fn damaged_vector_quantized_models_are_explained() {
    check(VQ_MODEL, None, vq_rows());
}

#[test]
fn damaged_original_ddpm_checkpoints_are_explained() {
    check(ORIGINAL, Some(ORIGINAL_WEIGHTS), original_rows());
}

/// Every place of a configuration, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    if let Value::Object(entries) = value {
        for (key, inner) in entries {
            let place = format!("{at}/{key}");
            places(inner, &place, found);
            found.push(place);
        }
    }
}

/// Every key with every kind of value: refused, or found not to fit, but never a panic. A file of weights is cut off,
/// so that nothing is accepted.
fn sweep(model: &str, weights: &str, path: &dyn Fn(&Path) -> PathBuf, files: &[&str]) {
    let gpu = gpu();
    let model = Model::of(model);
    model.change(weights, &Change::Bytes(|bytes| bytes.truncate(bytes.len() / 2)));
    let values = [json!(null), json!(0), json!(1), json!(-1), json!(1e300), json!("x"), json!([]), json!({})];
    for file in files {
        let text = fs::read_to_string(model.path().join(file)).unwrap();
        let whole: Value = if file.ends_with("json") {
            serde_json::from_str(&text).unwrap()
        } else {
            serde_saphyr::from_str(&text).unwrap()
        };
        let mut pointers = Vec::new();
        places(&whole, "", &mut pointers);
        for pointer in &pointers {
            for value in &values {
                let mut changed = whole.clone();
                *changed.pointer_mut(pointer).unwrap() = value.clone();
                // JSON is YAML too.
                fs::write(model.path().join(file), changed.to_string()).unwrap();
                let name = format!("{file}: {pointer}: {value}");
                let outcome = soon(&name, || {
                    DiffusionPipeline::load_on(gpu.clone(), path(&model.path()), &StorageType::F32.into())
                });
                let message = outcome.map(|_| "was accepted").expect_err(&name).to_string();
                let named =
                    ["json", "yaml", "yml", "safetensors"].iter().any(|ending| message.contains(ending));
                assert!(named, "{name}: {message} names no file");
            }
        }
        model.restore(file);
    }
}

#[test]
fn no_value_of_any_key_of_latent_diffusion_panics() {
    sweep(LDM, LDM_WEIGHTS, &|root| root.join(LDM_WEIGHTS), &[LDM_YAML]);
}

#[test]
fn no_value_of_any_key_of_a_vector_quantized_model_panics() {
    let files = [VQ, UNET, "scheduler/scheduler_config.json", "model_index.json"];
    sweep(VQ_MODEL, VQ_WEIGHTS, &Path::to_owned, &files);
}

#[test]
fn no_value_of_any_key_of_an_original_ddpm_panics() {
    sweep(ORIGINAL, ORIGINAL_WEIGHTS, &|root| root.join(ORIGINAL_WEIGHTS), &[ORIGINAL_YAML]);
}

#[test]
fn sizes_that_a_config_leaves_open_or_wrong_are_asked_for() {
    let gpu = gpu();
    for (folder, weights, file, change) in [
        (VQ_MODEL, None, UNET, Change::Key("/sample_size", Value::Null)),
        (
            ORIGINAL,
            Some(ORIGINAL_WEIGHTS),
            ORIGINAL_YAML,
            Change::Replace("image_size: 16", "image_size: 17"),
        ),
    ] {
        let model = Model::of(folder);
        model.change(file, &change);
        let path = weights.map_or_else(|| model.path(), |name| model.path().join(name));
        let mut pipeline = DiffusionPipeline::load_on(gpu.clone(), path, &StorageType::F32.into()).unwrap();
        let request = Request { steps: Some(1), scheduler: "ddim".parse().ok(), ..Request::unconditional() };
        let outcome = pipeline.generate(&request, |_| ControlFlow::Continue(()));
        if folder == ORIGINAL {
            says(file, outcome, Kind::Option, &["17", "multiple of 2"]);
        } else {
            outcome.expect("there is a usual size");
        }
        let sized = Request { width: Some(32), height: Some(32), ..request };
        pipeline.generate(&sized, |_| ControlFlow::Continue(())).expect("a size that was asked for");
    }
}

#[test]
fn labels_and_schedules_that_cannot_be_honoured_name_the_option() {
    let model = Model::of(LDM);
    let options = LoadOptions { storage: Some(StorageType::F32), ..LoadOptions::default() };
    let mut pipeline = DiffusionPipeline::load(model.path().join(LDM_WEIGHTS), &options).unwrap();
    let small = Request {
        condition: Condition::ClassLabels(vec![3]),
        steps: Some(4),
        scheduler: "ddim".parse().ok(),
        ..Request::unconditional()
    };
    let cache = |schedule| Some(CacheOptions { schedule, ..CacheOptions::uniform(2, 0) });
    let list = |full: &[usize]| cache(CacheSchedule::List(full.to_vec()));
    let centered = |interval, center, power| cache(CacheSchedule::Centered { interval, center, power });
    let labels = |labels: &[usize]| Request {
        condition: Condition::ClassLabels(labels.to_vec()),
        count: labels.len().max(1),
        ..small.clone()
    };
    let cached = |cache| Request { cache, ..small.clone() };
    let rows: Vec<(&str, Request, &[&str])> = vec![
        ("the null class", labels(&[10]), &["class label", "10"]),
        ("no such class", labels(&[3, 11]), &["class label", "11"]),
        ("no label", labels(&[]), &["class label"]),
        ("a label too many", Request { count: 3, ..labels(&[1, 2]) }, &["class label", "2", "3"]),
        ("a prompt", Request { condition: Condition::Nothing, ..small.clone() }, &["class label"]),
        ("no first call", cached(list(&[1, 2])), &["cache schedule", "0"]),
        ("an empty list", cached(list(&[])), &["cache schedule"]),
        ("a falling list", cached(list(&[0, 3, 2])), &["cache schedule", "2"]),
        ("a call twice", cached(list(&[0, 2, 2])), &["cache schedule", "2"]),
        ("a call beyond", cached(list(&[0, 4])), &["cache schedule", "4"]),
        ("no interval", cached(cache(CacheSchedule::Uniform { interval: 0 })), &["cache interval"]),
        ("no centre", cached(centered(2, Some(9), None)), &["cache schedule", "center", "9"]),
        ("no power", cached(centered(2, None, Some(-1.0))), &["cache schedule", "power", "-1"]),
        (
            "no threshold",
            cached(cache(CacheSchedule::Threshold { threshold: f64::NAN })),
            &["cache threshold"],
        ),
        ("no branch", cached(Some(CacheOptions::uniform(2, 12))), &["cache branch", "12", "11"]),
    ];
    for (name, request, words) in rows {
        let outcome = soon(name, || pipeline.generate(&request, |_| ControlFlow::Continue(())));
        says(name, outcome, Kind::Option, words);
    }
}

/// A profile of four calls.
fn profile() -> Value {
    json!({
        "format": "deepcache cache profile", "version": 1, "pictures": 1,
        "subject": {"in_channels": 4, "block_out_channels": [32], "layers_per_block": 2, "scheduler": "ddim",
            "timesteps": [751.0, 501.0, 251.0, 1.0], "guided": true},
        "branches": [{"branch": 0, "shallow_cost": 0.1, "weights": [0.0, 1.0, 1.0, 1.0],
            "distances": [[1.0, 2.0, 3.0], [1.0, 2.0], [1.0], []],
            "trials": [{"full_calls": 2, "placement": "uniform", "reuse": "hold", "expected": 1.0, "measured": 1.5}]}],
    })
}

#[test]
fn damaged_profiles_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.json");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        soon(text, || CacheProfile::read(&path))
    };
    let whole = read(&profile().to_string()).expect("this is a profile");
    whole.plan(Budget::FullCalls(2), None, None).expect("which plans");
    let rows: [(&str, Value, &[&str]); 15] = [
        ("/format", json!("a profile"), &["format"]),
        ("/version", json!(2), &["version", "2"]),
        ("/pictures", json!(-1), &["pictures"]),
        ("/subject/timesteps", json!([]), &["timesteps"]),
        ("/subject/timesteps", json!([1.0, 2.0]), &["weights"]),
        ("/subject/scheduler", json!(3), &["scheduler"]),
        ("/branches", json!([]), &["branch"]),
        ("/branches/0/shallow_cost", json!(0.0), &["shallow_cost"]),
        ("/branches/0/shallow_cost", json!(2.0), &["shallow_cost"]),
        ("/branches/0/weights", json!([0.0, 1.0]), &["weights"]),
        ("/branches/0/weights/1", json!(-1.0), &["weights"]),
        ("/branches/0/distances", json!([[1.0]]), &["distances"]),
        ("/branches/0/distances/0/2", json!(-3.0), &["distances"]),
        ("/branches/0/trials/0/full_calls", json!(9), &["trial", "9"]),
        ("/branches/0/trials/0/measured", json!(-1.0), &["trial"]),
    ];
    for (pointer, value, words) in rows {
        let mut damaged = profile();
        *damaged.pointer_mut(pointer).unwrap() = value;
        says(pointer, read(&damaged.to_string()), Kind::Config, &[&["p.json"], words].concat());
    }
    for text in ["", "{", "[]", "null", "3", "\u{0}"] {
        says(text, read(text), Kind::Config, &["p.json"]);
    }
    says("no file", CacheProfile::read(folder.path().join("none.json")), Kind::Io, &["none.json"]);

    // Every key with every kind of value.
    let mut pointers = Vec::new();
    places(&profile(), "", &mut pointers);
    for pointer in pointers {
        for value in [json!(null), json!(-1), json!(1e300), json!("x"), json!([]), json!({}), json!([[]])] {
            let mut damaged = profile();
            *damaged.pointer_mut(&pointer).unwrap() = value;
            if let Ok(profile) = read(&damaged.to_string()) {
                // What is accepted plans, or says why not.
                let _ = profile.plan(Budget::FullCalls(2), None, None);
                let _ = profile.plan(Budget::Speedup(2.0), None, None);
            }
        }
    }
}
