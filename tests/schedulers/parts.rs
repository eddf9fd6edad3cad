//! Runs that begin later, as those from a picture do, against `add_noise` and steps of diffusers.

use deepcache::error::Error;
use deepcache::schedulers::{SamplerOptions, SchedulerKind};
use serde_json::json;

use super::support::{self, Goldens, relative_l2};
use super::{parse, plan, steps_config, steps_options};

#[test]
fn parts_of_runs_are_those_of_diffusers() {
    let list = support::json("schedulers/parts.json");
    let goldens = Goldens::open("schedulers/parts.safetensors");
    let data = Goldens::open("schedulers/steps.safetensors");
    let clean = data.tensor("unit_noise");
    let (images, size) = (clean.shape[0], clean.values.len());
    let (outputs, noise) = (data.values("output"), data.values("noise"));
    let unit_noise = &noise[..size];
    let mut failures = Vec::new();
    let cases = list["cases"].as_array().unwrap();
    assert!(cases.len() > 150, "{} cases", cases.len());
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut options = steps_options(case);
        options.distillation_share = case["options"]["share"].as_f64().unwrap_or(1.0);
        let count = |key: &str| case[key].as_u64().unwrap() as usize;
        let (begin, calls) = (count("begin"), count("calls"));
        let config = parse(&steps_config(&list, case)).unwrap();
        let trajectory = config.trajectory_part(&options, begin..begin + calls).unwrap();
        assert_eq!(config.trajectory(&options).unwrap().calls.len(), begin + calls, "{name}: calls in all");

        let golden = goldens.values(name);
        let (first, rest) = golden.split_at(size);
        let (timesteps, rest) = rest.split_at(calls);
        let (scales, rest) = rest.split_at(calls);
        let (later, expected) = rest.split_at((calls - 1) * size);
        let mut draws = noise[size..].chunks_exact(size);
        let mut planes = trajectory.start_from(&clean.values, unit_noise);
        let found_first = planes[0].clone();
        let (mut samples, mut noised) = (Vec::new(), Vec::new());
        for (index, call) in trajectory.calls.iter().enumerate() {
            if index > 0 {
                noised.extend(trajectory.noise_levels[index].add_noise(&clean.values, unit_noise));
            }
            let noise = if call.uses_noise { draws.next().unwrap() } else { &[] };
            let output = &outputs[index * size..(index + 1) * size];
            trajectory.apply(index, &mut planes, output, noise, images).unwrap();
            samples.extend_from_slice(&planes[0]);
        }
        let drawn = trajectory.calls.iter().filter(|call| call.uses_noise).count();
        assert_eq!(drawn, count("draws"), "{name}: draws");

        // The rule of whole runs: eight times what f32 alone does, and never less than 2e-5.
        let limit = (8.0 * case["f64_rel_l2"].as_f64().unwrap()).max(2e-5);
        assert!(limit < 2e-3, "{name}: a limit of {limit:.1e} tests nothing");
        let by_call = samples.chunks_exact(size).zip(expected.chunks_exact(size));
        let of_samples = by_call.map(|(found, expected)| relative_l2(found, expected)).fold(0.0, f64::max);
        let found_scales: Vec<f64> = trajectory.calls.iter().map(|call| call.input_scale).collect();
        let whole = timesteps.iter().all(|timestep| timestep.fract() == 0.0);
        let of_timesteps = relative_l2(&trajectory.timesteps, timesteps);
        let errors = [
            ("the first sample", relative_l2(&found_first, first)),
            ("timesteps", if whole && of_timesteps > 0.0 { f64::INFINITY } else { of_timesteps }),
            ("scales", relative_l2(&found_scales, scales)),
            ("samples with noise", if later.is_empty() { 0.0 } else { relative_l2(&noised, later) }),
            ("samples", of_samples),
        ];
        for (what, error) in errors {
            if error.is_nan() || error > limit {
                failures.push(format!("{name}: {what} are {error:.1e} apart, limit {limit:.1e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_part_with_all_calls_is_the_run() {
    for kind in SchedulerKind::ALL {
        let config = parse(&json!({"skip_prk_steps": true})).unwrap();
        let options = SamplerOptions::new(kind, 6);
        let whole = config.trajectory(&options).unwrap();
        let calls = whole.calls.len();
        assert_eq!(config.trajectory_part(&options, 0..calls).unwrap(), whole, "{kind}");
        // One that only ends earlier has the same calls, as those that another model goes on with.
        let part = config.trajectory_part(&options, 0..calls - 2).unwrap();
        assert_eq!(part.calls, whole.calls[..calls - 2], "{kind}");
        assert_eq!(part.timesteps, whole.timesteps[..calls - 2], "{kind}");
        assert_eq!(part.noise_levels, whole.noise_levels[..calls - 2], "{kind}");
    }
}

#[test]
fn parts_that_are_none_are_refused() {
    let config = parse(&json!({})).unwrap();
    let refused = |kind, calls: std::ops::Range<usize>| {
        let error = config.trajectory_part(&SamplerOptions::new(kind, 5), calls).unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if option == "calls"), "{error}");
        error.to_string()
    };
    refused(SchedulerKind::Ddim, 5..5);
    refused(SchedulerKind::Ddim, 0..6);
    refused(SchedulerKind::Ddim, usize::MAX..usize::MAX);
    assert!(refused(SchedulerKind::Heun, 1..9).contains("2 calls for a step"), "the middle of a step");
    assert!(refused(SchedulerKind::Dpm2, 3..4).contains("2 calls for a step"), "the middle of a step");
}

#[test]
fn only_lcm_takes_a_share_of_its_distillation() {
    let config = parse(&json!({})).unwrap();
    for (kind, share) in [
        (SchedulerKind::Ddim, 0.5),
        (SchedulerKind::Lcm, 0.0),
        (SchedulerKind::Lcm, 1.5),
        (SchedulerKind::Lcm, f64::NAN),
    ] {
        let options = SamplerOptions { distillation_share: share, ..SamplerOptions::new(kind, 4) };
        let error = config.trajectory(&options).unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if option == "distillation share"), "{error}");
    }
    let options = SamplerOptions { distillation_share: 0.1, ..SamplerOptions::new(SchedulerKind::Lcm, 6) };
    let error = config.trajectory(&options).unwrap_err().to_string();
    assert!(error.contains("5 steps of the distillation, found 6"), "{error}");
    assert!(plan(&json!({}), SchedulerKind::Lcm, 6, 0.0).is_ok(), "without a share");
}
