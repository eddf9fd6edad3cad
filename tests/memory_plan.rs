//! What is planned before a run is what the run's own accounts say after it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its sizes")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use deepcache::Error;
use deepcache::deepcache::{CacheSchedule, Reuse};
use deepcache::gpu::choices::Choices;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, LoadOptions, MemoryPlan, PlanTarget, Planner, Request, Statistics,
    StorageType, VaeTiling, plan,
};
use deepcache::schedulers::SchedulerKind;
use deepcache::weights::ModelFiles;
use loops::{GPU, run};
use support::repository;

fn model(pack: &str) -> PathBuf {
    repository("tests/goldens").join(pack).join("model")
}

fn files(path: &Path) -> ModelFiles {
    ModelFiles::open(path).unwrap_or_else(|error| panic!("{error}"))
}

/// Short runs of all sorts that take memory in other ways.
fn requests() -> Vec<(&'static str, Request)> {
    let plain = Request { steps: Some(3), ..Request::prompt("a small boat") };
    let cache = |schedule, branch, reuse| Some(CacheOptions { schedule, branch, reuse, warm_up: 0 });
    let uniform = CacheSchedule::Uniform { interval: 2 };
    let drift = CacheSchedule::Threshold { threshold: 0.2 };
    vec![
        ("plain", plain.clone()),
        ("without guidance", Request { guidance_scale: Some(1.0), ..plain.clone() }),
        ("cached", Request { cache: cache(uniform.clone(), 1, Reuse::Hold), ..plain.clone() }),
        (
            "two, extrapolated, without guidance",
            Request {
                count: 2,
                guidance_scale: Some(1.0),
                cache: cache(uniform, 2, Reuse::Quadratic),
                ..plain.clone()
            },
        ),
        ("by drift", Request { cache: cache(drift, 0, Reuse::Linear), ..plain.clone() }),
        (
            "in tiles, with noise and history",
            Request {
                vae_tiling: VaeTiling::Always,
                scheduler: Some(SchedulerKind::DpmPlusPlus2mSde),
                height: Some(136),
                width: Some(200),
                ..plain
            },
        ),
    ]
}

fn agree(what: &str, plan: &MemoryPlan, statistics: &Statistics) {
    let most = |bytes: fn(&deepcache::pipelines::StageMemory) -> u64| {
        plan.stages.iter().map(bytes).max().unwrap_or(0)
    };
    let rows = [
        ("weights", most(|stage| stage.weights), statistics.weights_bytes),
        ("activations", most(|stage| stage.activations), statistics.activation_bytes),
        ("alive", most(|stage| stage.largest_live), statistics.largest_live_bytes),
        ("persistent", most(|stage| stage.persistent), statistics.persistent_bytes),
        ("cache", most(|stage| stage.cache), statistics.cache_bytes),
        ("peak", plan.peak(), statistics.peak_bytes),
    ];
    for (part, planned, found) in rows {
        assert_eq!(planned, found, "{what}: {part}");
    }
    assert_eq!(plan.vae_tile, statistics.vae_tile, "{what}: tiles");
    assert!(plan.fits(), "{what}: {plan}");
}

/// Plans runs of a model before it is loaded, makes them, and compares.
fn check(pack: &str, low_memory: bool) {
    let path = model(pack);
    let options = LoadOptions { low_memory, ..StorageType::F32.into() };
    let planner = Planner::open(&files(&path), &options, PlanTarget::of(&GPU)).unwrap();
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), &path, &options).unwrap();
    for (name, request) in requests() {
        let plan = planner.plan(&request).unwrap();
        assert_eq!(plan, pipeline.memory_plan(&request).unwrap(), "{pack}, {name}: of the loaded model");
        let what = format!("{pack}, {name}");
        agree(&what, &plan, &run(&mut pipeline, &request).statistics);
        println!("{what}: peak {} bytes", plan.peak());
    }
}

#[test]
fn stable_diffusion_1_takes_what_is_planned() {
    check("sd1", false);
}

#[test]
fn stable_diffusion_2_takes_what_is_planned() {
    check("sd2", false);
}

#[test]
fn stable_diffusion_xl_takes_what_is_planned() {
    check("sdxl", false);
}

#[test]
fn sixteen_bit_storage_and_other_models_take_what_is_planned() {
    let unconditional = Request { steps: Some(2), ..Request::unconditional() };
    let prompt = Request { steps: Some(2), ..Request::prompt("a ring") };
    for (path, request) in [
        ("tests/goldens/sdxl/model", &prompt),
        ("assets/tiny", &prompt),
        ("tests/goldens/unconditional/ldm", &unconditional),
        ("tests/goldens/unconditional/pixels", &unconditional),
    ] {
        let options = LoadOptions::from(StorageType::F16);
        let plan = plan(&files(&repository(path)), request, &options, PlanTarget::of(&GPU)).unwrap();
        let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), repository(path), &options).unwrap();
        agree(path, &plan, &run(&mut pipeline, request).statistics);
        let networks: u64 = plan.networks.iter().map(|network| network.bytes).sum();
        assert_eq!(plan.stages[0].weights, networks, "{path}: every network");
    }
}

#[test]
fn a_plan_needs_no_device_and_says_what_does_not_fit() {
    let target = PlanTarget {
        name: "a small device".to_owned(),
        choices: Arc::new(Choices::default()),
        binding_limit: 256 << 10,
        f16: true,
    };
    let files = files(&model("sd1"));
    let options = LoadOptions::default();
    let planned = |vae_tiling, side| {
        let request =
            Request { vae_tiling, width: Some(side), height: Some(side), ..Request::prompt("a lighthouse") };
        plan(&files, &request, &options, target.clone()).unwrap()
    };
    let tiled = planned(VaeTiling::Auto, 128);
    assert_eq!(tiled.dtype, "f16", "as a GPU would have it");
    assert!(tiled.fits() && tiled.vae_tile == Some(8), "{tiled}");
    let whole = planned(VaeTiling::Never, 128);
    assert!(!whole.fits() && whole.vae_tile.is_none(), "{whole}");
    let text = whole.to_string();
    for word in ["a small device", "unet", "text_encoder", "peak", "decode/vae", "does not fit"] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    println!("{tiled}\n\n{whole}");
    let wrong = Request { cache: Some(CacheOptions::uniform(2, 99)), ..Request::prompt("") };
    let error = plan(&files, &wrong, &options, target.clone()).unwrap_err();
    assert!(matches!(error, Error::Option { .. }), "{error}");
}
