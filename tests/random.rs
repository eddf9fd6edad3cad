//! The noise against that of PyTorch.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use deepcache::random::{Generator, TorchGenerator};
use support::{Goldens, assert_close};

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// Runs a check on every golden file whose name starts so, with its seed and tolerances.
fn for_each_case(start: &str, check: impl Fn(&str, u64, &Goldens, f64, f64)) {
    let manifest = support::json("rng/manifest.json");
    let mut count = 0;
    for case in manifest["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if !name.starts_with(start) {
            continue;
        }
        count += 1;
        let goldens = Goldens::open(&format!("rng/{}", case["file"].as_str().unwrap()));
        let limit = |kind: &str| case["tolerance"][kind].as_f64().unwrap();
        check(name, case["seed"].as_u64().unwrap(), &goldens, limit("rel_l2"), limit("max_abs"));
    }
    assert!(count > 2, "{count} cases start with {start}");
}

#[test]
fn a_seed_draws_what_torch_draws() {
    for_each_case("seed_", |name, seed, goldens, relative, absolute| {
        for tensor in goldens.names() {
            let expected = goldens.values(&tensor);
            let got = doubles(&TorchGenerator::new(seed).normal(expected.len()));
            assert_close(&format!("{name}, {tensor}"), &got, &expected, relative, absolute);
        }
    });
}

#[test]
fn successive_draws_go_on_as_in_torch() {
    for_each_case("sequence_", |name, seed, goldens, relative, absolute| {
        let mut generator = TorchGenerator::new(seed);
        for index in 0..goldens.names().len() {
            let tensor = format!("out.draw.{index}");
            let expected = goldens.values(&tensor);
            let got = doubles(&generator.normal(expected.len()));
            assert_close(&format!("{name}, {tensor}"), &got, &expected, relative, absolute);
        }
    });
}

#[test]
fn the_other_generator_draws_what_torch_draws_on_a_gpu() {
    for_each_case("philox_", |name, seed, goldens, relative, absolute| {
        let expected = goldens.values("out.philox.1024");
        let got = doubles(&Generator::Philox.seeded(seed).normal(expected.len()));
        assert_close(name, &got, &expected, relative, absolute);
    });
    let mut source = Generator::Philox.seeded(0);
    assert_ne!(source.normal(8), source.normal(8), "the second draw is new noise");
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    let draw = |seed| TorchGenerator::new(seed).normal(20);
    assert_eq!(draw(7), draw(7 + (1 << 32)));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn an_empty_draw_changes_nothing() {
    let mut generator = TorchGenerator::new(3);
    assert!(generator.normal(0).is_empty(), "nothing was asked for");
    assert_eq!(generator.normal(17), TorchGenerator::new(3).normal(17));
}

#[test]
fn noise_is_finite_with_mean_zero_and_variance_one() {
    let values = doubles(&TorchGenerator::new(99).normal(1 << 18));
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    assert!(values.iter().all(|value| value.is_finite()), "all finite");
    // Four standard errors: sqrt(1 / n) of the mean, sqrt(2 / n) of the variance.
    assert!(mean.abs() < 4.0 / count.sqrt(), "mean {mean}");
    assert!((variance - 1.0).abs() < 4.0 * (2.0 / count).sqrt(), "variance {variance}");
}

#[test]
fn blocks_may_be_drawn_together_or_apart() {
    let together = TorchGenerator::new(5).normal(48);
    let mut generator = TorchGenerator::new(5);
    let apart: Vec<f32> = [16, 32].iter().flat_map(|&count| generator.normal(count)).collect();
    assert_eq!(together, apart);
}
