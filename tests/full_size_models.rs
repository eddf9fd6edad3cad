//! Models of the full shape of Stable Diffusion 1.5, 2.1 and XL with random weights, in both formats. See
//! `scripts/check-full-size`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its sizes")]
#![expect(clippy::cast_precision_loss, reason = "sizes are rounded")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use deepcache::gpu::Gpu;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, Generation, LoadOptions, Progress, Request, StepKind, StorageType,
    VaeTiling,
};

/// A software device's memory among it.
const MOST_MEMORY: u64 = 20 << 30;

fn folder() -> PathBuf {
    PathBuf::from(std::env::var("DEEPCACHE_FULL_SIZE").expect("run by scripts/check-full-size"))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// One full and one shallow step at `side` by `side` pixels, with guidance.
fn request(side: usize) -> Request {
    Request {
        steps: Some(2),
        width: Some(side),
        height: Some(side),
        seed: 3,
        cache: Some(CacheOptions::uniform(2, 1)),
        ..Request::prompt("a lighthouse at dusk")
    }
}

/// Loads a model, plans a run and makes it: what the plan says must be what the device gives, to 5 %.
fn draw(model: &Path, request: &Request, options: &LoadOptions) -> Generation {
    let started = Instant::now();
    let mut pipeline = DiffusionPipeline::load(model, options).unwrap_or_else(|error| panic!("{error}"));
    let loaded = started.elapsed().as_secs_f64();
    let gpu = pipeline.gpu().clone();
    let plan = pipeline.memory_plan(request).unwrap();
    let mut found = 0;
    let generation = pipeline.generate(request, |progress| {
        if let Progress::Denoising { .. } = progress {
            found = found.max(gpu.allocated_bytes().expect("Vulkan tells"));
        }
        ControlFlow::Continue(())
    });
    let generation = generation.unwrap_or_else(|error| panic!("{error}"));
    let statistics = &generation.statistics;
    let name = model.strip_prefix(folder()).unwrap().display();
    println!(
        "{name}: loaded in {loaded:.1} s, 2 calls in {:.1} s, decoded in {:.1} s; planned {:.1} MiB, counted {:.1}, \
         given by the driver {:.1}",
        statistics.denoise_s,
        statistics.decode_s,
        mebibytes(plan.peak()),
        mebibytes(statistics.peak_bytes),
        mebibytes(found),
    );
    assert_eq!(statistics.peak_bytes, plan.peak(), "{name}: the plan");
    let apart = (found as f64 / plan.peak() as f64 - 1.0).abs();
    assert!(
        options.stream_weights.is_some() || apart < 0.05,
        "{name}: planned {}, found {found}",
        plan.peak()
    );
    let kinds: Vec<_> = statistics.steps.iter().map(|step| step.kind).collect();
    assert!(kinds.contains(&StepKind::Full) && kinds.contains(&StepKind::Shallow), "{name}: {kinds:?}");
    assert!(generation.latents.values().iter().all(|value| value.is_finite()), "{name}: finite");
    generation
}

fn check(kind: &str, side: usize) {
    let (folder, request) = (folder().join(kind), request(side));
    let options = LoadOptions::from(StorageType::F16);
    let directory = draw(&folder.join("diffusers"), &request, &options);
    // What a file cannot tell, and a random one does not show: here, whether it predicts velocity.
    let single = draw(&folder.join("single.safetensors"), &request, &options);
    assert_eq!(directory.latents, single.latents, "{kind}: both formats");
    assert_eq!(directory.pictures, single.pictures, "{kind}: both formats");
    let spread = directory.pictures[0].pixels.iter().copied();
    assert!(spread.clone().max() > spread.min(), "{kind}: not one colour");
    let streamed = LoadOptions { stream_weights: Some(64 << 20), ..options };
    let low = draw(&folder.join("diffusers"), &request, &streamed);
    assert_eq!(directory.pictures, low.pictures, "{kind}: with streamed weights");
    let peak = peak_resident();
    println!("{kind}: peak resident memory of the process {:.1} GiB", mebibytes(peak) / 1024.0);
    assert!(peak <= MOST_MEMORY, "inside 20 GiB");
}

#[test]
fn stable_diffusion_1_5_at_256() {
    check("sd15", 256);
}

#[test]
fn stable_diffusion_2_1_at_256() {
    check("sd21", 256);
}

#[test]
fn stable_diffusion_xl_at_512() {
    check("sdxl", 512);
}

/// The device as it is, and devices that bind less: the same latents, since the U-Net goes over some tokens at a time,
/// and the same picture from the same tiles.
#[test]
fn stable_diffusion_1_5_at_768_with_small_bindings() {
    let model = folder().join("sd15/diffusers");
    let request = Request { steps: Some(1), cache: None, vae_tiling: VaeTiling::Always, ..request(768) };
    let draw = |limit: u64| {
        let gpu = Arc::new(Gpu::open_limited(None, limit).unwrap());
        println!("a device that binds {:.1} MiB", mebibytes(gpu.binding_limit()));
        let mut pipeline =
            DiffusionPipeline::load_on(gpu, &model, &LoadOptions::from(StorageType::F16)).unwrap();
        let plan = pipeline.memory_plan(&request).unwrap();
        let (name, bytes) = &plan.largest_binding;
        println!("largest binding {name}: {:.1} MiB; tiles {:?}", mebibytes(*bytes), plan.vae_tile);
        assert!(*bytes <= limit, "{name} binds {bytes}");
        pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap_or_else(|error| panic!("{error}"))
    };
    let wide = draw(u64::MAX);
    // A software device binds no more than this anyway.
    if Gpu::open(None).unwrap().binding_limit() > 128 << 20 {
        let usual = draw(128 << 20);
        assert_eq!(wide.latents, usual.latents, "the same latents at 128 MiB");
        assert_eq!(wide.pictures, usual.pictures, "the same picture at 128 MiB");
    }
    // A tile of 64 latents does not fit any more; less than this does not bind the largest weight, of 59 MB.
    let narrow = draw(64 << 20);
    assert_eq!(wide.latents, narrow.latents, "the same latents at 64 MiB");
}

/// The most memory that the process has had.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    1024 * line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
}
