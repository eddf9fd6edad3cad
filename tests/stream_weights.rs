//! Runs in which the U-Net's weights come and go during every call: the same pictures, in less memory than its weights.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its sizes")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::path::Path;

use deepcache::deepcache::Reuse;
use deepcache::pipelines::{CacheOptions, DiffusionPipeline, LoadOptions, Request, StorageType};
use loops::{GPU, run};
use support::repository;

fn load(path: &Path, stream_weights: Option<u64>) -> DiffusionPipeline {
    let options = LoadOptions { stream_weights, ..StorageType::F32.into() };
    DiffusionPipeline::load_on(GPU.clone(), path, &options).unwrap()
}

/// Requests with windows of several sizes, from one that holds no two weights to one that holds all.
fn check(path: &str, requests: &[Request]) {
    let path = repository(path);
    let mut usual = load(&path, None);
    let expected: Vec<_> = requests.iter().map(|request| run(&mut usual, request)).collect();
    for window in [1, 1 << 20, 1 << 30] {
        let mut streamed = load(&path, Some(window));
        for (request, expected) in requests.iter().zip(&expected) {
            let plan = streamed.memory_plan(request).unwrap();
            let found = run(&mut streamed, request);
            assert_eq!(expected.latents, found.latents, "{}: latents, window {window}", path.display());
            assert_eq!(expected.pictures, found.pictures, "{}: pictures, window {window}", path.display());
            let (peak, usual) = (found.statistics.peak_bytes, expected.statistics.peak_bytes);
            assert_eq!(plan.peak(), peak, "{}: the plan, window {window}", path.display());
            println!("{}: window {window}: {peak} bytes of {usual}", path.display());
            assert!(peak < usual, "{}: window {window}: {peak} of {usual}", path.display());
        }
    }
}

fn requests() -> [Request; 3] {
    let plain = Request { steps: Some(3), count: 2, seed: 3, ..Request::prompt("a lighthouse") };
    let cached = Request { cache: Some(CacheOptions::uniform(2, 1)), ..plain.clone() };
    let reuse = CacheOptions { reuse: Reuse::Linear, ..CacheOptions::uniform(3, 4) };
    [plain.clone(), cached, Request { steps: Some(5), count: 1, cache: Some(reuse), ..plain }]
}

#[test]
fn stable_diffusion_1_draws_the_same() {
    check("tests/goldens/sd1/model", &requests());
}

#[test]
fn stable_diffusion_xl_draws_the_same() {
    check("tests/goldens/sdxl/model", &requests());
}

#[test]
fn the_trained_model_fits_in_a_part_of_its_weights() {
    let path = repository("assets/tiny");
    let request = Request {
        steps: Some(4),
        cache: Some(CacheOptions::uniform(4, 0)),
        ..Request::prompt("a large red circle on a blue background")
    };
    let mut usual = load(&path, None);
    let whole = usual.memory_plan(&request).unwrap();
    let mut streamed = load(&path, Some(1 << 20));
    let plan = streamed.memory_plan(&request).unwrap();
    let denoising = plan.stages.iter().find(|stage| stage.name == "denoising").unwrap();
    let unet = whole.networks.iter().find(|network| network.name == "unet").unwrap().bytes;
    println!("weights while denoising: {} bytes, the U-Net's are {unet}", denoising.weights);
    assert!(denoising.weights < unet / 2, "{} of {unet}", denoising.weights);
    let (expected, found) = (run(&mut usual, &request), run(&mut streamed, &request));
    assert_eq!(expected.pictures, found.pictures, "the same picture");
    let submissions = |statistics: &deepcache::pipelines::Statistics| statistics.submissions;
    println!("{} submissions, {} without", submissions(&found.statistics), submissions(&expected.statistics));
    // The full call has several parts; the three shallow ones have one each, since nothing comes or goes.
    assert!(submissions(&found.statistics) > submissions(&expected.statistics), "it came in parts");
}

#[test]
fn a_lora_is_in_what_comes() {
    let request = Request { steps: Some(2), ..Request::prompt("a lighthouse") };
    let path = repository("tests/goldens/sd1/model");
    let lora = std::fs::read_dir(repository("tests/goldens/lora")).unwrap();
    let mut files: Vec<_> = lora.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut usual = load(&path, None);
    let mut streamed = load(&path, Some(1));
    let plain = run(&mut usual, &request).latents;
    let mut tried = 0;
    for file in files.iter().filter(|file| file.extension().is_some_and(|found| found == "safetensors")) {
        let Ok(lora) = file.display().to_string().parse() else { continue };
        if usual.set_loras(std::slice::from_ref(&lora)).is_err() {
            continue;
        }
        streamed.set_loras(&[lora]).unwrap();
        let expected = run(&mut usual, &request).latents;
        assert_eq!(expected, run(&mut streamed, &request).latents, "{}", file.display());
        tried += usize::from(expected != plain);
        if tried == 2 {
            break;
        }
    }
    assert!(tried > 0, "a LoRA changes the picture");
    streamed.set_loras(&[]).unwrap();
    assert_eq!(plain, run(&mut streamed, &request).latents, "without them");
}
