//! Whole runs of Stable Diffusion in one file, of variants, shards and 8-bit storage, against diffusers.

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

use checkpoints::{changed, convert, write};
use deepcache::Result;
use deepcache::pipelines::{Condition, DiffusionPipeline, Generation, Request, StorageType};
use deepcache::weights::{ModelFiles, Replacements};
use half::f16;
use loops::{GPU, PIXEL_LIMIT, check_loop_of, loops_of, pixels_apart, run};
use malformed::{Kind, says};
use safetensors::Dtype;
use serde_json::json;
use support::{Goldens, assert_close, copy_directory, json, repository};

const SINGLE: &str = "tests/goldens/single/model.safetensors";

fn open(path: &Path, config: Option<&Path>, vae: Option<&Path>) -> Result<DiffusionPipeline> {
    let replacements = Replacements { config: config.map(Path::to_owned), vae: vae.map(Path::to_owned) };
    let files = ModelFiles::open_with(path, &replacements)?;
    DiffusionPipeline::load_files(GPU.clone(), &files, &StorageType::F32.into())
}

fn load(path: &Path, config: Option<&Path>, vae: Option<&Path>) -> DiffusionPipeline {
    open(path, config, vae).unwrap_or_else(|error| panic!("{error}"))
}

/// The model whose shape follows from its tensors; only its small vocabulary is told.
fn load_single(path: &Path) -> DiffusionPipeline {
    load(path, Some(&repository("tests/goldens/single/config")), None)
}

fn request() -> Request {
    let condition = Condition::Prompt {
        prompt: "a photo of a red fox in the snow".to_owned(),
        negative_prompt: "blurry, low quality".to_owned(),
    };
    let side = Some(32);
    Request { condition, steps: Some(6), seed: 5, height: side, width: side, ..Request::unconditional() }
}

fn latents(generation: &Generation) -> Vec<f64> {
    generation.latents.values().iter().map(|&value| f64::from(value)).collect()
}

/// The model of the pack `sd1` as a variant of 16 bits, which is the model of the packs `sd1-fp16` and `sd1-single`.
fn variant(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&repository("tests/goldens/sd1/model"), folder.path());
    for (part, stem) in PARTS {
        let from = folder.path().join(part).join(format!("{stem}.safetensors"));
        let to = folder.path().join(part).join(format!("{stem}.{name}.safetensors"));
        convert(&from, &to, Dtype::F16, |value| f16::from_f32(value).to_le_bytes().to_vec());
        fs::remove_file(from).unwrap();
    }
    folder
}

const PARTS: [(&str, &str); 3] =
    [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")];

#[test]
fn stable_diffusion_2_and_xl_in_one_file_draw_what_diffusers_draws() {
    for pack in ["single-sd2", "single-sdxl"] {
        let folder = repository(&format!("tests/goldens/{pack}"));
        let mut pipeline = load(&folder.join("model.safetensors"), Some(&folder.join("config")), None);
        let generation = run(&mut pipeline, &Request { guidance_scale: Some(7.5), ..request() });
        let goldens = Goldens::open(&format!("{pack}/golden/run.safetensors"));
        assert_close(pack, &latents(&generation), &goldens.values("out.latents"), 5e-4, 2.5e-3);
        let apart = pixels_apart(&generation.pictures[0], &goldens.values("out.image"));
        assert!(apart <= PIXEL_LIMIT, "{pack}: {apart} of 255");
    }
}

#[test]
fn one_file_draws_what_diffusers_draws_without_its_configuration() {
    let cases = json("single/cases.json");
    let mut pipeline = load_single(&repository(SINGLE));
    for case in cases["cases"].as_array().unwrap() {
        let name = case["scheduler"].as_str().unwrap();
        let scheduler = if name == "pndm" { None } else { Some(name.parse().unwrap()) };
        let generation = run(&mut pipeline, &Request { scheduler, ..request() });
        let goldens = Goldens::open(&format!("single/{}", case["file"].as_str().unwrap()));
        assert_close(name, &latents(&generation), &goldens.values("out.latents"), 5e-4, 2.5e-3);
        let apart = pixels_apart(&generation.pictures[0], &goldens.values("out.image"));
        println!("{name}: picture within {apart} of 255");
        assert!(apart <= PIXEL_LIMIT, "{name}: {apart} of 255");
    }
}

#[test]
fn one_file_with_a_configuration_and_the_variant_of_16_bits_agree_with_diffusers() {
    let config = repository("tests/goldens/sd1/model");
    let single = repository("tests/goldens/sd1-single/model.safetensors");
    let folder = variant("fp16");
    let rows = [
        (load(&single, Some(&config), None), ["loop_ddim20", "loop_dc_ddim20_i3_b0", "loop_dc_pndm20_i3_b1"]),
        (load(folder.path(), None, None), ["loop_pndm20", "loop_dc_ddim20_i5_b0", "loop_dc_ddim20_i3_b4"]),
    ];
    for (mut pipeline, names) in rows {
        for case in loops_of("sd1-fp16", |name| names.contains(&name)) {
            check_loop_of("sd1-fp16", &mut pipeline, &case);
        }
    }
}

#[test]
fn shards_draw_what_whole_files_draw() {
    let whole = repository("tests/goldens/sd1/model");
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&whole, folder.path());
    for (part, stem) in PARTS {
        let part = folder.path().join(part);
        let file = part.join(format!("{stem}.safetensors"));
        let tensors = changed(&file, Some);
        let mut map = serde_json::Map::new();
        for (number, half) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
            let name = format!("{stem}-0000{}-of-00002.safetensors", number + 1);
            write(&part.join(&name), half);
            map.extend(half.iter().map(|tensor| (tensor.0.clone(), json!(name))));
        }
        let index = json!({"metadata": {}, "weight_map": map});
        fs::write(part.join(format!("{stem}.safetensors.index.json")), index.to_string()).unwrap();
        fs::remove_file(file).unwrap();
    }
    let drawn = [&whole, folder.path()].map(|path| run(&mut load(path, None, None), &request()).latents);
    assert!(drawn[0] == drawn[1], "shards change something");
}

#[test]
fn storage_of_8_bits_is_converted() {
    // Every value of F8_E5M2 is one of 16 bits, the lower half of which is zero.
    let folder = tempfile::tempdir().unwrap();
    let [eight, sixteen, thirty_two] =
        ["8.safetensors", "bf16.safetensors", "32.safetensors"].map(|name| folder.path().join(name));
    let single = repository(SINGLE);
    let upper = |value: f32| f16::from_f32(value).to_le_bytes()[1];
    let rounded = move |value: f32| f16::from_le_bytes([0, upper(value)]);
    convert(&single, &eight, Dtype::F8_E5M2, |value| vec![upper(value)]);
    convert(&single, &sixteen, Dtype::BF16, |value| {
        half::bf16::from_f32(rounded(value).to_f32()).to_le_bytes().to_vec()
    });
    convert(&single, &thirty_two, Dtype::F32, |value| rounded(value).to_f32().to_le_bytes().to_vec());
    let drawn = [&eight, &sixteen, &thirty_two].map(|path| run(&mut load_single(path), &request()).latents);
    assert!(drawn[0] == drawn[2] && drawn[1] == drawn[2], "8 or 16 bits are other values");
}

#[test]
fn another_vae_decodes() {
    let single = repository(SINGLE);
    let folder = tempfile::tempdir().unwrap();
    let own = run(&mut load_single(&single), &request()).pictures.remove(0);
    let config = repository("tests/goldens/single/config");
    let draw = |model: &Path, vae: &Path| {
        let generation = run(&mut load(model, Some(&config), Some(vae)), &request());
        generation.pictures.into_iter().next().unwrap()
    };
    // 1. the same VAE by itself, under the original names, for a model that has none
    const PREFIX: &str = "first_stage_model.";
    let bare = folder.path().join("bare.safetensors");
    let alone = folder.path().join("vae.safetensors");
    write(&bare, &changed(&single, |stored| (!stored.0.starts_with(PREFIX)).then_some(stored)));
    let named = |(name, dtype, shape, bytes): checkpoints::Stored| {
        Some((name.strip_prefix(PREFIX)?.to_owned(), dtype, shape, bytes))
    };
    write(&alone, &changed(&single, named));
    assert!(draw(&bare, &alone) == own, "a file under the original names");
    assert!(draw(&bare, &single) == own, "the VAE of another checkpoint");
    says("no VAE", open(&bare, Some(&config), None), Kind::Option, &["holds no VAE", "vae"]);
    // 2. that of a diffusers directory, whose pictures are of another size
    let tiny = draw(&single, &repository("assets/tiny"));
    println!("{}x{}", tiny.width, tiny.height);
    // 3. a directory's own, replaced
    let mut replaced = load(&repository("assets/tiny"), None, Some(&repository("assets/tiny/vae")));
    let mut plain = load(&repository("assets/tiny"), None, None);
    let prompt = Request { steps: Some(1), ..Request::prompt("a large red circle") };
    assert_eq!(run(&mut replaced, &prompt).pictures, run(&mut plain, &prompt).pictures, "its own again");
    // 4. what is no VAE
    let text = repository("assets/tiny/text_encoder/model.safetensors");
    says(
        "no VAE",
        open(&single, Some(&config), Some(&text)),
        Kind::Weights,
        &["holds no VAE", "first_stage_model"],
    );
}

#[test]
fn a_directory_without_a_tokenizer_has_the_vocabulary_of_clip() {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&repository("tests/goldens/sd1/model"), folder.path());
    fs::remove_dir_all(folder.path().join("tokenizer")).unwrap();
    // This model was made for fewer tokens.
    let outcome = open(folder.path(), None, None);
    says("vocabulary", outcome, Kind::Config, &["vocab_size", "found 819", "49408 tokens"]);
    // A table of as many tokens as CLIP has, and a configuration that says so.
    let file = folder.path().join("text_encoder/model.safetensors");
    let tensors = changed(&file, |(name, dtype, mut shape, mut bytes)| {
        if name.ends_with("token_embedding.weight") {
            shape[0] = 49408;
            bytes.resize(49408 * shape[1] * 4, 0);
        }
        Some((name, dtype, shape, bytes))
    });
    write(&file, &tensors);
    let file = folder.path().join("text_encoder/config.json");
    let text = fs::read_to_string(&file).unwrap().replace("819", "49408");
    fs::write(&file, text).unwrap();
    let mut pipeline = load(folder.path(), None, None);
    assert!(pipeline.warnings()[0].contains("no folder \"tokenizer\""), "{:?}", pipeline.warnings());
    assert_eq!(run(&mut pipeline, &Request { steps: Some(1), ..request() }).pictures.len(), 1);
}

/// A damage to the single file, and what is said about it.
type Damage =
    (&'static str, fn(checkpoints::Stored) -> Option<checkpoints::Stored>, Kind, &'static [&'static str]);

fn reshaped(stored: checkpoints::Stored, name: &str, shape: &[usize]) -> checkpoints::Stored {
    if stored.0 != name {
        return stored;
    }
    (stored.0, Dtype::F16, shape.to_vec(), vec![0; 2 * shape.iter().product::<usize>()])
}

fn without(stored: checkpoints::Stored, start: &str) -> Option<checkpoints::Stored> {
    (!stored.0.starts_with(start)).then_some(stored)
}

#[test]
fn damaged_files_are_explained_by_their_own_names() {
    let rows: [Damage; 10] = [
        (
            "a tensor of the U-Net",
            |stored| without(stored, "model.diffusion_model.output_blocks.1.1.conv.bias"),
            Kind::Weights,
            &["tensor \"model.diffusion_model.output_blocks.1.1.conv.bias\"", "is missing"],
        ),
        (
            "a tensor of attention",
            |stored| {
                without(stored, "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q")
            },
            Kind::Weights,
            &["tensor \"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight\""],
        ),
        (
            "a tensor of the VAE",
            |stored| without(stored, "first_stage_model.decoder.up.1.upsample.conv.weight"),
            Kind::Weights,
            &["tensor \"first_stage_model.decoder.up.1.upsample.conv.weight\": is missing"],
        ),
        (
            "the VAE's attention",
            |stored| without(stored, "first_stage_model.decoder.mid.attn_1.q.weight"),
            Kind::Weights,
            &["tensor \"first_stage_model.decoder.mid.attn_1.q.weight\": is missing"],
        ),
        (
            "a tensor of the text encoder",
            |stored| without(stored, "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2"),
            Kind::Weights,
            &[
                "tensor \"cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.weight\": is missing",
            ],
        ),
        (
            "the table of tokens",
            |stored| without(stored, "cond_stage_model.transformer.text_model.embeddings.token_embedding"),
            Kind::Weights,
            &["cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "is missing"],
        ),
        (
            "a wrong shape",
            |stored| Some(reshaped(stored, "model.diffusion_model.out.2.bias", &[5])),
            Kind::Weights,
            &["model.diffusion_model.out.2.bias", "[5]", "expected [4]"],
        ),
        (
            "a vector where a convolution was",
            |stored| {
                Some(reshaped(stored, "model.diffusion_model.input_blocks.1.0.in_layers.2.weight", &[32]))
            },
            Kind::Weights,
            &["model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "[32]"],
        ),
        (
            "nothing where a convolution was",
            |stored| Some(reshaped(stored, "model.diffusion_model.input_blocks.0.0.weight", &[0, 4, 3, 3])),
            Kind::Weights,
            &["model.diffusion_model.input_blocks.0.0.weight", "[0, 4, 3, 3]"],
        ),
        (
            "another width of the context",
            |stored| {
                let name = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight";
                Some(reshaped(stored, name, &[64, 48]))
            },
            Kind::Weights,
            &["cross_attention_dim", "found 48", "the text encoder makes 64"],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("model.safetensors");
    let config = repository("tests/goldens/single/config");
    for (name, damage, kind, words) in rows {
        write(&path, &changed(&repository(SINGLE), damage));
        let words: Vec<&str> = words.iter().copied().chain(["model.safetensors"]).collect();
        says(name, open(&path, Some(&config), None), kind, &words);
    }
    let whole = fs::read(repository(SINGLE)).unwrap();
    for length in [0, 7, 8, 100, 1 << 16, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        says(
            &format!("{length} bytes"),
            open(&path, Some(&config), None),
            Kind::Weights,
            &["model.safetensors"],
        );
    }
}
