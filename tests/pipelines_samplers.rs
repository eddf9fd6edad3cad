//! Loops of every sampler and of what limits predictions against diffusers and DeepCache.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use deepcache::pipelines::{DiffusionPipeline, StorageType};
use loops::{check_loop, load, loops};
use serde_json::Value;
use support::{copy_directory, repository};

/// The model with another scheduler config.
fn model_with(scheduler_config: &Value) -> DiffusionPipeline {
    let copy = tempfile::tempdir().unwrap();
    copy_directory(&repository("tests/goldens/sd1/model"), copy.path());
    let path = copy.path().join("scheduler/scheduler_config.json");
    std::fs::write(&path, scheduler_config.to_string()).unwrap();
    load(copy.path(), StorageType::F32)
}

/// Runs the loops of one sampler, each with the scheduler config that the reference had.
fn check(sampler: &str, count: usize) {
    let loops: Vec<Value> = loops(|name| name.starts_with("loop_") && !name.starts_with("loop_dcfork"))
        .into_iter()
        .filter(|case| case["params"]["sched"] == sampler)
        .collect();
    assert_eq!(loops.len(), count, "loops of {sampler}");
    for case in &loops {
        check_loop(&mut model_with(&case["params"]["scheduler_config"]), case);
    }
}

#[test]
fn euler_loops_agree_with_diffusers() {
    check("euler", 2);
    check("euler_karras", 1);
}

#[test]
fn ancestral_loops_draw_the_noise_of_diffusers() {
    check("euler_a", 2);
}

#[test]
fn ddpm_loops_draw_the_noise_of_diffusers() {
    check("ddpm", 2);
}

#[test]
fn dpm_solver_loops_agree_with_diffusers() {
    check("dpmpp2m", 1);
    check("dpmpp2m_karras", 2);
}

#[test]
fn unipc_loops_agree_with_diffusers() {
    check("unipc", 2);
}

#[test]
fn heun_loops_count_calls_and_agree_with_diffusers() {
    check("heun", 3);
}

#[test]
fn consistency_loops_agree_with_diffusers() {
    check("lcm", 3);
}

#[test]
fn rescaled_guidance_agrees_with_diffusers() {
    let loops = loops(|name| name.contains("rescale"));
    check_loop(&mut load(&repository("tests/goldens/sd1/model"), StorageType::F32), &loops[0]);
}
