//! Malformed Stable Diffusion models: every row ends in an error that names what is wrong, soon and without a panic.

#[path = "support/malformed.rs"]
mod support;

use std::fs;
use std::path::Path;

use deepcache::pipelines::{DiffusionPipeline, LoadOptions, StorageType};
use safetensors::Dtype;
use serde_json::{Value, json};
use support::{Change, Kind, Model, f16, gpu, mismatch, says, soon};

/// Name, file, change, kind of error, words of its sentence.
type FileRow = (&'static str, &'static str, Change, Kind, &'static [&'static str]);

const INDEX: &str = "model_index.json";
const CLIP: &str = "text_encoder/config.json";
const UNET: &str = "unet/config.json";
const VAE: &str = "vae/config.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";
const CLIP_WEIGHTS: &str = "text_encoder/model.safetensors";
const UNET_WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE_WEIGHTS: &str = "vae/diffusion_pytorch_model.safetensors";
const FIRST_BIAS: &str = "encoder.layers.0.layer_norm1.bias";

fn weight_rows() -> Vec<FileRow> {
    use Change::{Bytes, Copy, Header, Rename, Tensor, Text};
    use Kind::Weights;
    vec![
        ("no bytes", CLIP_WEIGHTS, Text(""), Weights, &["model.safetensors", "is empty"]),
        ("three bytes", CLIP_WEIGHTS, Text("abc"), Weights, &["model.safetensors", "3 bytes", "8"]),
        (
            "a cut header",
            CLIP_WEIGHTS,
            Bytes(|b| b.truncate(100)),
            Weights,
            &["header of 3640 bytes", "92 follow"],
        ),
        (
            "a header longer than the file",
            CLIP_WEIGHTS,
            Bytes(|b| b[4] = 1),
            Weights,
            &["claims a header of", "follow"],
        ),
        (
            "the longest header",
            CLIP_WEIGHTS,
            Bytes(|b| b[..8].fill(255)),
            Weights,
            &["18446744073709551615 bytes"],
        ),
        ("a header that is not JSON", CLIP_WEIGHTS, Bytes(|b| b[8] = b'x'), Weights, &["not JSON"]),
        ("a header that is not text", CLIP_WEIGHTS, Bytes(|b| b[9] = 255), Weights, &["not text"]),
        (
            "a header of something else",
            CLIP_WEIGHTS,
            Bytes(|b| *b = b"\x07\0\0\0\0\0\0\0{\"a\":1}".to_vec()),
            Weights,
            &["does not describe tensors"],
        ),
        (
            "cut values",
            CLIP_WEIGHTS,
            Bytes(|b| b.truncate(b.len() - 1)),
            Weights,
            &["962559 bytes", "962560", "cut off"],
        ),
        ("bytes behind the values", CLIP_WEIGHTS, Bytes(|b| b.push(0)), Weights, &["962561 bytes", "962560"]),
        (
            "a Git LFS pointer",
            UNET_WEIGHTS,
            Text("version https://git-lfs.github.com/spec/v1\n"),
            Weights,
            &["git lfs pull"],
        ),
        (
            "offsets beyond the file",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/data_offsets/1", json!(1_000_000_000)),
            Weights,
            &["model.safetensors", "final_layer_norm.weight"],
        ),
        (
            "offsets that overlap",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/data_offsets/0", json!(0)),
            Weights,
            &["final_layer_norm", "offsets", "damaged"],
        ),
        (
            "offsets backwards",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/data_offsets", json!([962_560, 962_304])),
            Weights,
            &["final_layer_norm", "offsets"],
        ),
        (
            "offsets below zero",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/data_offsets/0", json!(-1)),
            Weights,
            &["does not describe tensors", "-1"],
        ),
        (
            "a shape of other size",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/shape", json!([129])),
            Weights,
            &["final_layer_norm.weight", "[129]", "258 bytes", "256 apart"],
        ),
        (
            "a shape beyond counting",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/shape", json!([1_u64 << 40, 1_u64 << 40])),
            Weights,
            &["final_layer_norm.weight", "absurd shape"],
        ),
        (
            "a huge shape",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/shape", json!([1_u64 << 50])),
            Weights,
            &["final_layer_norm.weight", "1125899906842624"],
        ),
        (
            "an unknown type",
            CLIP_WEIGHTS,
            Header("/final_layer_norm.weight/dtype", json!("F17")),
            Weights,
            &["does not describe tensors", "F17"],
        ),
        (
            "an unsupported type",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F64, &[128], |_| vec![0; 8]),
            Weights,
            &[FIRST_BIAS, "F64", "supported are F32, F16, BF16"],
        ),
        (
            "integers",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::I32, &[128], |_| vec![0; 4]),
            Weights,
            &[FIRST_BIAS, "holds integers", "F16"],
        ),
        (
            "a wrong shape",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F16, &[64], |_| f16(0.0)),
            Weights,
            &[FIRST_BIAS, "[64]", "expected [128]"],
        ),
        (
            "a wrong rank",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F16, &[128, 1], |_| f16(0.0)),
            Weights,
            &[FIRST_BIAS, "[128, 1]", "expected [128]"],
        ),
        (
            "no values",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F16, &[0], |_| f16(0.0)),
            Weights,
            &[FIRST_BIAS, "[0]", "expected [128]"],
        ),
        ("another name", CLIP_WEIGHTS, Rename(FIRST_BIAS), Weights, &[FIRST_BIAS, "is missing", "there is"]),
        (
            "NaN",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F16, &[128], |i| f16(if i == 7 { f32::NAN } else { 0.0 })),
            Weights,
            &[FIRST_BIAS, "not finite (NaN) at [7]"],
        ),
        (
            "infinity",
            CLIP_WEIGHTS,
            Tensor(FIRST_BIAS, Dtype::F16, &[128], |i| f16(if i == 9 { f32::INFINITY } else { 0.0 })),
            Weights,
            &[FIRST_BIAS, "not finite (infinity) at [9]"],
        ),
        (
            "the text encoder as U-Net",
            UNET_WEIGHTS,
            Copy(CLIP_WEIGHTS),
            Weights,
            &["unet", "time_embedding.linear_1.weight", "is missing"],
        ),
        ("the U-Net as VAE", VAE_WEIGHTS, Copy(UNET_WEIGHTS), Weights, &["vae", "holds no VAE"]),
        (
            "only a pickle",
            UNET_WEIGHTS,
            Change::Remove,
            Weights,
            &["unet", "looked for diffusion_pytorch_model.safetensors"],
        ),
    ]
}

fn config_rows() -> Vec<FileRow> {
    use Change::{Key, Remove, Text};
    use Kind::{Config, Io, Option, Weights};
    vec![
        ("not JSON", UNET, Text("{"), Config, &["unet", "config.json", "is not JSON"]),
        ("no object", VAE, Text("[1]"), Config, &["vae", "config.json", "is not a JSON object"]),
        (
            "not text",
            CLIP,
            Change::Bytes(|b| b[0] = 255),
            Io,
            &["text_encoder", "config.json", "cannot read"],
        ),
        (
            "nested beyond reason",
            UNET,
            Change::Bytes(|b| *b = vec![b'['; 1 << 20]),
            Config,
            &["config.json", "is not JSON"],
        ),
        ("no file", VAE, Remove, Config, &["vae", "config.json", "does not exist"]),
        (
            "an unknown key",
            UNET,
            Key("/novelty", json!(1)),
            Config,
            &["config.json", "\"novelty\"", "not known"],
        ),
        (
            "SDXL's key",
            UNET,
            Key("/addition_embed_type", json!("text_time")),
            Config,
            &["\"addition_time_embed_dim\"", "expected a positive integer"],
        ),
        (
            "an unknown block",
            UNET,
            Key("/down_block_types/0", json!("AttnDownBlock2D")),
            Config,
            &["\"down_block_types\"", "AttnDownBlock2D", "CrossAttnDownBlock2D"],
        ),
        (
            "zero channels",
            UNET,
            Key("/in_channels", json!(0)),
            Config,
            &["\"in_channels\"", "found 0", "positive"],
        ),
        (
            "negative channels",
            UNET,
            Key("/in_channels", json!(-4)),
            Config,
            &["\"in_channels\"", "found -4", "positive"],
        ),
        ("half a channel", UNET, Key("/in_channels", json!(4.5)), Config, &["\"in_channels\"", "4.5"]),
        (
            "absurd channels",
            UNET,
            Key("/block_out_channels/0", json!(1_u64 << 40)),
            Config,
            &["\"block_out_channels\"", "at most 65536"],
        ),
        (
            "large channels",
            VAE,
            Key("/block_out_channels/0", json!(65_536)),
            Weights,
            &["vae", "decoder", "expected", "65536"],
        ),
        (
            "too few levels",
            UNET,
            Key("/block_out_channels", json!([32])),
            Config,
            &["\"block_out_channels\"", "1 levels"],
        ),
        (
            "text for a number",
            UNET,
            Key("/layers_per_block", json!("2")),
            Config,
            &["\"layers_per_block\"", "\"2\""],
        ),
        (
            "absurd layers",
            UNET,
            Key("/layers_per_block", json!(65)),
            Config,
            &["\"layers_per_block\"", "at most 64"],
        ),
        (
            "more layers than weights",
            UNET,
            Key("/layers_per_block", json!(3)),
            Weights,
            &["unet", "is missing"],
        ),
        (
            "heads that do not divide",
            UNET,
            Key("/attention_head_dim", json!(3)),
            Config,
            &["\"attention_head_dim\"", "3 heads"],
        ),
        (
            "groups that do not divide",
            VAE,
            Key("/norm_num_groups", json!(5)),
            Config,
            &["\"norm_num_groups\"", "found 5", "divide"],
        ),
        (
            "a scaling factor of zero",
            VAE,
            Key("/scaling_factor", json!(0)),
            Config,
            &["\"scaling_factor\"", "found 0", "positive"],
        ),
        (
            "an activation of another kind",
            CLIP,
            Key("/hidden_act", json!("relu")),
            Config,
            &["\"hidden_act\"", "relu", "quick_gelu or gelu"],
        ),
        ("another text encoder", CLIP, Key("/model_type", json!("t5")), Config, &["\"model_type\"", "t5"]),
        (
            "absurd text layers",
            CLIP,
            Key("/num_hidden_layers", json!(1024)),
            Weights,
            &["text_encoder", "layers.2", "is missing"],
        ),
        (
            "an epsilon of one",
            CLIP,
            Key("/layer_norm_eps", json!(1.0)),
            Config,
            &["\"layer_norm_eps\"", "found 1"],
        ),
        (
            "a U-Net for another text encoder",
            UNET,
            Key("/cross_attention_dim", json!(768)),
            Config,
            &["\"cross_attention_dim\"", "768", "the text encoder makes 128"],
        ),
        (
            "a U-Net for another VAE",
            UNET,
            Key("/in_channels", json!(8)),
            Config,
            &["\"in_channels\"", "found 8 in and 4 out", "4 latent channels", "9 in for inpainting"],
        ),
        (
            "a tokenizer longer than the positions",
            "tokenizer/tokenizer_config.json",
            Key("/model_max_length", json!(77)),
            Config,
            &["\"max_position_embeddings\"", "found 24", "77"],
        ),
        (
            "a tokenizer larger than the vocabulary",
            CLIP,
            Key("/vocab_size", json!(600)),
            Config,
            &["\"vocab_size\"", "found 600", "636 tokens"],
        ),
        ("no model_index.json", INDEX, Remove, Option, &["model", "holds no model", "model_index.json"]),
        ("a damaged model_index.json", INDEX, Text("nonsense"), Config, &["model_index.json", "is not JSON"]),
        (
            "a pipeline that edits by instructions",
            INDEX,
            Key("/_class_name", json!("StableDiffusionInstructPix2PixPipeline")),
            Config,
            &[
                "\"_class_name\"",
                "StableDiffusionInstructPix2PixPipeline",
                "supported are StableDiffusionPipeline",
            ],
        ),
        (
            "SDXL",
            INDEX,
            Key("/_class_name", json!("StableDiffusion3Pipeline")),
            Config,
            &["\"_class_name\"", "found \"StableDiffusion3Pipeline\""],
        ),
        (
            "another VAE",
            INDEX,
            Key("/vae/1", json!("AutoencoderTiny")),
            Config,
            &["\"vae\"", "AutoencoderTiny", "AutoencoderKL"],
        ),
        (
            "a damaged tokenizer.json",
            "tokenizer/tokenizer.json",
            Text("{\"model\": "),
            Config,
            &["tokenizer.json", "is not JSON"],
        ),
        (
            "a tokenizer of another kind",
            "tokenizer/tokenizer.json",
            Key("/model/type", json!("WordPiece")),
            Config,
            &["tokenizer.json", "BPE", "WordPiece"],
        ),
        (
            "an id without place",
            "tokenizer/tokenizer.json",
            Key("/model/vocab/a", json!(70_000)),
            Config,
            &["tokenizer.json", "70000"],
        ),
        (
            "a merge of nothing",
            "tokenizer/tokenizer.json",
            Key("/model/merges/0", json!("one")),
            Config,
            &["merge 0", "two tokens"],
        ),
        (
            "a negative length",
            "tokenizer/tokenizer_config.json",
            Key("/model_max_length", json!(-1)),
            Config,
            &["\"model_max_length\"", "found -1"],
        ),
        ("a damaged scheduler", SCHEDULER, Text("}"), Config, &["scheduler_config.json", "is not JSON"]),
        (
            "an unknown key of a scheduler",
            SCHEDULER,
            Key("/novelty", json!(1)),
            Config,
            &["scheduler_config.json", "\"novelty\""],
        ),
        (
            "no training timesteps",
            SCHEDULER,
            Key("/num_train_timesteps", json!(0)),
            Config,
            &["\"num_train_timesteps\"", "found 0"],
        ),
        (
            "absurd training timesteps",
            SCHEDULER,
            Key("/num_train_timesteps", json!(1_u64 << 60)),
            Config,
            &["\"num_train_timesteps\"", "1 to 1000000"],
        ),
        ("negative noise", SCHEDULER, Key("/beta_start", json!(-0.1)), Config, &["\"beta_start\"", "-0.1"]),
        (
            "an unknown noise schedule",
            SCHEDULER,
            Key("/beta_schedule", json!("cubic")),
            Config,
            &["\"beta_schedule\"", "cubic", "scaled_linear"],
        ),
    ]
}

#[test]
fn damaged_models_are_explained() {
    let gpu = gpu();
    let model = Model::new();
    let mut problems = Vec::new();
    for (name, file, change, kind, words) in weight_rows().into_iter().chain(config_rows()) {
        model.change(file, &change);
        for storage in [StorageType::F32, StorageType::F16] {
            if storage == StorageType::F16 && !gpu.has_f16() {
                continue;
            }
            let outcome =
                soon(name, || DiffusionPipeline::load_on(gpu.clone(), model.path(), &storage.into()));
            problems.extend(
                mismatch(outcome, kind, words).map(|problem| format!("{name}, {storage}: {problem}")),
            );
        }
        model.restore(file);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    DiffusionPipeline::load_on(gpu, model.path(), &LoadOptions::default()).expect("the model is whole again");
}

#[test]
fn halves_that_would_overflow_are_refused_as_halves_only() {
    let gpu = gpu();
    let model = Model::new();
    let large = Change::Tensor("encoder.layers.0.mlp.fc1.weight", Dtype::F32, &[512, 128], |index| {
        if index == 3 { 70_000_f32 } else { 0.0 }.to_le_bytes().to_vec()
    });
    model.change(CLIP_WEIGHTS, &large);
    let load = |storage: StorageType| DiffusionPipeline::load_on(gpu.clone(), model.path(), &storage.into());
    load(StorageType::F32).expect("an f32 holds 70000");
    let words = ["text_encoder", "mlp.fc1.weight", "70000 at [0, 3]", "65504", "use f32"];
    if gpu.has_f16() {
        says("a value beyond f16", load(StorageType::F16), Kind::Weights, &words);
    } else {
        says("no f16", load(StorageType::F16), Kind::Option, &["dtype", "use f32"]);
    }
}

#[test]
fn what_is_no_model_is_explained() {
    let model = Model::new();
    let root = model.path();
    fs::create_dir(root.join("empty")).unwrap();
    let load = |path: &Path| soon("a path", || DiffusionPipeline::load(path, &LoadOptions::default()));
    says("nothing", load(&root.join("nothing")), Kind::Option, &["model", "nothing", "does not exist"]);
    says("a file", load(&root.join(INDEX)), Kind::Option, &["model", "is not a checkpoint", ".safetensors"]);
    says("a file within", load(&root.join(UNET)), Kind::Option, &["is not a checkpoint"]);
    says("an empty folder", load(&root.join("empty")), Kind::Option, &["is empty", "model_index.json"]);
    fs::rename(root.join(UNET_WEIGHTS), root.join("unet/diffusion_pytorch_model.bin")).unwrap();
    says("another name", load(&root), Kind::Weights, &["looked for", "there is diffusion_pytorch_model.bin"]);
    fs::write(root.join("unet/old.bin"), b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    says("a pickle", load(&root), Kind::Weights, &["old.bin", "PyTorch pickle", "Convert it"]);
    fs::remove_dir_all(root.join("tokenizer")).unwrap();
    fs::rename(root.join("unet/diffusion_pytorch_model.bin"), root.join(UNET_WEIGHTS)).unwrap();
    // That of CLIP takes its place, whose prompts are longer than those of this model.
    says("no tokenizer", load(&root), Kind::Config, &["text_encoder", "found 24", "the tokenizer makes 77"]);
}

/// Every key of every configuration with every kind of value: refused, or found not to fit, but never a panic. The
/// VAE's weights are cut off, so that nothing is accepted.
#[test]
fn no_value_of_any_key_panics() {
    let gpu = gpu();
    let model = Model::new();
    model.change(VAE_WEIGHTS, &Change::Bytes(|bytes| bytes.truncate(1 << 20)));
    let values = [json!(null), json!(0), json!(1), json!(-1), json!(1e300), json!([]), json!({})];
    for file in [
        UNET,
        VAE,
        CLIP,
        SCHEDULER,
        "tokenizer/tokenizer_config.json",
        "tokenizer/special_tokens_map.json",
        INDEX,
    ] {
        let whole: Value = serde_json::from_slice(&fs::read(model.path().join(file)).unwrap()).unwrap();
        for key in whole.as_object().unwrap().keys() {
            for value in &values {
                let mut changed = whole.clone();
                changed[key] = value.clone();
                fs::write(model.path().join(file), changed.to_string()).unwrap();
                let name = format!("{file}: {key}: {value}");
                let outcome = soon(&name, || {
                    DiffusionPipeline::load_on(gpu.clone(), model.path(), &StorageType::F32.into())
                });
                let message = outcome.expect_err(&name).to_string();
                assert!(
                    message.contains("json") || message.contains("safetensors"),
                    "{name}: {message} names no file"
                );
            }
        }
        model.restore(file);
    }
}
