//! Whole runs of an SDXL model against diffusers and DeepCache: every sampler and every branch.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::sync::{LazyLock, Mutex, PoisonError};

use deepcache::pipelines::{DiffusionPipeline, Request, StorageType};
use loops::{check_loop_of, load, loops_of, number, run};
use serde_json::Value;
use support::{Goldens, assert_close, copy_directory, repository};

const PACK: &str = "sdxl";

static MODEL: LazyLock<Mutex<DiffusionPipeline>> =
    LazyLock::new(|| Mutex::new(load(&repository("tests/goldens/sdxl/model"), StorageType::F32)));

/// Runs the loops of the model's own sampler whose names pass.
fn check(wanted: impl Fn(&str) -> bool) {
    let mut pipeline = MODEL.lock().unwrap_or_else(PoisonError::into_inner);
    loops_of(PACK, wanted).iter().for_each(|case| check_loop_of(PACK, &mut pipeline, case));
}

#[test]
fn loops_of_the_models_own_sampler_agree_with_diffusers() {
    check(|name| name.starts_with("loop_euler") && !name.contains("euler_a"));
}

#[test]
fn ddim_loops_agree_with_diffusers() {
    check_sampler("ddim", 5);
}

#[test]
fn every_branch_and_interval_agrees_with_deepcache() {
    // The helper's branch 9 skips the middle block like branch 8; there is no skip tensor 9.
    check(|name| name.starts_with("loop_dc_euler1") && !name.ends_with("_b9"));
}

/// Runs the loops of one sampler, each with the scheduler config that the reference had.
fn check_sampler(sampler: &str, count: usize) {
    let loops: Vec<Value> = loops_of(PACK, |name| name.starts_with("loop_"))
        .into_iter()
        .filter(|case| case["params"]["sched"] == sampler)
        .collect();
    assert_eq!(loops.len(), count, "loops of {sampler}");
    for case in &loops {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&repository("tests/goldens/sdxl/model"), copy.path());
        let path = copy.path().join("scheduler/scheduler_config.json");
        std::fs::write(&path, case["params"]["scheduler_config"].to_string()).unwrap();
        check_loop_of(PACK, &mut load(copy.path(), StorageType::F32), case);
    }
}

#[test]
fn loops_of_every_sampler_agree_with_diffusers() {
    for (sampler, count) in [
        ("ddim_trailing", 1),
        ("ddpm", 1),
        ("dpmpp2m_karras", 2),
        ("euler_a", 2),
        ("heun", 1),
        ("lcm", 1),
        ("pndm", 2),
        ("unipc", 2),
    ] {
        check_sampler(sampler, count);
    }
}

#[test]
fn sizes_and_empty_prompts_agree_with_diffusers() {
    for run_of in support::json("sdxl/sizes.json")["runs"].as_array().unwrap() {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&repository("tests/goldens/sdxl/model"), copy.path());
        let path = copy.path().join("model_index.json");
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        index["force_zeros_for_empty_prompt"] = run_of["force_zeros_for_empty_prompt"].clone();
        std::fs::write(&path, index.to_string()).unwrap();

        let pair = |key: &str| run_of[key].as_array().map(|pair| [number(&pair[0]), number(&pair[1])]);
        let request = Request {
            steps: Some(number(&run_of["num_inference_steps"])),
            guidance_scale: run_of["guidance_scale"].as_f64(),
            seed: run_of["seed"].as_u64().unwrap(),
            height: Some(number(&run_of["height"])),
            width: Some(number(&run_of["width"])),
            original_size: pair("original_size"),
            crops_coords_top_left: pair("crops_coords_top_left"),
            target_size: pair("target_size"),
            ..Request::prompt(run_of["prompt"].as_str().unwrap())
        };
        let generation = run(&mut load(copy.path(), StorageType::F32), &request);
        let file = run_of["file"].as_str().unwrap();
        let expected = Goldens::open(&format!("sdxl/{file}")).values("out.latents");
        let found: Vec<f64> = generation.latents.values().iter().map(|&value| value.into()).collect();
        assert_close(file, &found, &expected, 5e-4, 2.5e-3);
    }
}

#[test]
fn sixteen_bit_storage_decodes_in_thirty_two_bits_where_the_model_asks_for_it() {
    let request = Request { steps: Some(4), seed: 5, ..Request::prompt("a bowl of fruit") };
    let [small, large] = [StorageType::F16, StorageType::F32]
        .map(|storage| run(&mut load(&repository("tests/goldens/sdxl/model"), storage), &request));
    let pairs = small.pictures[0].pixels.iter().zip(&large.pictures[0].pixels);
    let apart: f64 = pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    let mean = apart / large.pictures[0].pixels.len() as f64;
    println!("16-bit storage: {mean:.2} of 255 on average");
    assert!(mean < 2.0, "{mean:.2} of 255");
    assert!(small.statistics.weights_bytes < large.statistics.weights_bytes, "16 bits are less");
}
