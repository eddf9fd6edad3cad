//! Tiny autoencoders (TAESD) against diffusers: decodes, every kind of file, and a run that ends with one.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, reason = "values fit their storage")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/loops.rs"]
mod loops;
#[path = "support/network.rs"]
mod network;
mod support;

use std::path::{Path, PathBuf};

use deepcache::models::tiny_autoencoder::{TinyAutoencoderConfig, TinyDecoder};
use deepcache::pipelines::{DiffusionPipeline, LoadOptions, Request, StorageType, VaeTiling};
use deepcache::schedulers::SchedulerKind;
use deepcache::tensor::ElementType;
use deepcache::weights::{Checkpoint, Replacements};
use loops::{GPU, PIXEL_LIMIT, load, number, pixels_apart, run};
use network::{Rig, channels_last};
use serde_json::{Value, json};
use support::{Goldens, assert_close, copy_directory, repository};

const MODEL: &str = "tests/goldens/sd1/model";
const PACK: &str = "tests/goldens/tiny_autoencoder";

fn directory() -> PathBuf {
    repository(PACK).join("model")
}

fn original() -> PathBuf {
    repository(PACK).join("taesd_decoder.safetensors")
}

fn weights() -> PathBuf {
    directory().join("diffusion_pytorch_model.safetensors")
}

/// A file with other names, in a folder of its own.
fn renamed(from: &Path, folder: &Path, name: impl Fn(&str) -> Option<String>) -> PathBuf {
    let tensors =
        checkpoints::changed(from, |(old, dtype, shape, bytes)| Some((name(&old)?, dtype, shape, bytes)));
    let path = folder.join("renamed.safetensors");
    checkpoints::write(&path, &tensors);
    path
}

#[test]
fn decodes_and_their_stages_agree_with_diffusers_from_every_kind_of_file() {
    let goldens = Goldens::open("tiny_autoencoder/decode.safetensors");
    let config = TinyAutoencoderConfig::from_file(directory().join("config.json")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let prefixed = renamed(&original(), folder.path(), |name| Some(format!("taesd_decoder.{name}")));
    for (element, relative, absolute) in [(ElementType::F32, 5e-5, 2.5e-4), (ElementType::F16, 1e-2, 5e-2)] {
        for file in [weights(), original(), prefixed.clone()] {
            let checkpoint = Checkpoint::open(std::slice::from_ref(&file)).unwrap();
            let checkpoint = checkpoint.into_tiny_decoder().unwrap();
            assert_eq!(
                TinyAutoencoderConfig::from_tensors(&checkpoint).unwrap(),
                config,
                "{}",
                file.display()
            );
            let mut rig = Rig::new(element);
            let decoder =
                rig.load(&checkpoint, |file, loader| TinyDecoder::load(config.clone(), file, loader));
            for case in 0..2 {
                let latents = rig.input(&channels_last(&goldens.tensor(&format!("{case}.latents"))));
                let mut recording = rig.recording("vae");
                let output = decoder.record(&mut recording, &latents).unwrap();
                let found = rig.play(recording, Some(&output));
                let image = goldens.values(&format!("{case}.image"));
                let what = format!("{element} image {case}");
                assert_close(&what, &found["output"], &image, relative, absolute);
                let stages = goldens.names();
                let prefix = format!("{case}.stage.");
                for stage in stages.iter().filter_map(|name| name.strip_prefix(&prefix)) {
                    let expected = goldens.values(&format!("{prefix}{stage}"));
                    let mark = &found[&format!("decoder.layers.{stage}")];
                    assert_close(&format!("{element} stage {stage}"), mark, &expected, relative, absolute);
                }
            }
        }
    }
}

/// The request of the golden run.
fn request() -> Request {
    let case = support::json("tiny_autoencoder/cases.json");
    Request {
        steps: Some(number(&case["steps"])),
        guidance_scale: case["guidance_scale"].as_f64(),
        seed: case["seed"].as_u64().unwrap(),
        height: Some(number(&case["height"])),
        width: Some(number(&case["width"])),
        ..Request::prompt(case["prompt"].as_str().unwrap())
    }
}

fn with_vae(path: &Path, options: LoadOptions) -> deepcache::Result<DiffusionPipeline> {
    let replacements = Replacements { vae: Some(path.to_owned()), ..Replacements::default() };
    let options = LoadOptions { storage: Some(StorageType::F32), replacements, ..options };
    DiffusionPipeline::load_on(GPU.clone(), repository(MODEL), &options)
}

/// Checks a run of the golden request.
fn check(pipeline: &mut DiffusionPipeline) {
    let goldens = Goldens::open("tiny_autoencoder/loop.safetensors");
    let generation = run(pipeline, &request());
    let found: Vec<f64> = generation.latents.values().iter().map(|&value| value.into()).collect();
    assert_close("latents", &found, &goldens.values("latents"), 5e-4, 2.5e-3);
    let apart = pixels_apart(&generation.pictures[0], &goldens.values("image"));
    assert!(apart <= PIXEL_LIMIT, "{apart} of 255");
}

#[test]
fn a_run_that_ends_with_one_agrees_with_diffusers() {
    for path in [directory(), original(), weights()] {
        check(&mut with_vae(&path, LoadOptions::default()).unwrap());
    }
    check(&mut with_vae(&original(), LoadOptions { low_memory: true, ..LoadOptions::default() }).unwrap());

    let copy = tempfile::tempdir().unwrap();
    copy_directory(&repository(MODEL), copy.path());
    let vae = copy.path().join("vae");
    std::fs::remove_dir_all(&vae).unwrap();
    copy_directory(&directory(), &vae);
    let index = copy.path().join("model_index.json");
    let mut entries: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    entries["vae"] = json!(["diffusers", "AutoencoderTiny"]);
    std::fs::write(&index, entries.to_string()).unwrap();
    check(&mut load(copy.path(), StorageType::F32));
}

#[test]
fn it_decodes_in_tiles_whose_middles_are_the_same() {
    let mut pipeline = with_vae(&original(), LoadOptions::default()).unwrap();
    let large =
        Request { steps: Some(1), width: Some(640), scheduler: Some(SchedulerKind::Ddim), ..request() };
    let whole = run(&mut pipeline, &large);
    let tiled = run(&mut pipeline, &Request { vae_tiling: VaeTiling::Always, ..large });
    assert_eq!(whole.statistics.vae_tile, None, "the device can bind the whole");
    assert_eq!(tiled.statistics.vae_tile, Some(64), "512 pixels");
    assert_eq!(whole.latents, tiled.latents);
    let [whole, tiled] = [&whole.pictures[0], &tiled.pictures[0]];
    // Without norms and attention, a pixel sees only some latents around it: what no seam is near is the same.
    let far = |index: &usize| index / 3 % 640 < 256;
    let apart = (0..whole.pixels.len()).filter(far).map(|at| whole.pixels[at].abs_diff(tiled.pixels[at]));
    assert_eq!(apart.max(), Some(0), "far from the seam");
}

#[test]
fn files_that_hold_no_decoder_are_refused_by_what_they_hold() {
    let folder = tempfile::tempdir().unwrap();
    let encoder =
        renamed(&weights(), folder.path(), |name| Some(name.strip_prefix("encoder.layers.")?.to_owned()));
    let told = with_vae(&encoder, LoadOptions::default()).unwrap_err().to_string();
    assert!(
        told.contains("the encoder of a tiny autoencoder") && told.contains("renamed.safetensors"),
        "{told}"
    );

    let lacks = tempfile::tempdir().unwrap();
    let lacks = renamed(&original(), lacks.path(), |name| (name != "8.conv.4.bias").then(|| name.to_owned()));
    let told = with_vae(&lacks, LoadOptions::default()).unwrap_err().to_string();
    assert!(told.contains("\"8.conv.4.bias\": is missing"), "{told}");

    let more = tempfile::tempdir().unwrap();
    let mut tensors = checkpoints::changed(&original(), Some);
    let pool = ("9.pool.0.bias".to_owned(), tensors[0].1, vec![0], Vec::new());
    tensors.push(pool);
    checkpoints::write(&more.path().join("more.safetensors"), &tensors);
    let told = with_vae(more.path(), LoadOptions::default()).unwrap_err().to_string();
    assert!(told.contains("9.pool.0.bias") && told.contains("is no part of the decoder"), "{told}");

    let told =
        DiffusionPipeline::load_on(GPU.clone(), original(), &LoadOptions::default()).unwrap_err().to_string();
    assert!(told.contains("a tiny autoencoder (TAESD), which is a part of a model"), "{told}");

    let config = tempfile::tempdir().unwrap();
    copy_directory(&directory(), config.path());
    let file = config.path().join("config.json");
    let mut entries: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (key, value, told) in [
        ("act_fn", json!("silu"), "supported is \"relu\""),
        ("decoder_block_out_channels", json!([16, 16, 16, 32]), "one width for all levels"),
        ("num_decoder_blocks", json!([3, 3, 1]), "for each of 4 levels"),
        ("upsampling_scaling_factor", json!(4), "supported is 2"),
        ("_class_name", json!("AutoencoderKL"), "supported is \"AutoencoderTiny\""),
    ] {
        let own = std::mem::replace(&mut entries[key], value);
        std::fs::write(&file, entries.to_string()).unwrap();
        entries[key] = own;
        let found = with_vae(config.path(), LoadOptions::default()).unwrap_err().to_string();
        assert!(found.contains(key) && found.contains(told), "{key}: {found}");
    }
}
