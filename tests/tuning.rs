//! Tuning on the device of this machine: what it finds is valid, and changes pictures by rounding only.

#![expect(clippy::unwrap_used, reason = "a test program")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::sync::Arc;
use std::time::Duration;

use deepcache::gpu::choices::{Choices, Family, Reason, Tuned};
use deepcache::gpu::recording::Recording;
use deepcache::kernels::conv2d::{self, Conv2dConfig, Padding, conv2d};
use deepcache::kernels::matmul::{self, matmul};
use deepcache::pipelines::{Request, StorageType, tune};
use deepcache::schedulers::SchedulerKind;
use deepcache::tensor::{ElementType, Tensor};
use loops::{GPU, load, run};
use support::repository;

/// Records a plain product, a gated one, and a convolution.
fn record(choices: Choices, element: ElementType, weights: ElementType) -> Recording {
    let tensor = |extents: &[usize]| Tensor::external("tensor", extents, element);
    let matrix = |extents: &[usize]| Tensor::external("matrix", extents, weights);
    let mut recording = Recording::new("products").with_choices(Arc::new(choices));
    let (input, weight) = (tensor(&[40, 512]), matrix(&[512, 96]));
    matmul(&mut recording, &input, &weight, &matmul::Epilogue::default()).unwrap();
    let epilogue = matmul::Epilogue { gated: true, ..matmul::Epilogue::default() };
    matmul(&mut recording, &input, &weight, &epilogue).unwrap();
    let (image, weight) = (tensor(&[1, 9, 7, 64]), matrix(&[9 * 64, 36]));
    let config = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };
    conv2d(&mut recording, &image, None, &weight, &config, &conv2d::Epilogue::default()).unwrap();
    recording
}

#[test]
fn every_candidate_of_every_family_agrees_and_what_is_found_is_used() {
    let families = GPU.families().into_iter();
    for (family, int8) in families.flat_map(|family| [(family, false), (family, true)]) {
        let choices = Choices { family, ..GPU.choices() };
        // cooperative matrices multiply nothing else than f16
        let cooperative = matches!(family, Family::Cooperative(_));
        let element = if cooperative { ElementType::F16 } else { ElementType::F32 };
        let weights = if int8 { ElementType::Int8 } else { element };
        let recording = record(choices.clone(), element, weights);
        let tuning = tune(&GPU, &[&recording], Duration::from_secs(60), |tried| println!("{tried}")).unwrap();
        let products = recording.chosen().iter().map(|choice| choice.product);
        assert_eq!(tuning.products.len(), products.collect::<std::collections::BTreeSet<_>>().len());
        assert!(tuning.left.is_empty(), "{:?}", tuning.left);
        for tried in &tuning.products {
            assert!((3..=8).contains(&tried.trials.len()), "{tried}");
            assert_eq!(tried.rejected().count(), 0, "{tried}");
        }

        // The slowest of each would be used as well, if it had been the fastest.
        let slowest = |tried: &deepcache::pipelines::TunedProduct| {
            let slowest = tried.trials.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap();
            (tried.product.to_string(), slowest.tiling)
        };
        for tuned in [tuning.tuned(), tuning.products.iter().map(slowest).collect::<Tuned>()] {
            let choices = Choices { tuned: tuned.clone(), ..choices.clone() };
            let recording = record(choices, element, weights);
            for choice in recording.chosen() {
                let wanted = tuned.get(&choice.product.to_string());
                let reason = if wanted.is_some() { Reason::Tuned } else { Reason::Default };
                assert_eq!(choice.reason, reason, "{choice}");
                assert!(wanted.is_none_or(|wanted| *wanted == choice.tiling), "{choice}");
            }
        }
    }
}

#[test]
fn a_tuned_picture_differs_by_rounding_only() {
    let mut pipeline = load(&repository("assets/tiny"), StorageType::F32);
    let request = Request {
        steps: Some(3),
        scheduler: Some(SchedulerKind::Ddim),
        width: Some(64),
        height: Some(64),
        ..Request::prompt("a large red circle on a blue background")
    };
    let before = run(&mut pipeline, &request);
    let tuning = pipeline.tune(&request, Duration::from_secs(4), |tried| println!("{tried}")).unwrap();
    assert!(!tuning.products.is_empty());
    let chosen = pipeline.choices(&request).unwrap();
    let tuned = chosen.iter().filter(|choice| choice.reason == Reason::Tuned).count();
    assert_eq!(tuned, tuning.tuned().len());

    let after = run(&mut pipeline, &request);
    let distance = after.latents.distance(&before.latents).unwrap();
    println!("{tuned} of {} products tuned, latents differ by {distance:.1e}", chosen.len());
    assert!(distance < 1e-4, "{distance}");
}
