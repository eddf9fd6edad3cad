//! What holds of samplers whatever the numbers.

use deepcache::error::Error;
use deepcache::kernels::scheduler_step::MOST_HISTORY;
use deepcache::schedulers::{
    Limit, SamplerOptions, SchedulerConfig, SchedulerKind, SigmaSpacing, TimestepSpacing, Trajectory,
};
use serde_json::json;

use super::support::{max_abs, relative_l2};
use super::{parse, plan};

/// The signal and the noise level that a model sees in the sample of a call.
fn level(config: &SchedulerConfig, kind: SchedulerKind, trajectory: &Trajectory, call: usize) -> (f64, f64) {
    let sigma = match &trajectory.sigmas {
        None => {
            let alpha = config.cumulative_alphas(kind).unwrap()[trajectory.timesteps[call] as usize];
            ((1.0 - alpha) / alpha).sqrt()
        }
        Some(sigmas) if trajectory.calls.len() + 1 == sigmas.len() => sigmas[call],
        // Where a step has two calls, the scale of the model's input tells.
        Some(_) => (trajectory.calls[call].input_scale.powi(-2) - 1.0).sqrt(),
    };
    let signal = sigma.hypot(1.0).recip();
    (signal, sigma * signal)
}

/// Plays a run with a model that knows the clean sample; returns where it ends, without any draw of noise.
fn with_a_perfect_model(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    prediction: &str,
    clean: f64,
) -> (Trajectory, f64) {
    let trajectory = config.trajectory(options).unwrap();
    let mut planes = trajectory.start(&[-1.3]);
    for (index, call) in trajectory.calls.iter().enumerate() {
        let (signal, noise_level) = level(config, options.kind, &trajectory, index);
        // Samplers over sigma hold the sample without its scale.
        let is_scaled = trajectory.calls.iter().all(|call| call.input_scale == 1.0);
        let sample = if is_scaled { planes[0][0] } else { call.input_scale * planes[0][0] };
        let noise = (sample - signal * clean) / noise_level;
        let output = match prediction {
            "epsilon" => noise,
            "sample" => clean,
            _ => signal * noise - noise_level * clean,
        };
        trajectory.apply(index, &mut planes, &[output], &[0.0], 1).unwrap();
    }
    let end = planes[0][0];
    (trajectory, end)
}

#[test]
fn a_perfect_model_leads_every_sampler_to_the_clean_sample() {
    let clean = 0.7;
    for kind in SchedulerKind::ALL {
        for prediction in ["epsilon", "v_prediction", "sample"] {
            for skip in [true, false] {
                let config = json!({"prediction_type": prediction, "set_alpha_to_one": true, "skip_prk_steps": skip,
                                    "clip_sample": false, "beta_schedule": "scaled_linear"});
                let config = parse(&config).unwrap();
                let options = SamplerOptions::new(kind, 20);
                if kind == SchedulerKind::Pndm && prediction == "v_prediction" {
                    // It takes means of outputs, which as velocities belong to different noise levels.
                    continue;
                }
                if config.trajectory(&options).is_err() {
                    let unknown = [SchedulerKind::Pndm, SchedulerKind::EulerAncestral, SchedulerKind::Dpm2];
                    assert!(prediction == "sample" && unknown.contains(&kind), "{kind}, {prediction}");
                    continue;
                }
                let (trajectory, end) = with_a_perfect_model(&config, &options, prediction, clean);
                // DEIS ends at the noise level of the first timestep, LCM keeps a little of the sample.
                let sigma = trajectory.sigmas.map_or(0.0, |sigmas| sigmas[sigmas.len() - 1]);
                let limit = if kind == SchedulerKind::Lcm { 1e-4 } else { 1e-9 + 1.5 * sigma };
                assert_eq!(sigma > 0.0, kind == SchedulerKind::Deis, "{kind}");
                assert!((end - clean).abs() < limit, "{kind}, {prediction}, skip {skip}: {end}");
            }
        }
    }
}

#[test]
fn euler_and_ancestral_are_ddim_and_ddpm_without_the_scale() {
    // On one grid the first two follow the same line, and the other two draw from the same posterior.
    for (over_sigma, over_alpha) in
        [(SchedulerKind::Euler, SchedulerKind::Ddim), (SchedulerKind::EulerAncestral, SchedulerKind::Ddpm)]
    {
        let config = parse(&json!({"timestep_spacing": "leading", "clip_sample": false})).unwrap();
        let [left, right] =
            [over_sigma, over_alpha].map(|kind| config.trajectory(&SamplerOptions::new(kind, 10)).unwrap());
        assert_eq!(left.timesteps, right.timesteps, "{over_sigma}");
        let unit = [0.3, -1.2, 2.0];
        let (mut unscaled, mut scaled) = (left.start(&unit), right.start(&unit));
        unscaled[0] = unit.map(|value| value / left.calls[0].input_scale).to_vec();
        for index in 0..10 {
            let output: Vec<f64> = scaled[0].iter().map(|value| (3.0 * value + index as f64).sin()).collect();
            let noise = [0.5, -0.7, index as f64 - 4.0];
            left.apply(index, &mut unscaled, &output, &noise, 1).unwrap();
            // The last draw of DDPM has no noise to add; DDIM takes none.
            right.apply(index, &mut scaled, &output, &noise, 1).unwrap();
            let signal = left.calls.get(index + 1).map_or(1.0, |call| call.input_scale);
            let seen: Vec<f64> = unscaled[0].iter().map(|value| signal * value).collect();
            // DDPM's ratios of neighbouring timesteps are f32, as in diffusers.
            let apart = relative_l2(&seen, &scaled[0]);
            assert!(apart < 2e-5, "{over_sigma} and {over_alpha}, call {index}: {apart:.1e}");
        }
    }
}

#[test]
fn first_order_solvers_are_all_the_same() {
    let solver = |class: &str, algorithm: &str| {
        let config = json!({"_class_name": class, "solver_order": 1, "algorithm_type": algorithm,
                            "final_sigmas_type": "sigma_min", "beta_schedule": "scaled_linear",
                            "disable_corrector": [0, 1, 2, 3, 4, 5]});
        let config = parse(&config).unwrap();
        let trajectory = config.trajectory(&SamplerOptions::new(config.kind().unwrap(), 6)).unwrap();
        let mut planes = trajectory.start(&[0.4, -1.0]);
        for index in 0..6 {
            let output: Vec<f64> = planes[0].iter().map(|value| (value + index as f64).cos()).collect();
            trajectory.apply(index, &mut planes, &output, &[], 1).unwrap();
        }
        planes[0].clone()
    };
    let expected = solver("DPMSolverMultistepScheduler", "dpmsolver++");
    for (class, algorithm) in [
        ("DPMSolverMultistepScheduler", "dpmsolver"),
        ("DPMSolverSinglestepScheduler", "dpmsolver++"),
        ("DPMSolverSinglestepScheduler", "dpmsolver"),
        ("UniPCMultistepScheduler", "dpmsolver"),
        ("DEISMultistepScheduler", "deis"),
    ] {
        let apart = relative_l2(&solver(class, algorithm), &expected);
        assert!(apart < 1e-12, "{class}, {algorithm}: {apart:.1e}");
    }
}

#[test]
fn limits_far_away_change_nothing() {
    let limits = [
        json!({"clip_sample": true, "clip_sample_range": 1e9}),
        json!({"thresholding": true, "dynamic_thresholding_ratio": 0.0, "sample_max_value": 1.0}),
    ];
    for kind in SchedulerKind::ALL {
        for (limit, config) in limits.iter().enumerate() {
            let eta = if kind == SchedulerKind::Ddim { 0.5 } else { 0.0 };
            let limited = plan(config, kind, 7, eta).unwrap();
            let free = plan(&json!({"clip_sample": false}), kind, 7, eta).unwrap();
            let knows = limited.calls.iter().any(|call| call.prediction.is_some());
            if !knows {
                assert_eq!(limited, free, "{kind}");
                continue;
            }
            assert!(limited.calls.iter().all(|call| call.prediction.is_some()), "{kind}");
            assert!(free.calls.iter().all(|call| call.prediction.is_none()), "{kind}");
            let unit: Vec<f64> = (0..5).map(|index| 1e-3 * (f64::from(index) - 2.0)).collect();
            let (mut left, mut right) = (limited.start(&unit), free.start(&unit));
            for index in 0..limited.calls.len() {
                // A model whose clean sample stays within 1, so that dynamic thresholding has nothing to do.
                let output = match limited.calls[index].prediction {
                    Some(prediction) if limit == 1 => left[0]
                        .iter()
                        .map(|value| {
                            (0.9 * value.sin() - prediction.sample_weight * value) / prediction.output_weight
                        })
                        .collect(),
                    _ => left[0].iter().map(|value| (value + 1.0).sin()).collect::<Vec<f64>>(),
                };
                limited.apply(index, &mut left, &output, &unit, 1).unwrap();
                free.apply(index, &mut right, &output, &unit, 1).unwrap();
            }
            assert!(relative_l2(&left[0], &right[0]) < 1e-9, "{kind}, {config}: {left:?} {right:?}");
        }
    }
}

#[test]
fn every_image_has_its_own_threshold() {
    let config = json!({"thresholding": true, "dynamic_thresholding_ratio": 0.75, "sample_max_value": 3.0});
    let trajectory = plan(&config, SchedulerKind::Ddim, 3, 0.0).unwrap();
    let limit = trajectory.calls[0].prediction.unwrap().limit;
    assert_eq!(limit, Limit::Quantile { ratio: 0.75, most: 3.0 });
    let run = |start: &[f64], images: usize| {
        let mut planes = trajectory.start(start);
        trajectory.apply(0, &mut planes, &vec![0.1; start.len()], &[], images).unwrap();
        planes[0].clone()
    };
    let (dark, bright) = ([0.1, -0.2, 0.15, 0.05, 0.3], [2.0, -0.01, 0.5, 0.02, -4.0]);
    let both = [dark, bright].concat();
    let apart = [run(&dark, 1), run(&bright, 1)].concat();
    assert_eq!(run(&both, 2), apart);
    assert!(max_abs(&run(&both, 1), &apart) > 1e-3, "one threshold for both");
}

#[test]
fn every_run_is_planned_or_refused_by_the_name_of_an_option() {
    let solvers = [
        SchedulerKind::DpmPlusPlus2m,
        SchedulerKind::DpmPlusPlus2mSde,
        SchedulerKind::DpmPlusPlus3m,
        SchedulerKind::DpmPlusPlus2s,
        SchedulerKind::UniPc,
        SchedulerKind::Deis,
    ];
    let config = parse(&json!({"num_train_timesteps": 100, "skip_prk_steps": true})).unwrap();
    let mut planned = 0;
    for kind in SchedulerKind::ALL {
        let spacings = [None].into_iter().chain(TimestepSpacing::ALL.map(Some));
        for timestep_spacing in spacings {
            for sigmas in [None].into_iter().chain(SigmaSpacing::ALL.map(Some)) {
                for steps in (0..=101).chain([usize::MAX]) {
                    let options =
                        SamplerOptions { sigmas, timestep_spacing, ..SamplerOptions::new(kind, steps) };
                    let trajectory = match config.trajectory(&options) {
                        Ok(trajectory) => trajectory,
                        Err(Error::Option { option, problem }) => {
                            let named = match &option[..] {
                                "steps" => {
                                    !(1..=100).contains(&steps)
                                        || (kind == SchedulerKind::Lcm && steps > 50)
                                        // One more than there are steps does not fit between so few timesteps.
                                        || (solvers.contains(&kind) && steps == 100)
                                }
                                "sigmas" => sigmas.is_some(),
                                "timestep spacing" => timestep_spacing.is_some(),
                                _ => false,
                            };
                            assert!(named, "{options:?}: {option}: {problem}");
                            continue;
                        }
                        Err(error) => panic!("{options:?}: {error}"),
                    };
                    planned += 1;
                    check(&trajectory, &options);
                }
            }
        }
    }
    assert!(planned > 10_000, "{planned} planned");
}

fn check(trajectory: &Trajectory, options: &SamplerOptions) {
    let (calls, steps) = (trajectory.calls.len(), options.steps);
    let expected = match options.kind {
        SchedulerKind::Heun | SchedulerKind::Dpm2 => 2 * steps - 1,
        SchedulerKind::Pndm => steps + usize::from(steps > 1),
        _ if options.timestep_spacing == Some(TimestepSpacing::Uniform) => 100_usize.div_ceil(100 / steps),
        _ => steps,
    };
    assert_eq!(calls, expected, "{options:?}");
    assert_eq!(trajectory.timesteps.len(), calls, "{options:?}");
    assert!(trajectory.history <= MOST_HISTORY, "{options:?}");
    let in_range = trajectory.timesteps.iter().all(|timestep| (0.0..100.0).contains(timestep));
    assert!(in_range, "{options:?}: {:?}", trajectory.timesteps);
    // DPM2 rounds the timesteps of whole steps with Karras' spacing, and not those of the middles.
    let falls = trajectory.timesteps.windows(2).all(|pair| pair[0] >= pair[1]);
    assert!(falls || options.kind == SchedulerKind::Dpm2, "{options:?}: {:?}", trajectory.timesteps);
    assert!(trajectory.initial_sigma.is_finite() && trajectory.initial_sigma > 0.0, "{options:?}");
    for call in &trajectory.calls {
        assert_eq!(
            [call.rows, call.columns],
            [1 + trajectory.history, 4 + trajectory.history],
            "{options:?}"
        );
        assert_eq!(call.matrix.len(), call.rows * call.columns, "{options:?}");
        assert!(call.matrix.iter().all(|weight| weight.is_finite()), "{options:?}");
    }
    if let Some(sigmas) = &trajectory.sigmas {
        assert_eq!(sigmas.len(), steps + 1, "{options:?}");
        assert!(sigmas.windows(2).all(|pair| pair[0] >= pair[1]), "{options:?}: {sigmas:?}");
    }
}

#[test]
fn who_draws_noise_says_so() {
    for kind in SchedulerKind::ALL {
        for eta in [0.0, 0.5] {
            let Ok(trajectory) = plan(&json!({}), kind, 10, eta) else {
                assert!(eta > 0.0 && kind != SchedulerKind::Ddim, "{kind}, {eta}");
                continue;
            };
            assert_eq!(trajectory.draws_noise(), kind.is_stochastic(eta), "{kind}, {eta}");
        }
    }
    let single = json!({"_class_name": "DPMSolverSinglestepScheduler", "algorithm_type": "sde-dpmsolver++"});
    assert!(plan(&single, SchedulerKind::DpmPlusPlus2s, 10, 0.0).unwrap().draws_noise(), "by its file");
}

#[test]
fn planes_of_the_wrong_size_are_refused() {
    let trajectory = plan(&json!({"skip_prk_steps": true}), SchedulerKind::Pndm, 4, 0.0).unwrap();
    let mut planes = trajectory.start(&[1.0, 2.0]);
    assert_eq!(planes.len(), 4);
    for error in [
        trajectory.apply(5, &mut planes, &[0.0; 2], &[], 1).unwrap_err(),
        trajectory.apply(0, &mut planes, &[0.0; 3], &[], 1).unwrap_err(),
        trajectory.apply(0, &mut planes[..2], &[0.0; 2], &[], 1).unwrap_err(),
        trajectory.apply(0, &mut planes, &[0.0; 2], &[], 0).unwrap_err(),
        trajectory.apply(0, &mut planes, &[0.0; 2], &[], 3).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
    let mut empty = trajectory.start(&[]);
    trajectory.apply(0, &mut empty, &[], &[], 1).unwrap();
}

#[test]
fn models_with_hardly_any_timesteps_are_planned_or_refused() {
    let mut planned = 0;
    for timesteps in [1, 2, 3, 5] {
        for keys in [
            json!({}),
            json!({"rescale_betas_zero_snr": true, "prediction_type": "v_prediction"}),
            json!({"steps_offset": 1, "lower_order_final": false, "final_sigmas_type": "sigma_min"}),
            json!({"steps_offset": -1, "beta_schedule": "squaredcos_cap_v2", "solver_order": 3}),
            json!({"lambda_min_clipped": 4.0, "original_inference_steps": 2, "thresholding": true}),
            json!({"sigma_min": 3.0, "sigma_max": 2.0, "beta_start": 0.9, "beta_end": 1e-300}),
            json!({"timestep_type": "continuous", "prediction_type": "v_prediction", "use_lu_lambdas": true}),
            json!({"interpolation_type": "log_linear", "trained_betas": vec![1.0; timesteps]}),
        ] {
            let mut config = keys;
            config["num_train_timesteps"] = json!(timesteps);
            let config = parse(&config).unwrap();
            for kind in SchedulerKind::ALL {
                for timestep_spacing in [None].into_iter().chain(TimestepSpacing::ALL.map(Some)) {
                    for sigmas in [None].into_iter().chain(SigmaSpacing::ALL.map(Some)) {
                        for steps in 1..=timesteps {
                            let options = SamplerOptions {
                                sigmas,
                                timestep_spacing,
                                ..SamplerOptions::new(kind, steps)
                            };
                            match config.trajectory(&options) {
                                Ok(trajectory) => {
                                    planned += 1;
                                    assert_eq!(
                                        trajectory.calls.len(),
                                        trajectory.timesteps.len(),
                                        "{options:?}"
                                    );
                                    let finite =
                                        trajectory.timesteps.iter().all(|timestep| timestep.is_finite());
                                    assert!(finite && trajectory.initial_sigma.is_finite(), "{options:?}");
                                }
                                Err(Error::Option { .. } | Error::Config { key: Some(_), .. }) => {}
                                Err(error) => panic!("{options:?}: {error}"),
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(planned > 1000, "{planned} planned");
}
