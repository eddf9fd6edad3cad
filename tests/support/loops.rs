//! Loops of the reference for Stable Diffusion models: requests from its manifest, and how near their results come.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail, and tell how near they came")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use deepcache::deepcache::CacheSchedule;
use deepcache::gpu::Gpu;
use deepcache::image::Picture;
use deepcache::pipelines::{
    CacheOptions, Condition, DiffusionPipeline, Generation, Latents, Request, StepKind, StorageType,
};
use deepcache::schedulers::SchedulerKind;
use serde_json::Value;

use super::support::{Goldens, json, max_abs, relative_l2};

/// How far a picture may be from the reference's, of 255.
pub(crate) const PIXEL_LIMIT: u8 = 2;

pub(crate) static GPU: LazyLock<Arc<Gpu>> =
    LazyLock::new(|| Arc::new(Gpu::open(None).unwrap_or_else(|error| panic!("{error}"))));

pub(crate) fn load(directory: &Path, storage: StorageType) -> DiffusionPipeline {
    DiffusionPipeline::load_on(GPU.clone(), directory, &storage.into())
        .unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn run(pipeline: &mut DiffusionPipeline, request: &Request) -> Generation {
    pipeline.generate(request, |_| ControlFlow::Continue(())).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// The loops of the sd1 manifest whose names pass the filter.
pub(crate) fn loops(wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    loops_of("sd1", wanted)
}

/// The loops of a pack's manifest whose names pass the filter.
pub(crate) fn loops_of(pack: &str, wanted: impl Fn(&str) -> bool) -> Vec<Value> {
    let manifest = json(&format!("{pack}/manifest.json"));
    let all = manifest["cases"].as_array().unwrap().iter();
    let found: Vec<Value> = all
        .filter(|case| case["kind"] == "loop" && wanted(case["name"].as_str().unwrap()))
        .cloned()
        .collect();
    assert!(!found.is_empty(), "the manifest has such loops");
    found
}

/// Whether the sampler visits every timestep once, so that the reference's step numbers are those of the calls.
fn counts_calls(params: &Value) -> bool {
    !["pndm", "heun"].contains(&params["sched"].as_str().unwrap())
}

/// The sampler of a loop; what is neither DDIM nor PNDM is the model's own, as the loop's scheduler config says.
fn scheduler(case: &Value) -> Option<SchedulerKind> {
    match case["params"]["sched"].as_str().unwrap() {
        "pndm" => Some(SchedulerKind::Pndm),
        name if name.starts_with("ddim") => Some(SchedulerKind::Ddim),
        _ => None,
    }
}

pub(crate) fn request(case: &Value, prompt: &Value) -> Request {
    let params = &case["params"];
    let side = |index: usize| Some(8 * number(&params["hw"][index]));
    let cache = params["branch"].as_u64().or(params["cache"][1].as_u64()).map(|branch| {
        let full = params["full_calls"].as_array().unwrap().iter().map(number).collect();
        let schedule = match params["cache"][0].as_u64() {
            // The helper of the reference looks repeated timesteps up by value; ours counts calls.
            Some(interval) if counts_calls(params) => CacheSchedule::Uniform { interval: interval as usize },
            _ => CacheSchedule::List(full),
        };
        CacheOptions { schedule, ..CacheOptions::uniform(1, branch as usize) }
    });
    Request {
        condition: Condition::Prompt {
            prompt: prompt.as_str().unwrap().to_owned(),
            negative_prompt: params["negative_prompt"].as_str().unwrap_or_default().to_owned(),
        },
        steps: Some(number(&params["steps"])),
        guidance_scale: params["guidance"].as_f64(),
        scheduler: scheduler(case),
        eta: params["eta"].as_f64().unwrap_or(0.0),
        guidance_rescale: params["guidance_rescale"].as_f64().unwrap_or(0.0),
        seed: params["seed"].as_u64().unwrap(),
        height: side(0),
        width: side(1),
        cache,
        ..Request::unconditional()
    }
}

/// Runs a loop of Stable Diffusion v1.
pub(crate) fn check_loop(pipeline: &mut DiffusionPipeline, case: &Value) {
    check_loop_of("sd1", pipeline, case);
}

/// Runs a loop of a pack from its seed, and compares latents and, where the reference has one, the picture.
pub(crate) fn check_loop_of(pack: &str, pipeline: &mut DiffusionPipeline, case: &Value) {
    let name = case["name"].as_str().unwrap();
    let goldens = Goldens::open(&format!("{pack}/{}", case["file"].as_str().unwrap()));
    let prompts = &case["params"]["prompt"];
    let expected = goldens.tensor("out.latents");
    let mut latents = Vec::new();
    if let Some(prompts) = prompts.as_array() {
        // Two prompts in one batch: each by itself from its half of the noise.
        let noise = goldens.tensor("in.latents");
        let half = noise.values.len() / prompts.len();
        for (prompt, noise) in prompts.iter().zip(noise.values.chunks_exact(half)) {
            let shape = [1, expected.shape[1], expected.shape[2], expected.shape[3]];
            let noise = noise.iter().map(|&value| value as f32).collect();
            let noise = Some(Latents::new(shape, noise).unwrap());
            let generation = run(pipeline, &Request { latents: noise, ..request(case, prompt) });
            latents.extend_from_slice(generation.latents.values());
        }
    } else {
        let generation = run(pipeline, &request(case, prompts));
        latents.extend_from_slice(generation.latents.values());
        if goldens.names().iter().any(|name| name == "out.image") {
            let image = goldens.tensor("out.image");
            let apart = pixels_apart(&generation.pictures[0], &image.values);
            println!("{name}: picture within {apart} of 255");
            assert!(apart <= PIXEL_LIMIT, "{name}: {apart} of 255");
        }
        let full: Vec<usize> = case["params"]["full_calls"].as_array().unwrap().iter().map(number).collect();
        let steps = &generation.statistics.steps;
        let ours = steps.iter().filter(|step| step.kind == StepKind::Full);
        assert_eq!(ours.map(|step| step.index).collect::<Vec<_>>(), full, "{name}: full calls");
    }
    let found: Vec<f64> = latents.iter().map(|&value| f64::from(value)).collect();
    let (relative, absolute) = (relative_l2(&found, &expected.values), max_abs(&found, &expected.values));
    println!("{name}: relative l2 {relative:.2e}, max abs {absolute:.2e}");
    let limit = |key: &str| case["tolerance"][key].as_f64().unwrap();
    assert!(
        relative <= limit("rel_l2") && absolute <= limit("max_abs"),
        "{name}: {relative:.2e}, {absolute:.2e}"
    );
}

/// The largest difference between a picture and the reference's values of -1 to 1, `[3, H, W]`.
pub(crate) fn pixels_apart(picture: &Picture, image: &[f64]) -> u8 {
    let area = image.len() / 3;
    assert_eq!(picture.pixels.len(), image.len(), "the picture has the reference's size");
    let apart = picture.pixels.iter().enumerate().map(|(index, &found)| {
        let value = image[(index % 3) * area + index / 3];
        let expected = (255.0 * (value / 2.0 + 0.5).clamp(0.0, 1.0)).round_ties_even() as u8;
        found.abs_diff(expected)
    });
    apart.max().unwrap()
}
