//! Devices without enough memory for weights, activations or the decode: an error with sizes, after which the same device
//! goes on.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints what it is told")]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;

use deepcache::Error;
use deepcache::gpu::Gpu;
use deepcache::pipelines::{DiffusionPipeline, Generation, Request, StorageType, VaeTiling};
use support::repository;

/// A device of its own, since what it holds is counted.
fn open() -> Arc<Gpu> {
    Arc::new(Gpu::open(None).unwrap())
}

fn load(gpu: &Arc<Gpu>) -> deepcache::Result<DiffusionPipeline> {
    DiffusionPipeline::load_on(gpu.clone(), repository("assets/tiny"), &StorageType::F32.into())
}

fn held(gpu: &Gpu) -> u64 {
    gpu.allocated_bytes().expect("Vulkan tells")
}

fn draw(pipeline: &mut DiffusionPipeline, request: &Request) -> deepcache::Result<Generation> {
    pipeline.generate(request, |_| ControlFlow::Continue(()))
}

fn expect_out_of_memory(error: &Error) {
    println!("{error}");
    let Error::OutOfMemory { bytes, .. } = error else { panic!("out of memory, found {error}") };
    assert!(*bytes > 0, "the size is told");
    let told = error.to_string();
    assert!(told.contains("MiB") && told.contains("--low-memory"), "{told}");
}

fn request() -> Request {
    Request { steps: Some(2), ..Request::prompt("a large red circle on a blue background") }
}

#[test]
fn weights_that_do_not_fit_leave_nothing() {
    let gpu = open();
    let empty = held(&gpu);
    gpu.limit_memory(empty + (8 << 20)).unwrap();
    expect_out_of_memory(&load(&gpu).map(|_| ()).unwrap_err());
    gpu.limit_memory(u64::MAX).unwrap();
    let mut pipeline = load(&gpu).unwrap();
    assert_eq!(draw(&mut pipeline, &request()).unwrap().pictures.len(), 1, "the device goes on");
}

#[test]
fn activations_that_do_not_fit_leave_the_pipeline_as_it_was() {
    let gpu = open();
    let mut pipeline = load(&gpu).unwrap();
    let expected = draw(&mut pipeline, &request()).unwrap().pictures;
    let loaded = held(&gpu);
    gpu.limit_memory(loaded + (2 << 20)).unwrap();
    expect_out_of_memory(&draw(&mut pipeline, &request()).map(|_| ()).unwrap_err());
    gpu.limit_memory(u64::MAX).unwrap();
    assert_eq!(draw(&mut pipeline, &request()).unwrap().pictures, expected, "as before");
}

#[test]
fn a_decode_that_does_not_fit_is_made_in_tiles_where_it_may() {
    let gpu = open();
    let mut pipeline = load(&gpu).unwrap();
    let large = Request { width: Some(512), height: Some(512), steps: Some(1), ..request() };
    let never = Request { vae_tiling: VaeTiling::Never, ..large.clone() };
    let plan = pipeline.memory_plan(&never).unwrap();
    let stage = &plan.stages[0];
    println!("whole, it takes {} bytes of activations", stage.activations);
    gpu.limit_memory(held(&gpu) + (stage.total() - stage.weights) / 2).unwrap();
    expect_out_of_memory(&draw(&mut pipeline, &never).map(|_| ()).unwrap_err());
    let generation = draw(&mut pipeline, &large).unwrap();
    println!("tiles of {:?} latents", generation.statistics.vae_tile);
    assert!(generation.statistics.vae_tile.is_some(), "in tiles");
    gpu.limit_memory(u64::MAX).unwrap();
    let whole = draw(&mut pipeline, &never).unwrap();
    assert_eq!(whole.latents, generation.latents, "the same latents");
}
