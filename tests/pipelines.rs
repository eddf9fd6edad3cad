//! Whole runs against diffusers and DeepCache: the final latents and the pictures.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::ops::ControlFlow;
use std::sync::{LazyLock, Mutex, PoisonError};

use deepcache::Error;
use deepcache::gpu::PlanMode;
use deepcache::image::Picture;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, Generation, LoadOptions, Progress, Request, StorageType,
};
use deepcache::schedulers::SchedulerKind;
use loops::{GPU, PIXEL_LIMIT, check_loop, load, loops, number, run};
use serde_json::Value;
use support::{Goldens, copy_directory, json, relative_l2, repository};

type Shared = LazyLock<Mutex<DiffusionPipeline>>;

static SD1: Shared =
    LazyLock::new(|| Mutex::new(load(&repository("tests/goldens/sd1/model"), StorageType::F32)));
static TINY: Shared = LazyLock::new(|| Mutex::new(load(&repository("assets/tiny"), StorageType::F32)));

fn with<T>(shared: &Shared, work: impl FnOnce(&mut DiffusionPipeline) -> T) -> T {
    work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn ddim_loops_agree_with_diffusers() {
    let plain = |name: &str| {
        name.starts_with("loop_ddim") && !name.contains("trailing") && !name.contains("linspace")
    };
    with(&SD1, |pipeline| loops(plain).iter().for_each(|case| check_loop(pipeline, case)));
}

#[test]
fn pndm_loops_agree_with_diffusers() {
    with(&SD1, |pipeline| {
        loops(|name| name.starts_with("loop_pndm")).iter().for_each(|case| check_loop(pipeline, case));
    });
}

#[test]
fn every_branch_and_interval_agrees_with_deepcache() {
    // The helper's branch 12 skips the middle block like branch 11; there is no skip tensor 12.
    // Other samplers bring their scheduler config, and are checked with it in pipelines_samplers.rs.
    let cached = |name: &str| {
        ["loop_dc_ddim", "loop_dc_pndm"].iter().any(|start| name.starts_with(start))
            && !name.ends_with("_b12")
    };
    with(&SD1, |pipeline| loops(cached).iter().for_each(|case| check_loop(pipeline, case)));
}

#[test]
fn lists_of_full_steps_agree_with_the_papers_code() {
    let fork = |name: &str| name.starts_with("loop_dcfork");
    with(&SD1, |pipeline| loops(fork).iter().for_each(|case| check_loop(pipeline, case)));
}

#[test]
fn timestep_spacings_come_from_the_scheduler_config() {
    for spacing in ["trailing", "linspace"] {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&repository("tests/goldens/sd1/model"), copy.path());
        let path = copy.path().join("scheduler/scheduler_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["timestep_spacing"] = Value::from(spacing);
        std::fs::write(&path, config.to_string()).unwrap();
        let mut pipeline = load(copy.path(), StorageType::F32);
        loops(|name| name.starts_with("loop_ddim") && name.ends_with(spacing))
            .iter()
            .for_each(|case| check_loop(&mut pipeline, case));
    }
}

/// A request for the tiny model as its goldens were made.
fn tiny_request(golden: &Value, run: &Value) -> Request {
    let interval = number(&run["interval"]);
    let cache = (interval > 1).then(|| CacheOptions::uniform(interval, number(&run["branch"])));
    Request {
        seed: golden["seed"].as_u64().unwrap(),
        steps: Some(number(&run["steps"])),
        scheduler: Some(run["scheduler"].as_str().unwrap().parse().unwrap()),
        cache,
        ..Request::prompt(golden["prompt"].as_str().unwrap())
    }
}

fn read_picture(path: &str) -> Picture {
    let decoded = image::open(repository("tests/goldens").join(path)).unwrap().into_rgb8();
    Picture { width: decoded.width(), height: decoded.height(), pixels: decoded.into_raw() }
}

#[test]
fn the_tiny_model_draws_what_diffusers_draws() {
    let manifest = json("tiny/golden.json");
    let mut speed = Vec::new();
    with(&TINY, |pipeline| {
        for golden in manifest["prompts"].as_array().unwrap() {
            for run_of in golden["runs"].as_array().unwrap() {
                let generation = run(pipeline, &tiny_request(golden, run_of));
                let file = run_of["latents"].as_str().unwrap();
                let expected = Goldens::open(&format!("tiny/{file}")).values("latents");
                let found: Vec<f64> = generation.latents.values().iter().map(|&value| value.into()).collect();
                let relative = relative_l2(&found, &expected);
                println!("{file}: relative l2 {relative:.2e}");
                assert!(relative <= 1e-3, "{file}: {relative:.2e}");
                if let Some(png) = run_of["png"].as_str() {
                    let reference = read_picture(&format!("tiny/{png}"));
                    let pairs = generation.pictures[0].pixels.iter().zip(&reference.pixels);
                    let apart = pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap();
                    println!("{png}: picture within {apart} of 255");
                    assert!(apart <= PIXEL_LIMIT, "{png}: {apart} of 255");
                }
                let label =
                    format!("{} N={} s={}", run_of["scheduler"], run_of["interval"], run_of["branch"]);
                speed.push((label, generation.statistics.denoise_s));
            }
        }
    });
    for (label, seconds) in speed {
        println!("{label}: denoising {seconds:.2} s");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_ten_times() {
    let request = Request { steps: Some(2), ..Request::prompt("a large red circle") };
    with(&TINY, |pipeline| {
        let bytes =
            |pipeline: &mut DiffusionPipeline| run(pipeline, &request).pictures[0].to_png(&[]).unwrap();
        let first = bytes(pipeline);
        for _ in 1..10 {
            assert_eq!(bytes(pipeline), first);
        }
    });
}

#[test]
fn the_memory_plan_changes_no_value_and_stays_near_the_live_set() {
    let request = Request {
        steps: Some(3),
        cache: Some(CacheOptions::uniform(2, 1)),
        ..Request::prompt("a small green square")
    };
    let mut pipeline = load(&repository("assets/tiny"), StorageType::F32);
    let shared = run(&mut pipeline, &request);
    let statistics = &shared.statistics;
    let ratio = statistics.activation_bytes as f64 / statistics.largest_live_bytes as f64;
    println!(
        "slots {} B, live set {} B: {ratio:.3}",
        statistics.activation_bytes, statistics.largest_live_bytes
    );
    assert!(ratio <= 1.3, "slots are {ratio:.2} times the live set");
    let parts = statistics.weights_bytes + statistics.activation_bytes + statistics.persistent_bytes;
    assert_eq!(statistics.peak_bytes, parts + statistics.cache_bytes);
    assert!(statistics.cache_bytes > 0, "a cached run keeps a feature");

    pipeline.set_plan_mode(PlanMode::BufferPerTensor);
    let separate = run(&mut pipeline, &request);
    assert!(separate.statistics.activation_bytes > statistics.activation_bytes);
    assert_eq!(separate.latents, shared.latents, "sharing slots changes nothing");
    assert_eq!(separate.pictures, shared.pictures);
}

#[test]
fn sixteen_bit_storage_draws_nearly_the_same_picture() {
    let request = Request { steps: Some(4), ..Request::prompt("a large blue star") };
    if !GPU.has_f16() {
        panic!("the adapter of the tests stores 16-bit floats");
    }
    let small = run(&mut load(&repository("assets/tiny"), StorageType::F16), &request);
    let exact = with(&TINY, |pipeline| run(pipeline, &request));
    let values =
        |generation: &Generation| generation.latents.values().iter().map(|&v| v.into()).collect::<Vec<f64>>();
    let relative = relative_l2(&values(&small), &values(&exact));
    println!("f16 against f32 after 4 steps: relative l2 {relative:.2e}");
    assert!(relative < 3e-2, "{relative:.2e}");
    assert!(small.statistics.weights_bytes < exact.statistics.weights_bytes * 6 / 10);
}

#[test]
fn several_pictures_share_the_noise_of_one_seed() {
    let request = Request { steps: Some(1), count: 2, ..Request::prompt("a ring") };
    with(&TINY, |pipeline| {
        let both = run(pipeline, &request);
        assert_eq!(both.pictures.len(), 2);
        assert_ne!(both.pictures[0], both.pictures[1]);
        let first = run(pipeline, &Request { count: 1, ..request.clone() });
        assert_eq!(first.pictures[0], both.pictures[0], "the first picture does not depend on the count");
    });
}

#[test]
fn a_run_stops_when_it_is_told_to() {
    let request = Request { steps: Some(5), scheduler: Some(SchedulerKind::Ddim), ..Request::prompt("") };
    with(&TINY, |pipeline| {
        let outcome = pipeline.generate(&request, |progress| match progress {
            Progress::Denoising { completed: 2, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(matches!(outcome, Err(Error::Cancelled { completed: 2, steps: 5 })), "{outcome:?}");
        assert_eq!(run(pipeline, &Request { steps: Some(1), ..request }).pictures.len(), 1);
    });
}

#[test]
fn a_lost_device_is_an_error_and_a_new_engine_goes_on() {
    let directory = repository("assets/tiny");
    let request = Request { steps: Some(2), ..Request::prompt("") };
    let mut pipeline = DiffusionPipeline::load(&directory, &LoadOptions::default()).unwrap();
    pipeline.gpu().destroy();
    let outcome = pipeline.generate(&request, |_| ControlFlow::Continue(()));
    assert!(matches!(outcome, Err(Error::DeviceLost { .. })), "{outcome:?}");
    drop(pipeline);
    let mut pipeline = DiffusionPipeline::load(&directory, &LoadOptions::default()).unwrap();
    assert_eq!(run(&mut pipeline, &request).pictures.len(), 1);
}

#[test]
fn a_long_prompt_is_cut_with_a_warning() {
    let prompt = "a large red circle ".repeat(20);
    let request = Request { steps: Some(1), ..Request::prompt(prompt) };
    let warnings = with(&TINY, |pipeline| run(pipeline, &request).warnings);
    println!("{warnings:?}");
    assert!(warnings[0].contains("longer than 22 tokens") && warnings[0].contains("red circle"));
}
