//! Pictures of what a run predicts meanwhile: what they show, and that they change nothing.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/loops.rs"]
mod loops;
mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use deepcache::image::Picture;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, Generation, LoadOptions, Progress, Request, StorageType,
};
use deepcache::schedulers::SchedulerKind;
use deepcache::weights::Replacements;
use half::f16;
use loops::{GPU, load, run};
use safetensors::Dtype;
use support::repository;

const SD1: &str = "tests/goldens/sd1/model";

fn tiny() -> PathBuf {
    repository("tests/goldens/tiny_autoencoder/taesd_decoder.safetensors")
}

fn load_with(
    model: &Path,
    vae: Option<&Path>,
    preview_vae: Option<PathBuf>,
    low_memory: bool,
) -> DiffusionPipeline {
    let replacements = Replacements { vae: vae.map(Path::to_owned), ..Replacements::default() };
    let storage = Some(StorageType::F32);
    let options = LoadOptions { storage, replacements, preview_vae, low_memory, ..LoadOptions::default() };
    DiffusionPipeline::load_on(GPU.clone(), model, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// A run with its previews.
fn watched(pipeline: &mut DiffusionPipeline, request: &Request) -> (Vec<(usize, Picture)>, Generation) {
    let mut previews = Vec::new();
    let mut calls = 0;
    let generation = pipeline.generate(request, |progress| {
        match progress {
            Progress::Denoising { completed, of, .. } => calls = (completed - 1) % (of / request.count) + 1,
            Progress::Preview { picture, preview } => {
                assert_eq!(calls % request.preview_every.unwrap(), 0, "after every so many calls");
                previews.push((picture, preview.clone()));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    (previews, generation.unwrap_or_else(|error| panic!("{error}")))
}

/// The mean difference of two pictures, of 255.
fn apart(left: &Picture, right: &Picture) -> f64 {
    assert_eq!((left.width, left.height), (right.width, right.height), "pictures of one size");
    let pairs = left.pixels.iter().zip(&right.pixels);
    let sum: f64 = pairs.map(|(left, right)| f64::from(left.abs_diff(*right))).sum();
    sum / left.pixels.len() as f64
}

fn request(scheduler: SchedulerKind) -> Request {
    Request {
        steps: Some(10),
        guidance_scale: Some(3.0),
        scheduler: Some(scheduler),
        seed: 4,
        width: Some(128),
        height: Some(128),
        ..Request::prompt("a large red circle on a blue background")
    }
}

#[test]
fn previews_approach_the_picture_with_samplers_of_every_kind() {
    // The trained model; the same decoder makes previews and the picture.
    let model = repository("assets/tiny");
    let mut pipeline = load_with(&model, Some(&tiny()), Some(tiny()), false);
    for scheduler in [
        SchedulerKind::Ddim,
        SchedulerKind::Euler,
        SchedulerKind::DpmPlusPlus2m,
        SchedulerKind::Heun,
        SchedulerKind::Pndm,
    ] {
        let request = Request { preview_every: Some(1), ..request(scheduler) };
        let (previews, generation) = watched(&mut pipeline, &request);
        assert_eq!(previews.len(), generation.statistics.steps.len(), "after every call");
        let distances: Vec<f64> =
            previews.iter().map(|(_, preview)| apart(preview, &generation.pictures[0])).collect();
        println!("{scheduler}: {distances:.2?}");
        let third = distances.len() / 3;
        let mean = |distances: &[f64]| distances.iter().sum::<f64>() / distances.len() as f64;
        let [early, late] = [&distances[..third], &distances[distances.len() - third..]].map(mean);
        assert!(late < 0.5 * early, "{scheduler}: {early:.2} of 255 early, {late:.2} late");
        // The last call's prediction is where these samplers end, but for PNDM's sums over several.
        if scheduler != SchedulerKind::Pndm {
            assert!(distances[distances.len() - 1] < 1.0, "{scheduler}: {distances:.2?}");
        }
    }
}

#[test]
fn the_picture_is_the_same_to_the_bit_with_and_without() {
    for (cache, low_memory) in
        [(None, false), (Some(CacheOptions::uniform(3, 0)), false), (Some(CacheOptions::uniform(3, 0)), true)]
    {
        let mut plain = load(&repository(SD1), StorageType::F32);
        let mut pipeline = load_with(&repository(SD1), None, Some(tiny()), low_memory);
        let request = Request { count: 2, cache, ..request(SchedulerKind::EulerAncestral) };
        let without = run(&mut plain, &request);
        let asked = Request { preview_every: Some(4), ..request.clone() };
        let (previews, with) = watched(&mut pipeline, &asked);
        assert_eq!(with.latents, without.latents);
        assert_eq!(with.pictures, without.pictures);
        let numbers: Vec<usize> = previews.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 0, 1, 1], "calls 4 and 8 of each picture's ten");
        assert_eq!(previews[0].1.width, 128);

        // What is not asked for takes nothing, even where the decoder is loaded.
        let off = run(&mut pipeline, &request);
        assert_eq!(off.pictures, without.pictures);
        assert_eq!(off.statistics.dispatches_full, without.statistics.dispatches_full);
        assert_eq!(off.statistics.dispatches_full, with.statistics.dispatches_full);
        if !low_memory {
            assert_eq!(off.statistics.activation_bytes, without.statistics.activation_bytes);
            assert_eq!(off.statistics.persistent_bytes, without.statistics.persistent_bytes);
        }
        for asked in [&asked, &request] {
            let plan = pipeline.memory_plan(asked).unwrap();
            let found = run(&mut pipeline, asked).statistics.peak_bytes;
            let planned = plan.stages.iter().map(|stage| stage.total()).max();
            assert_eq!(planned, Some(found), "the plan of the run");
        }
    }
}

#[test]
fn a_run_can_be_stopped_at_a_preview() {
    let mut pipeline = load_with(&repository(SD1), None, Some(tiny()), false);
    let request = Request { preview_every: Some(2), ..request(SchedulerKind::Ddim) };
    let error = pipeline.generate(&request, |progress| match progress {
        Progress::Preview { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(error, Err(deepcache::Error::Cancelled { completed: 2, steps: 10 })), "{error:?}");
    run(&mut pipeline, &request);
}

/// A tiny decoder of the released shape with random weights.
fn released_shape(path: &Path) {
    let mut state = 1_u32;
    let mut tensors = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, scale: f32| {
        let values = (0..shape.iter().product()).flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let unit = f32::from(u16::try_from(state >> 16).unwrap()) / 32768.0 - 1.0;
            f16::from_f32(unit * scale).to_le_bytes()
        });
        tensors.push((name, Dtype::F16, shape, values.collect()));
    };
    let mut convolution = |name: String, inputs: usize, outputs: usize, bias: bool| {
        push(format!("{name}.weight"), vec![outputs, inputs, 3, 3], 0.07);
        if bias {
            push(format!("{name}.bias"), vec![outputs], 0.05);
        }
    };
    convolution("1".to_owned(), 4, 64, true);
    for block in [3, 4, 5, 8, 9, 10, 13, 14, 15, 18] {
        for leaf in [0, 2, 4] {
            convolution(format!("{block}.conv.{leaf}"), 64, 64, true);
        }
    }
    for layer in [7, 12, 17] {
        convolution(layer.to_string(), 64, 64, false);
    }
    convolution("19".to_owned(), 64, 3, true);
    checkpoints::write(path, &tensors);
}

#[test]
fn without_a_decoder_known_latents_are_coloured_by_a_matrix_and_others_are_refused() {
    let mut pipeline = load(&repository(SD1), StorageType::F32);
    let request = Request { preview_every: Some(5), ..request(SchedulerKind::Euler) };
    let told = pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(told.contains("give a tiny autoencoder (--preview-vae)"), "{told}");
    let none = Request { preview_every: Some(0), ..request.clone() };
    let told = pipeline.generate(&none, |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(told.contains("preview every") && told.contains("found 0"), "{told}");

    let folder = tempfile::tempdir().unwrap();
    let decoder = folder.path().join("decoder.safetensors");
    released_shape(&decoder);
    let mut pipeline = load_with(&repository(SD1), Some(&decoder), None, false);
    let last = Request { preview_every: Some(10), width: Some(64), height: Some(32), ..request };
    let (previews, generation) = watched(&mut pipeline, &last);
    let [(_, preview)] = &previews[..] else { panic!("one preview, found {}", previews.len()) };
    assert_eq!((preview.width, preview.height), (8, 4), "as large as the latents");
    // Euler ends with what its last call predicts.
    const FACTORS: [[f32; 4]; 3] =
        [[0.298, 0.187, -0.158, -0.184], [0.207, 0.286, 0.189, -0.271], [0.208, 0.173, 0.264, -0.473]];
    let (latents, area) = (generation.latents.values(), 32);
    for pixel in 0..area {
        for (colour, factors) in FACTORS.iter().enumerate() {
            let latent = latents.iter().skip(pixel).step_by(area);
            let value: f32 = latent.zip(factors).map(|(value, factor)| value * factor).sum();
            let expected = ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round();
            let found = f32::from(preview.pixels[3 * pixel + colour]);
            assert!((found - expected).abs() <= 1.0, "pixel {pixel}: {found}, expected {expected}");
        }
    }
}

#[test]
fn pixels_are_their_own_previews() {
    let mut pipeline = load(&repository("tests/goldens/ddpm-cifar/model"), StorageType::F32);
    let request = Request {
        steps: Some(10),
        scheduler: Some(SchedulerKind::Ddim),
        preview_every: Some(1),
        seed: 1,
        ..Request::unconditional()
    };
    let (previews, generation) = watched(&mut pipeline, &request);
    let last = apart(&previews[9].1, &generation.pictures[0]);
    assert!(last < 1.0, "{last} of 255");
}

#[test]
fn what_cannot_decode_previews_is_refused() {
    let refused = |model: &str, preview: &Path| {
        let options = LoadOptions { preview_vae: Some(preview.to_owned()), ..LoadOptions::default() };
        DiffusionPipeline::load_on(GPU.clone(), repository(model), &options).unwrap_err().to_string()
    };
    let told = refused(SD1, &repository(SD1).join("vae"));
    assert!(told.contains("preview vae") && told.contains("expected a tiny autoencoder"), "{told}");
    let told = refused(SD1, Path::new("none.safetensors"));
    assert!(told.contains("preview vae") && told.contains("none.safetensors does not exist"), "{told}");
    let told = refused("tests/goldens/ddpm-cifar/model", &tiny());
    assert!(told.contains("preview vae") && told.contains("latents of Stable Diffusion"), "{told}");
}
