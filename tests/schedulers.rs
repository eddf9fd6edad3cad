//! The samplers against tables and traces of diffusers, and the laws that they keep.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a panic is how a test fails")]

mod support;

use deepcache::error::Error;
use deepcache::schedulers::{SchedulerConfig, SchedulerKind, Trajectory};
use serde_json::{Value, json};
use support::{Goldens, assert_close, max_abs, relative_l2};

fn parse(config: &Value) -> Result<SchedulerConfig, Error> {
    SchedulerConfig::from_json("scheduler_config.json", &config.to_string())
}

fn plan(config: &Value, kind: SchedulerKind, steps: usize, eta: f64) -> Result<Trajectory, Error> {
    parse(config)?.trajectory(kind, steps, eta)
}

/// Every golden case whose name ends so.
fn cases(ending: &str) -> Vec<Value> {
    let manifest = support::json("schedulers/manifest.json");
    let mut cases = manifest["cases"].as_array().unwrap().clone();
    cases.retain(|case| case["name"].as_str().unwrap().ends_with(ending));
    assert!(!cases.is_empty(), "no case ends with {ending}");
    cases
}

struct Case {
    name: String,
    goldens: Goldens,
    config: SchedulerConfig,
    kind: SchedulerKind,
    relative: f64,
    absolute: f64,
}

fn open(case: &Value) -> Case {
    let config = parse(&case["config"]).unwrap();
    Case {
        name: case["name"].as_str().unwrap().to_owned(),
        goldens: Goldens::open(&format!("schedulers/{}", case["file"].as_str().unwrap())),
        kind: config.kind().unwrap(),
        config,
        relative: case["tolerance"]["rel_l2"].as_f64().unwrap(),
        absolute: case["tolerance"]["max_abs"].as_f64().unwrap(),
    }
}

#[test]
fn tables_are_those_of_diffusers() {
    for case in &cases("_tables") {
        let Case { name, goldens, config, kind, relative, absolute } = open(case);
        let alphas = goldens.values("out.alphas_cumprod");
        assert_close(&name, &config.cumulative_alphas(kind), &alphas, relative, absolute);
        for tensor in goldens.names() {
            let Some(steps) = tensor.strip_prefix("out.timesteps.") else { continue };
            let trajectory = config.trajectory(kind, steps.parse().unwrap(), 0.0).unwrap();
            assert_eq!(trajectory.timesteps, goldens.values(&tensor), "{name}, {tensor}");
            assert_eq!(trajectory.calls.len(), trajectory.timesteps.len(), "{name}, {tensor}");
            let sigma = goldens.values(&format!("out.init_noise_sigma.{steps}"));
            assert_eq!([trajectory.initial_sigma], sigma[..], "{name}, {tensor}");
        }
        for steps in case["refused"].as_array().unwrap() {
            let steps: usize = steps.as_str().unwrap().parse().unwrap();
            let error = config.trajectory(kind, steps, 0.0).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn traces_are_those_of_diffusers() {
    for case in &cases("_trace") {
        let Case { name, goldens, config, kind, relative, absolute } = open(case);
        let steps = usize::try_from(case["steps"].as_u64().unwrap()).unwrap();
        let eta = case["step_kwargs"]["eta"].as_f64().unwrap_or(0.0);
        let trajectory = config.trajectory(kind, steps, eta).unwrap();
        assert_eq!(trajectory.timesteps, goldens.values("in.timesteps"), "{name}");

        let unit_noise = goldens.values("in.unit_noise");
        let size = unit_noise.len();
        let outputs = goldens.values("in.model_output");
        let noise = if eta > 0.0 { goldens.values("in.noise") } else { Vec::new() };
        let mut planes = trajectory.start(&unit_noise);
        let (mut inputs, mut samples) = (Vec::new(), Vec::new());
        for (index, call) in trajectory.calls.iter().enumerate() {
            inputs.extend(planes[0].iter().map(|value| call.input_scale * value));
            let part = index * size..(index + 1) * size;
            let noise = if call.uses_noise { &noise[part.clone()] } else { &[] };
            trajectory.apply(index, &mut planes, &outputs[part], noise).unwrap();
            samples.extend_from_slice(&planes[0]);
        }
        assert_close(&name, &samples, &goldens.values("out.samples"), relative, absolute);
        assert_close(&name, &inputs, &goldens.values("out.scaled_input"), relative, absolute);
    }
}

/// The sample at a signal share of a fixed clean sample and fixed noise.
fn mix(alpha: f64, clean: f64, noise: f64) -> f64 {
    alpha.sqrt() * clean + (1.0 - alpha).sqrt() * noise
}

#[test]
fn a_perfect_model_leads_every_sampler_to_the_clean_sample() {
    let (clean, noise) = (0.7, -1.3);
    for (kind, skip, prediction) in [
        (SchedulerKind::Ddim, true, "epsilon"),
        (SchedulerKind::Ddim, true, "v_prediction"),
        (SchedulerKind::Ddim, true, "sample"),
        (SchedulerKind::Pndm, true, "epsilon"),
        (SchedulerKind::Pndm, false, "epsilon"),
    ] {
        let config = json!({"prediction_type": prediction, "set_alpha_to_one": true, "skip_prk_steps": skip,
                            "clip_sample": false, "beta_schedule": "scaled_linear"});
        let config = parse(&config).unwrap();
        let alphas = config.cumulative_alphas(kind);
        let trajectory = config.trajectory(kind, 20, 0.0).unwrap();
        let first = alphas[trajectory.timesteps[0] as usize];
        let mut planes = vec![vec![0.0]; 1 + trajectory.history];
        planes[0][0] = mix(first, clean, noise);
        for (index, timestep) in trajectory.timesteps.iter().enumerate() {
            let alpha = alphas[*timestep as usize];
            let output = match prediction {
                "epsilon" => noise,
                "sample" => clean,
                _ => alpha.sqrt() * noise - (1.0 - alpha).sqrt() * clean,
            };
            trajectory.apply(index, &mut planes, &[output], &[]).unwrap();
        }
        let distance = (planes[0][0] - clean).abs();
        assert!(distance < 1e-9, "{kind}, {prediction}, skip {skip}: {distance}");
    }
}

#[test]
fn clipping_far_away_changes_nothing() {
    let config = |clip: bool| json!({"clip_sample": clip, "clip_sample_range": 1e9});
    let clipped = plan(&config(true), SchedulerKind::Ddim, 7, 0.5).unwrap();
    let free = plan(&config(false), SchedulerKind::Ddim, 7, 0.5).unwrap();
    let unit: Vec<f64> = (0..5).map(|index| f64::from(index) - 2.0).collect();
    let (mut left, mut right) = (clipped.start(&unit), free.start(&unit));
    for index in 0..7 {
        let output: Vec<f64> = left[0].iter().map(|value| (value + 1.0).sin()).collect();
        clipped.apply(index, &mut left, &output, &unit).unwrap();
        free.apply(index, &mut right, &output, &unit).unwrap();
    }
    assert!(relative_l2(&left[0], &right[0]) < 1e-10, "{left:?} {right:?}");
    assert!(clipped.calls.iter().all(|call| call.prediction.is_some()), "clipped");
    assert!(free.calls.iter().all(|call| call.prediction.is_none()), "free");
}

#[test]
fn every_class_has_its_own_defaults() {
    let empty = json!({});
    let ddim = plan(&empty, SchedulerKind::Ddim, 10, 0.0).unwrap();
    assert_eq!(ddim, plan(&json!({"clip_sample": true}), SchedulerKind::Ddim, 10, 0.0).unwrap());
    assert_eq!(ddim, plan(&json!({"set_alpha_to_one": true}), SchedulerKind::Ddim, 10, 0.0).unwrap());
    let pndm = plan(&empty, SchedulerKind::Pndm, 10, 0.0).unwrap();
    assert_eq!(pndm, plan(&json!({"set_alpha_to_one": false}), SchedulerKind::Pndm, 10, 0.0).unwrap());
    assert_eq!(pndm, plan(&json!({"skip_prk_steps": false}), SchedulerKind::Pndm, 10, 0.0).unwrap());
    // A file of one class serves the other; what only the first knows is left out.
    let shared = json!({"_class_name": "PNDMScheduler", "skip_prk_steps": false, "solver_order": 2});
    assert_eq!(ddim, plan(&shared, SchedulerKind::Ddim, 10, 0.0).unwrap());
    assert_eq!(parse(&shared).unwrap().kind(), Some(SchedulerKind::Pndm));
    assert_eq!(pndm, plan(&json!({"thresholding": true}), SchedulerKind::Pndm, 10, 0.0).unwrap());
}

#[test]
fn trained_betas_take_the_place_of_a_schedule() {
    let betas: Vec<f64> =
        (0..1000).map(|index| 0.0001 + (0.02 - 0.0001) / 999.0 * f64::from(index)).collect();
    let trained = parse(&json!({"trained_betas": betas, "beta_schedule": "laplace"})).unwrap();
    let linear = parse(&json!({})).unwrap();
    let kind = SchedulerKind::Ddim;
    assert!(max_abs(&trained.cumulative_alphas(kind), &linear.cumulative_alphas(kind)) < 1e-6, "tables");
}

#[test]
fn every_number_of_steps_is_planned_or_refused() {
    for spacing in ["leading", "linspace", "trailing"] {
        for kind in SchedulerKind::ALL {
            let config =
                json!({"num_train_timesteps": 100, "timestep_spacing": spacing, "skip_prk_steps": true});
            for steps in 1..=100 {
                let trajectory = plan(&config, kind, steps, 0.0).unwrap();
                let calls = steps + usize::from(kind == SchedulerKind::Pndm && steps > 1);
                assert_eq!(trajectory.calls.len(), calls, "{kind}, {spacing}, {steps}");
            }
            for steps in [0, 101, usize::MAX] {
                let error = plan(&config, kind, steps, 0.0).unwrap_err();
                assert!(matches!(&error, Error::Option { option, .. } if option == "steps"), "{error}");
            }
        }
    }
    let beyond = plan(&json!({"steps_offset": 1}), SchedulerKind::Ddim, 1000, 0.0).unwrap_err();
    assert!(beyond.to_string().contains("timestep 1000"), "{beyond}");
}

#[test]
fn a_configuration_that_cannot_be_honoured_names_its_key() {
    for (config, key) in [
        (json!({"betas": 1}), "betas"),
        (json!({"beta_start": -0.1}), "beta_start"),
        (json!({"beta_end": 1.0}), "beta_end"),
        (json!({"beta_end": "0.02"}), "beta_end"),
        (json!({"beta_schedule": "sigmoid"}), "beta_schedule"),
        (json!({"beta_schedule": null}), "beta_schedule"),
        (json!({"trained_betas": [0.1]}), "trained_betas"),
        (json!({"trained_betas": [2.0], "num_train_timesteps": 1}), "trained_betas"),
        (json!({"num_train_timesteps": 0}), "num_train_timesteps"),
        (json!({"num_train_timesteps": 1e12}), "num_train_timesteps"),
        (json!({"num_train_timesteps": -5}), "num_train_timesteps"),
        (json!({"steps_offset": 0.5}), "steps_offset"),
        (json!({"steps_offset": i64::MIN}), "steps_offset"),
        (json!({"prediction_type": "flow_prediction"}), "prediction_type"),
        (json!({"timestep_spacing": 3}), "timestep_spacing"),
        (json!({"clip_sample": 1}), "clip_sample"),
        (json!({"clip_sample_range": 0}), "clip_sample_range"),
        (json!({"thresholding": true}), "thresholding"),
        (json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}), "prediction_type"),
    ] {
        let error = plan(&config, SchedulerKind::Ddim, 1, 0.0).unwrap_err();
        let named = matches!(&error, Error::Config { key: Some(found), .. } if found == key);
        assert!(named, "{config}: {error}");
        assert!(error.to_string().starts_with("scheduler_config.json: key "), "{error}");
    }
    for text in ["", "[]", "{", "3", "{\"beta_end\": 1e999}", "null"] {
        let error = SchedulerConfig::from_json("scheduler_config.json", text).unwrap_err();
        assert!(matches!(error, Error::Config { key: None, .. }), "{text}: {error}");
    }
    let sample = json!({"prediction_type": "sample", "skip_prk_steps": true});
    let error = plan(&sample, SchedulerKind::Pndm, 4, 0.0).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    let error = SchedulerConfig::from_file("does/not/exist.json").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn eta_is_a_share_and_belongs_to_ddim() {
    for (kind, eta) in [
        (SchedulerKind::Ddim, -0.1),
        (SchedulerKind::Ddim, 1.1),
        (SchedulerKind::Ddim, f64::NAN),
        (SchedulerKind::Pndm, 0.5),
        (SchedulerKind::Pndm, f64::NAN),
    ] {
        let error = plan(&json!({}), kind, 10, eta).unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if option == "eta"), "{kind}, {eta}: {error}");
    }
    let trajectory = plan(&json!({}), SchedulerKind::Ddim, 10, 1.0).unwrap();
    assert!(trajectory.calls.iter().all(|call| call.uses_noise), "one draw per step");
}

#[test]
fn planes_of_the_wrong_size_are_refused() {
    let trajectory = plan(&json!({"skip_prk_steps": true}), SchedulerKind::Pndm, 4, 0.0).unwrap();
    let mut planes = trajectory.start(&[1.0, 2.0]);
    assert_eq!(planes.len(), 4);
    for error in [
        trajectory.apply(5, &mut planes, &[0.0; 2], &[]).unwrap_err(),
        trajectory.apply(0, &mut planes, &[0.0; 3], &[]).unwrap_err(),
        trajectory.apply(0, &mut planes[..2], &[0.0; 2], &[]).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
}

#[test]
fn scheduler_names_are_read_and_written() {
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
        assert_eq!(SchedulerKind::from_class_name(kind.class_name()), Some(kind));
    }
    let error = "euler".parse::<SchedulerKind>().unwrap_err();
    assert_eq!(error.to_string(), "scheduler: expected one of ddim, pndm; found \"euler\"");
}
