//! The samplers against tables and traces of diffusers, and the laws that they keep.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a panic is how a test fails")]

#[path = "schedulers/configs.rs"]
mod configs;
#[path = "schedulers/laws.rs"]
mod laws;
#[path = "schedulers/parts.rs"]
mod parts;
mod support;

use std::collections::BTreeMap;

use deepcache::error::Error;
use deepcache::schedulers::{SamplerOptions, SchedulerConfig, SchedulerKind, Trajectory};
use serde_json::Value;
use support::{Goldens, assert_close, relative_l2};

/// Reads a configuration as diffusers would write it: infinity without quotes.
fn parse(config: &Value) -> Result<SchedulerConfig, Error> {
    let text = config.to_string().replace("\"-Infinity\"", "-Infinity");
    SchedulerConfig::from_json("scheduler_config.json", &text)
}

fn plan(config: &Value, kind: SchedulerKind, steps: usize, eta: f64) -> Result<Trajectory, Error> {
    parse(config)?.trajectory(&SamplerOptions { eta, ..SamplerOptions::new(kind, steps) })
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

/// A plan's timesteps against those of diffusers: exactly where they are whole numbers.
fn assert_timesteps(what: &str, trajectory: &Trajectory, expected: &[f64], relative: f64, absolute: f64) {
    if expected.iter().all(|timestep| timestep.fract() == 0.0) {
        assert_eq!(trajectory.timesteps, expected, "{what}");
    } else {
        assert_close(&format!("{what}, timesteps"), &trajectory.timesteps, expected, relative, absolute);
    }
    assert_eq!(trajectory.calls.len(), trajectory.timesteps.len(), "{what}");
}

#[test]
fn tables_are_those_of_diffusers() {
    for case in &cases("_tables") {
        let Case { name, goldens, config, kind, relative, absolute } = open(case);
        let alphas = goldens.values("out.alphas_cumprod");
        assert_close(&name, &config.cumulative_alphas(kind).unwrap(), &alphas, relative, absolute);
        for tensor in goldens.names() {
            let Some(steps) = tensor.strip_prefix("out.timesteps.") else { continue };
            let what = format!("{name}, {steps} steps");
            let options = SamplerOptions::new(kind, steps.parse().unwrap());
            let trajectory = config.trajectory(&options).unwrap();
            assert_timesteps(&what, &trajectory, &goldens.values(&tensor), relative, absolute);
            let sigma = goldens.values(&format!("out.init_noise_sigma.{steps}"));
            assert_close(&what, &[trajectory.initial_sigma], &sigma, relative, absolute);
            if let Some(sigmas) = trajectory.sigmas {
                // Samplers with two calls per step have each sigma twice in diffusers.
                let mut expected = goldens.values(&format!("out.sigmas.{steps}"));
                expected.dedup();
                assert_close(&what, &sigmas, &expected, relative, absolute);
            }
        }
        for steps in case["refused"].as_array().unwrap() {
            let steps: usize = steps.as_str().unwrap().parse().unwrap();
            let error = config.trajectory(&SamplerOptions::new(kind, steps)).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{name}: {error}");
        }
    }
}

/// What a run is given, and what comes out: the scaled samples that the model sees, and the samples after each call.
fn play(
    trajectory: &Trajectory,
    unit_noise: &[f64],
    outputs: &[f64],
    noise: &[f64],
    images: usize,
) -> (Vec<f64>, Vec<f64>) {
    let size = unit_noise.len();
    let mut draws = noise.chunks_exact(size);
    let mut planes = trajectory.start(unit_noise);
    let (mut inputs, mut samples) = (Vec::new(), Vec::new());
    for (index, call) in trajectory.calls.iter().enumerate() {
        inputs.extend(planes[0].iter().map(|value| call.input_scale * value));
        let output = &outputs[index * size..(index + 1) * size];
        let noise =
            if call.uses_noise { draws.next().expect("a draw for each call with noise") } else { &[] };
        trajectory.apply(index, &mut planes, output, noise, images).unwrap();
        samples.extend_from_slice(&planes[0]);
    }
    (inputs, samples)
}

#[test]
fn traces_are_those_of_diffusers() {
    for case in &cases("_trace") {
        let Case { name, goldens, config, kind, relative, absolute } = open(case);
        let steps = usize::try_from(case["steps"].as_u64().unwrap()).unwrap();
        let eta = case["step_kwargs"]["eta"].as_f64().unwrap_or(0.0);
        let options = SamplerOptions { eta, ..SamplerOptions::new(kind, steps) };
        let trajectory = config.trajectory(&options).unwrap();
        assert_timesteps(&name, &trajectory, &goldens.values("in.timesteps"), relative, absolute);
        let unit_noise = goldens.tensor("in.unit_noise");
        let has_noise = goldens.names().iter().any(|name| name == "in.noise");
        let noise = if has_noise { goldens.values("in.noise") } else { Vec::new() };
        let draws = trajectory.calls.iter().filter(|call| call.uses_noise).count();
        assert_eq!(draws * unit_noise.values.len(), noise.len(), "{name}: draws");
        let outputs = goldens.values("in.model_output");
        let (inputs, samples) = play(&trajectory, &unit_noise.values, &outputs, &noise, unit_noise.shape[0]);
        assert_close(&name, &samples, &goldens.values("out.samples"), relative, absolute);
        assert_close(&name, &inputs, &goldens.values("out.scaled_input"), relative, absolute);
    }
}

/// The configuration of a case of `steps.json`: the keys of a common file and its own.
fn steps_config(list: &Value, case: &Value) -> Value {
    let mut config = case["config"].clone();
    if let Some(file) = case["file"].as_str() {
        for (key, value) in list["files"][file].as_object().unwrap() {
            config.as_object_mut().unwrap().entry(key).or_insert(value.clone());
        }
    }
    config
}

/// What the caller of a case of `steps.json` chooses.
fn steps_options(case: &Value) -> SamplerOptions {
    let options = &case["options"];
    let kind = case["kind"].as_str().unwrap().parse().unwrap();
    SamplerOptions {
        eta: options["eta"].as_f64().unwrap_or(0.0),
        sigmas: options["sigmas"].as_str().map(|name| name.parse().unwrap()),
        timestep_spacing: options["timestep_spacing"].as_str().map(|name| name.parse().unwrap()),
        ..SamplerOptions::new(kind, case["steps"].as_u64().unwrap() as usize)
    }
}

#[test]
fn steps_of_every_class_and_key_are_those_of_diffusers() {
    let list = support::json("schedulers/steps.json");
    let goldens = Goldens::open("schedulers/steps.safetensors");
    let unit_noise = goldens.tensor("unit_noise");
    let (outputs, noise) = (goldens.values("output"), goldens.values("noise"));
    let (images, size) = (unit_noise.shape[0], unit_noise.values.len());
    let mut worst: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in list["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let options = steps_options(case);
        let trajectory =
            match parse(&steps_config(&list, case)).and_then(|config| config.trajectory(&options)) {
                Ok(trajectory) => trajectory,
                Err(error) => {
                    failures.push(format!("{name}: {error}"));
                    continue;
                }
            };
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let (calls, draws, levels) = (count("calls"), count("draws"), count("sigmas"));
        if calls != trajectory.calls.len() {
            failures.push(format!("{name}: {} calls, diffusers makes {calls}", trajectory.calls.len()));
            continue;
        }
        let drawn = trajectory.calls.iter().filter(|call| call.uses_noise).count();
        if draws != drawn {
            failures.push(format!("{name}: {drawn} draws, diffusers makes {draws}"));
            continue;
        }
        let golden = goldens.values(name);
        let (sigma, rest) = golden.split_at(1);
        let (timesteps, rest) = rest.split_at(calls);
        let (scales, rest) = rest.split_at(calls);
        let (sigmas, expected) = rest.split_at(levels);
        let found_scales: Vec<f64> = trajectory.calls.iter().map(|call| call.input_scale).collect();
        let (_, samples) = play(&trajectory, &unit_noise.values, &outputs, &noise, images);
        assert_eq!(samples.len(), calls * size, "{name}");

        // The rule of the larger pack: eight times what f32 alone does, and never less than 2e-5.
        let limit = (8.0 * case["f64_rel_l2"].as_f64().unwrap()).max(2e-5);
        let by_call = samples.chunks_exact(size).zip(expected.chunks_exact(size));
        let of_samples = by_call.map(|(found, expected)| relative_l2(found, expected)).fold(0.0, f64::max);
        let whole = timesteps.iter().all(|timestep| timestep.fract() == 0.0);
        let of_timesteps = relative_l2(&trajectory.timesteps, timesteps);
        let errors = [
            ("samples", of_samples),
            ("timesteps", if whole && of_timesteps > 0.0 { f64::INFINITY } else { of_timesteps }),
            ("scales", relative_l2(&found_scales, scales)),
            ("first sigma", relative_l2(&[trajectory.initial_sigma], sigma)),
            ("sigmas", trajectory.sigmas.map_or(0.0, |found| relative_l2(&found, sigmas))),
        ];
        for (what, error) in errors {
            let share = error / limit;
            if share > 1.0 || share.is_nan() {
                failures.push(format!("{name}: {what} are {error:.1e} apart, limit {limit:.1e}"));
            }
            let worst = worst.entry(options.kind.to_string()).or_default();
            if share > worst.0 {
                *worst = (share, format!("{what} of {name}: {error:.1e}, limit {limit:.1e}"));
            }
        }
    }
    for (kind, (_, what)) in worst {
        println!("{kind:16} {what}");
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn what_diffusers_refuses_is_refused() {
    let list = support::json("schedulers/steps.json");
    for case in list["refused"].as_array().unwrap() {
        let config = steps_config(&list, case);
        let error = parse(&config).unwrap().trajectory(&steps_options(case)).unwrap_err();
        println!("{}: {error}", case["name"]);
        assert!(matches!(error, Error::Config { key: Some(_), .. }), "{}: {error}", case["name"]);
    }
}
