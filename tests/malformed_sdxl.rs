//! Malformed Stable Diffusion 2 and SDXL directories: every row ends in an error that names the file and the key.

#[path = "support/malformed.rs"]
mod support;

use std::ops::ControlFlow;

use deepcache::pipelines::{DiffusionPipeline, Request, StorageType};
use serde_json::{Value, json};
use support::{Change, Kind, Model, gpu, mismatch, says, soon};

const SDXL: &str = "tests/goldens/sdxl/model";
const SD2: &str = "tests/goldens/sd2/model";
const INDEX: &str = "model_index.json";
const UNET: &str = "unet/config.json";
const TEXT_2: &str = "text_encoder_2/config.json";
const TEXT_2_WEIGHTS: &str = "text_encoder_2/model.fp16.safetensors";
const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.fp16.safetensors";

/// File, change, kind of error, words of its sentence.
type Row = (&'static str, Change, Kind, &'static [&'static str]);

fn check(folder: &str, rows: Vec<Row>) {
    let gpu = gpu();
    let model = Model::of(folder);
    let load = || DiffusionPipeline::load_on(gpu.clone(), model.path(), &StorageType::F32.into());
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
fn damaged_sdxl_models_are_explained() {
    use Change::{Key, Remove, Rename, Replace};
    use Kind::{Config, Weights};
    check(
        SDXL,
        vec![
            (INDEX, Key("/text_encoder_2", json!([null, null])), Config, &["text_encoder_2", "null"]),
            (
                INDEX,
                Key("/text_encoder_2", json!(["transformers", "CLIPTextModel"])),
                Config,
                &["text_encoder_2", "CLIPTextModelWithProjection"],
            ),
            (INDEX, Replace("\"tokenizer_2\"", "\"tokenizer_3\""), Config, &["tokenizer_2", "missing"]),
            (
                INDEX,
                Key("/force_zeros_for_empty_prompt", json!("yes")),
                Config,
                &["force_zeros_for_empty_prompt", "yes"],
            ),
            (TEXT_2, Remove, Config, &["text_encoder_2", "config.json"]),
            (
                TEXT_2,
                Key("/hidden_size", json!(40)),
                Config,
                &["cross_attention_dim", "found 56", "24 and 40"],
            ),
            (
                TEXT_2,
                Key("/projection_dim", json!(32)),
                Config,
                &[
                    "unet/config.json",
                    "projection_class_embeddings_input_dim",
                    "found 136",
                    "32 and 6 times 16",
                ],
            ),
            (TEXT_2, Key("/projection_dim", Value::Null), Config, &["projection_dim", "null"]),
            (TEXT_2, Key("/vocab_size", json!(800)), Config, &[TEXT_2, "vocab_size", "819"]),
            (
                TEXT_2_WEIGHTS,
                Rename("text_projection.weight"),
                Weights,
                &["text_projection.weight", "missing"],
            ),
            // A refiner's U-Net reads five numbers for every picture.
            (
                UNET,
                Key("/projection_class_embeddings_input_dim", json!(120)),
                Config,
                &["projection_class_embeddings_input_dim", "found 120", "refiners"],
            ),
            (UNET, Key("/addition_embed_type", Value::Null), Config, &["addition_time_embed_dim", "null"]),
            (
                UNET,
                Key("/addition_time_embed_dim", json!(0)),
                Config,
                &["addition_time_embed_dim", "found 0"],
            ),
            (
                UNET,
                Key("/transformer_layers_per_block", json!([1, 2])),
                Config,
                &[UNET, "transformer_layers_per_block", "found 2 entries"],
            ),
            (
                UNET,
                Key("/transformer_layers_per_block", json!([1, 2, 4])),
                Weights,
                &["transformer_blocks.3"],
            ),
            (UNET, Key("/time_cond_proj_dim", json!(256)), Weights, &["time_embedding.cond_proj.weight"]),
            (
                UNET_WEIGHTS,
                Rename("add_embedding.linear_1.weight"),
                Weights,
                &["add_embedding.linear_1.weight"],
            ),
            (
                "tokenizer_2/tokenizer_config.json",
                Key("/model_max_length", json!(60)),
                Config,
                &["tokenizer_2", "model_max_length", "found 60", "77"],
            ),
        ],
    );
}

#[test]
fn damaged_stable_diffusion_2_models_are_explained() {
    use Change::Key;
    use Kind::Config;
    check(
        SD2,
        vec![
            (UNET, Key("/attention_head_dim", json!([2, 3, 4])), Config, &[UNET, "attention_head_dim", "3"]),
            (UNET, Key("/attention_head_dim", json!([2, 5, 4, 5])), Config, &[UNET, "5 heads", "24"]),
            (UNET, Key("/use_linear_projection", json!("yes")), Config, &["use_linear_projection", "yes"]),
            ("text_encoder/config.json", Key("/hidden_act", json!("relu")), Config, &["hidden_act", "relu"]),
            (
                "scheduler/scheduler_config.json",
                Key("/prediction_type", json!("flow_prediction")),
                Config,
                &["prediction_type", "flow_prediction"],
            ),
        ],
    );
}

#[test]
fn sizes_are_for_models_that_are_told_them() {
    let small = Request { steps: Some(1), width: Some(16), height: Some(16), ..Request::prompt("a fox") };
    for (folder, size, words) in [(SD2, 64, "not told sizes"), (SDXL, 100_000, "above 16384")] {
        let model = Model::of(folder);
        let mut pipeline = DiffusionPipeline::load_on(gpu(), model.path(), &StorageType::F32.into()).unwrap();
        let request = Request { original_size: Some([size, 64]), ..small.clone() };
        let outcome = pipeline.generate(&request, |_| ControlFlow::Continue(()));
        says(folder, outcome, Kind::Option, &["original size", words]);
    }
}
