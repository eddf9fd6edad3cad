//! Runs that have only those weights on the device that they need: the same pictures in less memory.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its sizes")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::ops::ControlFlow;
use std::path::Path;

use deepcache::gpu::Gpu;
use deepcache::pipelines::{
    AnalysisOptions, CacheOptions, DiffusionPipeline, LoadOptions, Progress, Request, StorageType,
};
use deepcache::weights::Replacements;
use loops::{GPU, run};
use support::repository;

fn load(path: &Path, low_memory: bool) -> DiffusionPipeline {
    // What the tensors of the small single file do not tell.
    let config = path.is_file().then(|| repository("tests/goldens/single/config"));
    let replacements = Replacements { config, ..Replacements::default() };
    let options = LoadOptions { low_memory, replacements, ..StorageType::F32.into() };
    DiffusionPipeline::load_on(GPU.clone(), path, &options).unwrap()
}

/// Two pictures of several requests, each with and without low memory, one after the other on one pipeline.
fn check(path: &str, requests: &[Request]) {
    let path = repository(path);
    let [mut usual, mut low] = [false, true].map(|low_memory| load(&path, low_memory));
    for request in requests {
        let [usual, low] = [&mut usual, &mut low].map(|pipeline| run(pipeline, request));
        assert_eq!(usual.latents, low.latents, "{}: latents", path.display());
        assert_eq!(usual.pictures, low.pictures, "{}: pictures", path.display());
        let [usual, low] = [usual.statistics, low.statistics];
        println!("{}: {} bytes, {} with low memory", path.display(), usual.peak_bytes, low.peak_bytes);
        assert!(low.peak_bytes < usual.peak_bytes, "{} of {}", low.peak_bytes, usual.peak_bytes);
        assert!(low.weights_bytes < usual.weights_bytes, "only the largest network");
    }
}

fn prompt() -> Request {
    Request { steps: Some(3), count: 2, seed: 3, ..Request::prompt("a lighthouse") }
}

fn text_requests() -> [Request; 2] {
    let cached = Request { cache: Some(CacheOptions::uniform(2, 1)), ..prompt() };
    [cached, Request { guidance_scale: Some(1.0), count: 1, ..prompt() }]
}

#[test]
fn stable_diffusion_1_draws_the_same() {
    check("tests/goldens/sd1/model", &text_requests());
}

#[test]
fn stable_diffusion_2_draws_the_same() {
    check("tests/goldens/sd2/model", &text_requests());
}

#[test]
fn stable_diffusion_xl_draws_the_same() {
    let [cached, plain] = text_requests();
    check("tests/goldens/sdxl/model", &[cached, plain]);
}

#[test]
fn stable_diffusion_in_one_file_draws_the_same() {
    check("tests/goldens/single/model.safetensors", &[prompt()]);
}

#[test]
fn models_without_text_draw_the_same() {
    let unconditional = Request { steps: Some(3), ..Request::unconditional() };
    check("tests/goldens/unconditional/ldm", &[unconditional]);
}

/// Bytes that buffers hold on the device.
fn allocated(gpu: &Gpu) -> u64 {
    gpu.allocated_bytes().expect("Vulkan tells")
}

#[test]
fn the_device_holds_only_what_a_stage_needs() {
    // A device of its own, which no other test allocates on.
    let options = LoadOptions { low_memory: true, ..StorageType::F32.into() };
    let mut pipeline = DiffusionPipeline::load(repository("assets/tiny"), &options).unwrap();
    let gpu = pipeline.gpu().clone();
    let empty = allocated(&gpu);
    let request = Request { steps: Some(2), count: 2, ..Request::prompt("a large red circle") };
    let plan = pipeline.memory_plan(&request).unwrap();
    assert_eq!(
        plan.stages.iter().map(|stage| stage.name).collect::<Vec<_>>(),
        ["text", "denoising", "decoding"]
    );
    for _ in 0..2 {
        let (mut denoising, mut decoding) = (0, 0);
        let outcome = pipeline.generate(&request, |progress| {
            match progress {
                Progress::Denoising { .. } => denoising = allocated(&gpu).saturating_sub(empty),
                Progress::Decoding { picture: 1, .. } => decoding = allocated(&gpu).saturating_sub(empty),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        outcome.unwrap();
        for (stage, found) in [(&plan.stages[1], denoising), (&plan.stages[2], decoding)] {
            let planned = stage.total();
            println!("{}: planned {planned} bytes, the driver gave {found}", stage.name);
            let near = planned..planned + planned / 20 + (1 << 20);
            assert!(near.contains(&found), "{}: planned {planned}, found {found}", stage.name);
        }
        let left = allocated(&gpu).saturating_sub(empty);
        assert!(left < 1 << 20, "{left} bytes are left between pictures");
    }
}

#[test]
fn what_a_run_leaves_undone_leaves_nothing_on_the_device() {
    let options = LoadOptions { low_memory: true, ..StorageType::F32.into() };
    let mut pipeline = DiffusionPipeline::load(repository("assets/tiny"), &options).unwrap();
    let gpu = pipeline.gpu().clone();
    let empty = allocated(&gpu);
    let request = Request { steps: Some(4), ..Request::prompt("a ring") };
    let outcome = pipeline.generate(&request, |progress| match progress {
        Progress::Denoising { completed: 2, .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(outcome.is_err(), "it was stopped");
    assert!(allocated(&gpu).saturating_sub(empty) < 1 << 20, "the weights are gone");
    assert_eq!(run(&mut pipeline, &request).pictures.len(), 1, "the next run is as any other");
}

#[test]
fn an_analysis_of_such_a_pipeline_finds_its_weights() {
    let request = Request { steps: Some(4), ..Request::prompt("a ring") };
    let options = AnalysisOptions { branches: vec![0], probes: 0 };
    let latents = [false, true].map(|low_memory| {
        let mut pipeline = load(&repository("tests/goldens/sd1/model"), low_memory);
        let analysis = pipeline.analyze(&request, &options, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(run(&mut pipeline, &request).latents, analysis.latents, "a run after it");
        analysis.latents
    });
    assert_eq!(latents[0], latents[1]);
}
