//! Whole runs of an SDXL model against diffusers and DeepCache: every sampler and every branch.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::sync::{LazyLock, Mutex, PoisonError};

use deepcache::pipelines::{DiffusionPipeline, StorageType};
use loops::{check_loop_of, load, loops_of};
use serde_json::Value;
use support::{copy_directory, repository};

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
