//! What files and callers may ask for, and what happens where they may not.

use deepcache::error::Error;
use deepcache::schedulers::{
    SamplerOptions, SchedulerConfig, SchedulerKind, SigmaSpacing, TimestepSpacing, Trajectory,
};
use serde_json::{Value, json};

use super::support::max_abs;
use super::{parse, plan};

fn key_of(error: &Error) -> &str {
    match error {
        Error::Config { key: Some(key), .. } => key,
        other => panic!("{other}"),
    }
}

fn option_of(error: &Error) -> &str {
    match error {
        Error::Option { option, .. } => option,
        other => panic!("{other}"),
    }
}

#[test]
fn every_class_has_its_own_defaults() {
    use SchedulerKind::{Ddim, Euler, Heun, Lcm, Lms, Pndm};
    let empty = json!({});
    for (kind, defaults) in [
        (Ddim, json!({"clip_sample": true, "clip_sample_range": 1.0, "timestep_spacing": "leading"})),
        (Ddim, json!({"set_alpha_to_one": true, "thresholding": null, "beta_schedule": "linear"})),
        (Pndm, json!({"set_alpha_to_one": false, "skip_prk_steps": false})),
        (Euler, json!({"timestep_spacing": "linspace", "beta_start": 0.0001, "beta_end": 0.02})),
        (
            Euler,
            json!({"final_sigmas_type": "zero", "interpolation_type": "linear", "timestep_type": "discrete"}),
        ),
        (Heun, json!({"beta_start": 0.00085, "beta_end": 0.012, "clip_sample": false})),
        (Lms, json!({"beta_start": 0.0001, "beta_schedule": "linear"})),
        (Lcm, json!({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "timestep_scaling": 10.0})),
        (Lcm, json!({"original_inference_steps": 50, "set_alpha_to_one": true, "clip_sample": false})),
        (SchedulerKind::UniPc, json!({"solver_type": "bh2", "solver_order": 2, "predict_x0": true})),
        (SchedulerKind::Deis, json!({"solver_type": "logrho", "solver_order": 2, "lower_order_final": true})),
        (SchedulerKind::DpmPlusPlus2m, json!({"solver_type": "midpoint", "lambda_min_clipped": "-Infinity"})),
        (SchedulerKind::DpmPlusPlus2m, json!({"euler_at_final": false, "lower_order_final": true})),
        (SchedulerKind::DpmPlusPlus2s, json!({"lower_order_final": false, "solver_order": 2})),
        (SchedulerKind::Ddpm, json!({"variance_type": "fixed_small", "clip_sample": true})),
    ] {
        assert_eq!(
            plan(&empty, kind, 10, 0.0).unwrap(),
            plan(&defaults, kind, 10, 0.0).unwrap(),
            "{defaults}"
        );
    }
}

#[test]
fn keys_of_other_classes_are_left_out() {
    let ddim = plan(&json!({}), SchedulerKind::Ddim, 10, 0.0).unwrap();
    let shared = json!({"_class_name": "PNDMScheduler", "skip_prk_steps": false, "solver_order": 2,
                        "use_flow_sigmas": true, "variance_type": "learned", "algorithm_type": "unheard of"});
    assert_eq!(ddim, plan(&shared, SchedulerKind::Ddim, 10, 0.0).unwrap());
    assert_eq!(parse(&shared).unwrap().kind(), Some(SchedulerKind::Pndm));
    let pndm = plan(&json!({}), SchedulerKind::Pndm, 10, 0.0).unwrap();
    let foreign = json!({"thresholding": true, "rescale_betas_zero_snr": true, "use_karras_sigmas": true});
    assert_eq!(pndm, plan(&foreign, SchedulerKind::Pndm, 10, 0.0).unwrap());
    let ancestral = plan(&json!({}), SchedulerKind::EulerAncestral, 10, 0.0).unwrap();
    let foreign = json!({"use_karras_sigmas": true, "final_sigmas_type": "sigma_min", "clip_sample": true});
    assert_eq!(ancestral, plan(&foreign, SchedulerKind::EulerAncestral, 10, 0.0).unwrap());
}

#[test]
fn trained_betas_take_the_place_of_a_schedule() {
    let betas: Vec<f64> =
        (0..1000).map(|index| 0.0001 + (0.02 - 0.0001) / 999.0 * f64::from(index)).collect();
    let trained = parse(&json!({"trained_betas": betas, "beta_schedule": "unheard of"})).unwrap();
    let linear = parse(&json!({})).unwrap();
    let kind = SchedulerKind::Ddim;
    let [trained, linear] = [trained, linear].map(|config| config.cumulative_alphas(kind).unwrap());
    assert!(max_abs(&trained, &linear) < 1e-6, "tables");
}

#[test]
fn a_solver_is_what_its_own_file_says_or_else_its_name() {
    let file = |class: &str, algorithm: &str, order: usize| {
        json!({"_class_name": class, "algorithm_type": algorithm, "solver_order": order,
               "final_sigmas_type": "sigma_min", "beta_schedule": "scaled_linear"})
    };
    let multi = "DPMSolverMultistepScheduler";
    for (algorithm, order, kind) in [
        ("dpmsolver++", 1, SchedulerKind::DpmPlusPlus2m),
        ("dpmsolver", 2, SchedulerKind::DpmPlusPlus2m),
        ("dpmsolver", 3, SchedulerKind::DpmPlusPlus3m),
        ("sde-dpmsolver++", 3, SchedulerKind::DpmPlusPlus2mSde),
        ("sde-dpmsolver", 1, SchedulerKind::DpmPlusPlus2mSde),
    ] {
        let config = file(multi, algorithm, order);
        assert_eq!(parse(&config).unwrap().kind(), Some(kind), "{config}");
        let trajectory = plan(&config, kind, 8, 0.0).unwrap();
        assert_eq!(trajectory.history, order - 1, "{config}");
        assert_eq!(trajectory.draws_noise(), algorithm.starts_with("sde"), "{config}");
        // Chosen by another name, the name holds.
        for (other, order, draws) in [
            (SchedulerKind::DpmPlusPlus2m, 2, false),
            (SchedulerKind::DpmPlusPlus2mSde, 2, true),
            (SchedulerKind::DpmPlusPlus3m, 3, false),
        ] {
            if other != kind {
                let named = plan(&config, other, 8, 0.0).unwrap();
                assert_eq!((named.history, named.draws_noise()), (order - 1, draws), "{config} as {other}");
                let own = plan(
                    &file(multi, if draws { "sde-dpmsolver++" } else { "dpmsolver++" }, order),
                    other,
                    8,
                    0.0,
                );
                assert_eq!(named, own.unwrap(), "{config} as {other}");
            }
        }
    }
    assert_eq!(parse(&json!({"_class_name": multi})).unwrap().kind(), Some(SchedulerKind::DpmPlusPlus2m));
    let single = file("DPMSolverSinglestepScheduler", "dpmsolver++", 3);
    assert_eq!(plan(&single, SchedulerKind::DpmPlusPlus2s, 8, 0.0).unwrap().history, 3);
    assert_eq!(plan(&file(multi, "dpmsolver", 3), SchedulerKind::DpmPlusPlus2s, 8, 0.0).unwrap().history, 2);
}

#[test]
fn what_the_caller_chooses_goes_before_the_file() {
    let karras = json!({"use_karras_sigmas": true, "timestep_spacing": "leading", "use_lu_lambdas": true});
    let kind = SchedulerKind::DpmPlusPlus2m;
    let beta = SamplerOptions { sigmas: Some(SigmaSpacing::Beta), ..SamplerOptions::new(kind, 7) };
    let chosen = parse(&karras).unwrap().trajectory(&beta).unwrap();
    assert_eq!(chosen, plan(&json!({"use_beta_sigmas": true}), kind, 7, 0.0).unwrap());
    let trailing = Some(TimestepSpacing::Trailing);
    let options =
        SamplerOptions { timestep_spacing: trailing, ..SamplerOptions::new(SchedulerKind::Euler, 7) };
    let chosen = parse(&json!({"timestep_spacing": "leading"})).unwrap().trajectory(&options).unwrap();
    assert_eq!(chosen, plan(&json!({"timestep_spacing": "trailing"}), SchedulerKind::Euler, 7, 0.0).unwrap());
}

#[test]
fn a_configuration_that_cannot_be_honoured_names_its_key() {
    let own = |class: &str, key: &str, value: Value| {
        let mut config = json!({"_class_name": class});
        config[key] = value;
        (config, key.to_owned())
    };
    let ddim = |key: &str, value: Value| own("DDIMScheduler", key, value);
    let (multi, single) = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler");
    for (config, key) in [
        ddim("betas", json!(1)),
        ddim("beta_start", json!(-0.1)),
        ddim("beta_end", json!(1.0)),
        ddim("beta_end", json!("0.02")),
        ddim("beta_end", json!("-Infinity")),
        ddim("beta_schedule", json!("sigmoid")),
        ddim("beta_schedule", json!("exp")),
        ddim("beta_schedule", json!(null)),
        ddim("trained_betas", json!([0.1])),
        ddim("num_train_timesteps", json!(0)),
        ddim("num_train_timesteps", json!(1e12)),
        ddim("num_train_timesteps", json!(-5)),
        ddim("steps_offset", json!(0.5)),
        ddim("steps_offset", json!(i64::MIN)),
        ddim("prediction_type", json!("flow_prediction")),
        ddim("timestep_spacing", json!(3)),
        ddim("timestep_spacing", json!("uniform")),
        ddim("clip_sample", json!(1)),
        ddim("clip_sample_range", json!(0)),
        ddim("thresholding", json!("yes")),
        ddim("dynamic_thresholding_ratio", json!(1.5)),
        ddim("sample_max_value", json!(0)),
        own("DDPMScheduler", "variance_type", json!("learned_range")),
        own("DDPMScheduler", "variance_type", json!("learned")),
        own("PNDMScheduler", "prediction_type", json!("sample")),
        own("EulerAncestralDiscreteScheduler", "prediction_type", json!("sample")),
        own("KDPM2DiscreteScheduler", "prediction_type", json!("sample")),
        own("EulerDiscreteScheduler", "interpolation_type", json!("cubic")),
        own("EulerDiscreteScheduler", "timestep_type", json!("endless")),
        own("EulerDiscreteScheduler", "final_sigmas_type", json!("one")),
        own("EulerDiscreteScheduler", "sigma_min", json!(-1)),
        own("HeunDiscreteScheduler", "beta_schedule", json!("laplace")),
        own(multi, "algorithm_type", json!("dpmsolver+++")),
        own(multi, "algorithm_type", json!(2)),
        own(multi, "solver_order", json!(4)),
        own(multi, "solver_order", json!(0)),
        own(multi, "solver_type", json!("trapezium")),
        own(multi, "use_flow_sigmas", json!(true)),
        own(multi, "use_dynamic_shifting", json!(true)),
        own(multi, "variance_type", json!("learned")),
        own(multi, "lambda_min_clipped", json!(100)),
        own(multi, "lambda_min_clipped", json!("Infinity")),
        own(single, "variance_type", json!("learned_range")),
        own(single, "algorithm_type", json!("sde-dpmsolver")),
        own("UniPCMultistepScheduler", "solver_p", json!({"_class_name": "DDIMScheduler"})),
        own("UniPCMultistepScheduler", "shift_terminal", json!(0.1)),
        own("UniPCMultistepScheduler", "solver_type", json!("bh3")),
        own("UniPCMultistepScheduler", "disable_corrector", json!([0.5])),
        own("UniPCMultistepScheduler", "use_flow_sigmas", json!(true)),
        own("DEISMultistepScheduler", "algorithm_type", json!("sde-dpmsolver++")),
        own("DEISMultistepScheduler", "use_flow_sigmas", json!(true)),
        own("LCMScheduler", "original_inference_steps", json!(2000)),
        own("LCMScheduler", "timestep_scaling", json!(0)),
    ] {
        let kind = SchedulerKind::from_class_name(config["_class_name"].as_str().unwrap()).unwrap();
        let error = plan(&config, kind, 1, 0.0).unwrap_err();
        assert_eq!(key_of(&error), key, "{config}: {error}");
        assert!(error.to_string().starts_with("scheduler_config.json: key "), "{error}");
    }
    for (config, kind, key) in [
        (json!({"trained_betas": [2.0], "num_train_timesteps": 1}), SchedulerKind::Ddim, "trained_betas"),
        (
            json!({"rescale_betas_zero_snr": true, "timestep_spacing": "trailing", "clip_sample": false}),
            SchedulerKind::Ddim,
            "prediction_type",
        ),
        (
            json!({"use_karras_sigmas": true, "use_beta_sigmas": true}),
            SchedulerKind::Euler,
            "use_karras_sigmas",
        ),
        (
            json!({"_class_name": multi, "algorithm_type": "dpmsolver"}),
            SchedulerKind::DpmPlusPlus2m,
            "final_sigmas_type",
        ),
        (json!({"solver_type": "bh1"}), SchedulerKind::UniPc, "final_sigmas_type"),
        (json!({"lower_order_final": false}), SchedulerKind::UniPc, "final_sigmas_type"),
    ] {
        let error = plan(&config, kind, 1 + usize::from(kind == SchedulerKind::UniPc), 0.0).unwrap_err();
        assert_eq!(key_of(&error), key, "{config}: {error}");
    }
    for text in ["", "[]", "{", "3", "{\"beta_end\": 1e999}", "null", "-Infinity", "{\"eta\": -Infinity, }"] {
        let error = SchedulerConfig::from_json("scheduler_config.json", text).unwrap_err();
        assert!(matches!(error, Error::Config { key: None, .. }), "{text}: {error}");
    }
    let error = SchedulerConfig::from_file("does/not/exist.json").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn words_of_python_that_json_has_not_are_read_outside_of_strings() {
    let text = r#"{"_a": "-Infinity \" NaN", "_b\\": [NaN, Infinity], "lambda_min_clipped": -Infinity}"#;
    let config = SchedulerConfig::from_json("scheduler_config.json", text).unwrap();
    let empty = SchedulerConfig::from_json("scheduler_config.json", "{}").unwrap();
    let options = SamplerOptions::new(SchedulerKind::DpmPlusPlus2m, 10);
    assert_eq!(config.trajectory(&options).unwrap(), empty.trajectory(&options).unwrap());
}

#[test]
fn options_that_a_sampler_has_not_are_refused_by_name() {
    let config = parse(&json!({})).unwrap();
    for kind in SchedulerKind::ALL {
        let options = SamplerOptions::new(kind, 10);
        let wrong = if kind == SchedulerKind::Ddim { [-0.1, 1.1, f64::NAN] } else { [0.5, 1.0, f64::NAN] };
        for eta in wrong {
            let error = config.trajectory(&SamplerOptions { eta, ..options.clone() }).unwrap_err();
            assert_eq!(option_of(&error), "eta", "{kind}, {eta}: {error}");
        }
        let uniform = Some(TimestepSpacing::Uniform);
        let outcome = config.trajectory(&SamplerOptions { timestep_spacing: uniform, ..options });
        if matches!(kind, SchedulerKind::Ddpm | SchedulerKind::Ddim) {
            outcome.unwrap();
        } else {
            assert_eq!(option_of(&outcome.unwrap_err()), "timestep spacing", "{kind}");
        }
    }
    let refused = |kind, sigmas, timestep_spacing| {
        let options = SamplerOptions { sigmas, timestep_spacing, ..SamplerOptions::new(kind, 10) };
        config.trajectory(&options).unwrap_err()
    };
    for kind in [SchedulerKind::Ddpm, SchedulerKind::Pndm, SchedulerKind::EulerAncestral, SchedulerKind::Lcm]
    {
        assert_eq!(option_of(&refused(kind, Some(SigmaSpacing::Karras), None)), "sigmas", "{kind}");
    }
    let trailing = Some(TimestepSpacing::Trailing);
    for kind in [SchedulerKind::DpmPlusPlus2s, SchedulerKind::Lcm] {
        assert_eq!(option_of(&refused(kind, None, trailing)), "timestep spacing", "{kind}");
    }
    let beyond = plan(&json!({"steps_offset": 1}), SchedulerKind::Ddim, 1000, 0.0).unwrap_err();
    assert!(beyond.to_string().contains("timestep 1000"), "{beyond}");
    let few = plan(&json!({}), SchedulerKind::Lcm, 51, 0.0).unwrap_err();
    assert_eq!(option_of(&few), "steps", "{few}");
}

#[test]
fn original_models_have_their_own_tables_and_timesteps() {
    let timesteps = |config: &SchedulerConfig, steps: usize, timestep_spacing| -> Vec<f64> {
        let options =
            SamplerOptions { timestep_spacing, ..SamplerOptions::new(config.kind().unwrap(), steps) };
        config.trajectory(&options).unwrap().timesteps
    };
    // The table that a checkpoint of latent diffusion holds, and the timesteps of its code.
    let latent = SchedulerConfig::latent_diffusion(0.0015, 0.0195, 1000).unwrap();
    let alphas = latent.cumulative_alphas(SchedulerKind::Ddim).unwrap();
    let held = [0.9985_f32, 0.114922, 0.00014230398];
    assert_eq!([alphas[0], alphas[500], alphas[999]].map(|alpha| alpha as f32), held);
    assert_eq!(timesteps(&latent, 7, None), [995.0, 853.0, 711.0, 569.0, 427.0, 285.0, 143.0, 1.0]);
    assert_eq!(timesteps(&latent, 20, None)[..3], [951.0, 901.0, 851.0]);
    // And those of the code of DDIM.
    let ddim = SchedulerConfig::original_ddpm(0.0001, 0.02, 1000).unwrap();
    let alphas = ddim.cumulative_alphas(SchedulerKind::Ddim).unwrap();
    assert_eq!(
        [alphas[0], alphas[500], alphas[999]].map(|alpha| alpha as f32),
        [0.9999_f32, 0.07779666, 4.03583e-5]
    );
    let uniform = timesteps(&ddim, 30, None);
    assert_eq!((uniform.len(), uniform[0], uniform[30]), (31, 990.0, 0.0));
    let quadratic = Some(TimestepSpacing::Quadratic);
    let expected = [
        800.0, 718.0, 640.0, 567.0, 498.0, 434.0, 374.0, 319.0, 268.0, 221.0, 179.0, 141.0, 108.0, 79.0,
        55.0, 35.0, 19.0, 8.0, 2.0, 0.0,
    ];
    assert_eq!(timesteps(&ddim, 20, quadratic), expected);
    assert_eq!(timesteps(&ddim, 60, quadratic)[57..], [0.0, 0.0, 0.0], "repeated");

    // Every step goes to the next timestep, also where it stays at one.
    for (config, steps, timestep_spacing) in
        [(&latent, 7, None), (&ddim, 20, quadratic), (&ddim, 60, quadratic)]
    {
        let options = SamplerOptions { timestep_spacing, ..SamplerOptions::new(SchedulerKind::Ddim, steps) };
        let (trajectory, alphas) =
            (config.trajectory(&options).unwrap(), config.cumulative_alphas(options.kind).unwrap());
        for (call, pair) in trajectory.calls.iter().zip(trajectory.timesteps.windows(2)) {
            let [alpha, next] = [pair[0], pair[1]].map(|timestep| alphas[timestep as usize]);
            assert!((call.matrix[0] - (next / alpha).sqrt()).abs() < 1e-12, "{steps} steps, {pair:?}");
        }
    }

    // The last step goes to where each says, and no step limits the prediction.
    let last = |trajectory: &Trajectory| trajectory.calls[trajectory.calls.len() - 1].clone();
    let options = SamplerOptions::new(SchedulerKind::Ddim, 10);
    let [latent, ddim] = [&latent, &ddim].map(|config| config.trajectory(&options).unwrap());
    assert!((ddim.calls.len(), last(&ddim).prediction) == (10, None), "without clipping");
    assert!((last(&ddim).matrix[0] - (1.0_f64 / 0.9999).sqrt()).abs() < 1e-7, "to no noise");
    assert!(last(&latent).matrix[0] < 1.001, "to the first timestep");

    // Samplers that do not know the spacing take their own default.
    let config = SchedulerConfig::original_ddpm(0.0001, 0.02, 1000).unwrap();
    let euler = config.trajectory(&SamplerOptions::new(SchedulerKind::Euler, 3)).unwrap();
    assert_eq!(euler.timesteps, [999.0, 499.5, 0.0]);
    for (start, end, count, option) in [
        (0.0, 0.02, 1000, "linear_start"),
        (0.1, f64::NAN, 1000, "linear_end"),
        (0.1, 0.2, 0, "timesteps"),
        (0.1, 0.2, usize::MAX, "timesteps"),
    ] {
        let error = SchedulerConfig::latent_diffusion(start, end, count).unwrap_err();
        assert_eq!(option_of(&error), option, "{error}");
    }
    assert_eq!(option_of(&SchedulerConfig::original_ddpm(1.0, 0.2, 10).unwrap_err()), "beta_start");
}

#[test]
fn names_are_read_and_written() {
    for kind in SchedulerKind::ALL {
        assert_eq!(kind.to_string().parse::<SchedulerKind>().unwrap(), kind);
        let of_class = SchedulerKind::from_class_name(kind.class_name()).unwrap();
        assert_eq!(of_class.class_name(), kind.class_name());
    }
    for spacing in SigmaSpacing::ALL {
        assert_eq!(spacing.to_string().parse::<SigmaSpacing>().unwrap(), spacing);
    }
    for spacing in TimestepSpacing::ALL {
        assert_eq!(spacing.to_string().parse::<TimestepSpacing>().unwrap(), spacing);
    }
    let error = "plms".parse::<SchedulerKind>().unwrap_err().to_string();
    assert_eq!(
        error,
        "scheduler: expected one of ddpm, ddim, pndm, euler, euler-ancestral, heun, dpm2, lms, dpmpp-2m, \
         dpmpp-2m-sde, dpmpp-3m, dpmpp-2s, unipc, deis, lcm; found \"plms\""
    );
    let error = "cubic".parse::<SigmaSpacing>().unwrap_err().to_string();
    assert_eq!(error, "sigmas: expected one of karras, exponential, beta; found \"cubic\"");
    let error = "cubic".parse::<TimestepSpacing>().unwrap_err().to_string();
    assert!(
        error.ends_with("expected one of leading, linspace, trailing, uniform, quadratic; found \"cubic\""),
        "{error}"
    );
}
