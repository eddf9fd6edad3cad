//! Loops of unconditional pipelines against diffusers and the original DDIM code: `tools/goldens/pipelines.py`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use deepcache::pipelines::{Request, StorageType};
use deepcache::schedulers::TimestepSpacing;
use deepcache::weights::{ModelFiles, ModelKind};
use loops::{PIXEL_LIMIT, load, number, pixels_apart, run};
use serde_json::Value;
use support::{Goldens, copy_directory, json, max_abs, relative_l2, repository};

const PACK: &str = "tests/goldens/unconditional";

/// Of a whole loop in 32-bit floats: the first issue's tolerance for loops.
const RELATIVE: f64 = 5e-4;
const ABSOLUTE: f64 = 2.5e-3;

fn check(model: &str, count: usize) {
    let cases = json("unconditional/loops.json");
    let cases: Vec<&Value> = cases
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["model"].as_str().unwrap().starts_with(model))
        .collect();
    assert_eq!(cases.len(), count, "loops of {model}");
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let path = repository(PACK).join(case["model"].as_str().unwrap());
        let mut pipeline = match &case["scheduler_config"] {
            Value::Null => load(&path, StorageType::F32),
            config => {
                let copy = tempfile::tempdir().unwrap();
                copy_directory(&path, copy.path());
                std::fs::write(copy.path().join("scheduler/scheduler_config.json"), config.to_string())
                    .unwrap();
                load(copy.path(), StorageType::F32)
            }
        };
        let spacing = match case["timestep_spacing"].as_str() {
            Some("quadratic") => Some(TimestepSpacing::Quadratic),
            Some("uniform") => Some(TimestepSpacing::Uniform),
            _ => None,
        };
        let request = Request {
            steps: Some(number(&case["steps"])),
            seed: case["seed"].as_u64().unwrap(),
            eta: case["eta"].as_f64().unwrap_or(0.0),
            timestep_spacing: spacing,
            ..Request::unconditional()
        };
        let generation = run(&mut pipeline, &request);
        let goldens = Goldens::open(&format!("unconditional/{}", case["file"].as_str().unwrap()));
        let expected = goldens.values("latents");
        let found: Vec<f64> = generation.latents.values().iter().map(|&value| f64::from(value)).collect();
        let (relative, absolute) = (relative_l2(&found, &expected), max_abs(&found, &expected));
        let apart = pixels_apart(&generation.pictures[0], &goldens.values("image"));
        println!("{name}: relative l2 {relative:.2e}, max abs {absolute:.2e}, picture within {apart} of 255");
        assert!(relative <= RELATIVE && absolute <= ABSOLUTE, "{name}: {relative:.2e}, {absolute:.2e}");
        assert!(apart <= PIXEL_LIMIT, "{name}: {apart} of 255");
    }
}

#[test]
fn latent_diffusion_in_diffusers_layout_agrees() {
    check("ldm", 1);
}

#[test]
fn several_heads_clipping_and_dynamic_thresholding_agree() {
    check("pixels", 3);
}

#[test]
fn original_ddim_checkpoints_agree() {
    check("original", 3);
}

#[test]
fn each_is_recognised_from_its_files() {
    for (path, kind) in [
        ("ldm", ModelKind::Unconditional),
        ("pixels", ModelKind::Unconditional),
        ("original/ema_small.safetensors", ModelKind::Unconditional),
    ] {
        let files = ModelFiles::open(repository(PACK).join(path)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(files.kind(), kind, "{path}");
    }
}
