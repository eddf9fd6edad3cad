//! Cached loops beyond DeepCache's own, and what is planned from an analysis: `tools/goldens/caching.py`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::ops::ControlFlow;
use std::sync::{LazyLock, Mutex, PoisonError};

use deepcache::Error;
use deepcache::deepcache::{Budget, CacheProfile, CacheSchedule, Placement, Reuse};
use deepcache::pipelines::{
    Analysis, AnalysisOptions, CacheOptions, Condition, DiffusionPipeline, Generation, Progress, Request,
    StepKind, StorageType,
};
use deepcache::schedulers::SchedulerKind;
use loops::{load, number, run};
use serde_json::Value;
use support::{Goldens, json, max_abs, relative_l2, repository};

/// Of a whole loop in 32-bit floats, as in tests/goldens/sd1.
const RELATIVE: f64 = 5e-4;
const ABSOLUTE: f64 = 2.5e-3;
/// Of a drift, which is the quotient of sums over a whole tensor.
const DRIFT: f64 = 2e-4;

static SD1: LazyLock<Mutex<DiffusionPipeline>> =
    LazyLock::new(|| Mutex::new(load(&repository("tests/goldens/sd1/model"), StorageType::F32)));

fn with<T>(work: impl FnOnce(&mut DiffusionPipeline) -> T) -> T {
    work(&mut SD1.lock().unwrap_or_else(PoisonError::into_inner))
}

fn request(pack: &Value, case: &Value) -> Request {
    let text = |key: &str| pack[key].as_str().unwrap().to_owned();
    let schedule = match (&case["full"], &case["interval"], &case["threshold"]) {
        (Value::Array(full), _, _) => CacheSchedule::List(full.iter().map(number).collect()),
        (_, Value::Number(_), _) => CacheSchedule::Uniform { interval: number(&case["interval"]) },
        (_, _, threshold) => CacheSchedule::Threshold { threshold: threshold.as_f64().unwrap() },
    };
    let cache = CacheOptions {
        schedule,
        branch: number(&case["branch"]),
        reuse: case["reuse"].as_str().unwrap().parse().unwrap(),
        warm_up: case["warm_up"].as_u64().map_or(0, |_| number(&case["warm_up"])),
    };
    let side = Some(8 * number(&pack["side"]));
    Request {
        condition: Condition::Prompt { prompt: text("prompt"), negative_prompt: text("negative_prompt") },
        steps: Some(number(&case["steps"])),
        guidance_scale: pack["guidance_scale"].as_f64(),
        scheduler: Some(SchedulerKind::Ddim),
        eta: case["eta"].as_f64().unwrap_or(0.0),
        seed: pack["seed"].as_u64().unwrap(),
        height: side,
        width: side,
        cache: Some(cache),
        ..Request::unconditional()
    }
}

fn full_calls(generation: &Generation) -> Vec<usize> {
    let steps = generation.statistics.steps.iter();
    steps.filter(|step| step.kind == StepKind::Full).map(|step| step.index).collect()
}

fn check(starts: &str, count: usize) {
    let pack = json("caching/loops.json");
    let cases: Vec<&Value> = pack["loops"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["name"].as_str().unwrap().starts_with(starts))
        .collect();
    assert_eq!(cases.len(), count, "loops of {starts}");
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let generation = with(|pipeline| run(pipeline, &request(&pack, case)));
        let full: Vec<usize> = case["full_calls"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(full_calls(&generation), full, "{name}: full calls");
        let goldens = Goldens::open(&format!("caching/{}", case["file"].as_str().unwrap()));
        let found: Vec<f64> = generation.latents.values().iter().map(|&value| f64::from(value)).collect();
        let expected = goldens.values("latents");
        let (relative, absolute) = (relative_l2(&found, &expected), max_abs(&found, &expected));
        println!("{name}: relative l2 {relative:.2e}, max abs {absolute:.2e}");
        assert!(relative <= RELATIVE && absolute <= ABSOLUTE, "{name}: {relative:.2e}, {absolute:.2e}");
        if case["threshold"].is_number() {
            let steps = generation.statistics.steps.iter();
            let drifts: Vec<f64> = steps.map(|step| step.drift.unwrap_or(0.0)).collect();
            let apart = relative_l2(&drifts, &goldens.values("drift"));
            println!("{name}: drifts within {apart:.2e}");
            assert!(apart <= DRIFT, "{name}: drifts are {apart:.2e} apart");
        }
    }
}

#[test]
fn extrapolated_features_agree_with_diffusers_and_a_hook() {
    check("linear", 2);
    check("quadratic", 2);
}

#[test]
fn full_calls_at_the_start_agree_with_diffusers_and_a_hook() {
    check("warm_up", 2);
}

#[test]
fn thresholds_agree_with_diffusers_and_a_hook() {
    check("threshold", 3);
}

/// A short run of the model.
fn short(pack: &Value) -> Request {
    Request { cache: None, steps: Some(8), ..request(pack, &pack["loops"][0]) }
}

fn analysis(request: &Request, branches: Vec<usize>, probes: usize) -> Analysis {
    let options = AnalysisOptions { branches, probes };
    with(|pipeline| pipeline.analyze(request, &options, |_| ControlFlow::Continue(()))).unwrap()
}

#[test]
fn an_analysis_leaves_the_run_as_it_was_and_repeats_itself() {
    let request = short(&json("caching/loops.json"));
    let plain = with(|pipeline| run(pipeline, &request));
    let first = analysis(&request, vec![0, 3], 3);
    assert_eq!(first.latents, plain.latents, "keeping features changes no value");
    assert_eq!(first.picture, plain.pictures[0], "nor the picture");
    let second = analysis(&request, vec![0, 3], 3);
    for (one, other) in first.branches.iter().zip(&second.branches) {
        assert_eq!(one.cosine, other.cosine, "branch {}", one.branch);
        assert_eq!(one.weights, other.weights, "branch {}", one.branch);
    }
    for branch in &first.branches {
        for call in 0..8 {
            assert!((branch.cosine[call][call] - 1.0).abs() < 1e-6, "a feature is like itself");
            for other in 0..8 {
                assert_eq!(branch.cosine[call][other], branch.cosine[other][call], "cosines are symmetric");
                assert!(branch.cosine[call][other] <= 1.0 + 1e-6, "{}", branch.cosine[call][other]);
            }
        }
    }
    let plain = with(|pipeline| run(pipeline, &request));
    assert_eq!(first.latents, plain.latents, "nothing of it is left behind");
}

#[test]
fn what_is_measured_foretells_what_small_changes_do() {
    let request = short(&json("caching/loops.json"));
    let measured = analysis(&request, vec![0, 3], 7);
    let profile = measured.profile().unwrap();
    for branch in [0, 3] {
        // One shallow call: no feature that was changed by another, which the expectation leaves out.
        let full: Vec<usize> = (0..8).filter(|call| *call != 5).collect();
        let expected = profile.branch(branch).unwrap().expected_error(&full, Reuse::Hold);
        let schedule = CacheSchedule::List(full);
        let cache = Some(CacheOptions { schedule, ..CacheOptions::uniform(1, branch) });
        let cached = with(|pipeline| run(pipeline, &Request { cache, ..request.clone() }));
        let found = cached.latents.distance(&measured.latents).unwrap();
        println!("branch {branch}: expected {expected:.3e}, found {found:.3e}");
        assert!(found > 0.8 * expected && found < 1.25 * expected, "expected {expected}, found {found}");
    }
}

#[test]
fn trials_are_what_such_runs_give_and_plans_follow_them() {
    let request = short(&json("caching/loops.json"));
    let measured = analysis(&request, vec![0], 3);
    let mut profile = measured.profile().unwrap();
    let runs = [(request.clone(), measured.latents.clone())];
    let stop = |_: Progress<'_>| ControlFlow::Continue(());
    with(|pipeline| pipeline.try_plans(&mut profile, &runs, &[3], stop)).unwrap();
    let trials = profile.branches[0].trials.clone();
    let uniform = trials
        .iter()
        .find(|trial| trial.placement == Placement::Uniform && trial.reuse == Reuse::Hold)
        .unwrap();
    let full: Vec<usize> = (0..3).map(|index| index * 8 / 3).collect();
    let cache = |full: Vec<usize>, reuse| {
        Some(CacheOptions { schedule: CacheSchedule::List(full), reuse, ..CacheOptions::uniform(1, 0) })
    };
    let by_hand =
        with(|pipeline| run(pipeline, &Request { cache: cache(full, Reuse::Hold), ..request.clone() }));
    let error = by_hand.latents.distance(&measured.latents).unwrap();
    assert!((uniform.measured / error - 1.0).abs() < 1e-6, "trial {}, by hand {error}", uniform.measured);

    // The plan is the best of what was tried, and its run has that error.
    let plan = profile.plan(Budget::FullCalls(3), None, None).unwrap();
    let best = trials.iter().map(|trial| trial.measured).fold(f64::INFINITY, f64::min);
    let planned = with(|pipeline| {
        run(pipeline, &Request { cache: Some(CacheOptions::planned(&plan)), ..request.clone() })
    });
    let error = planned.latents.distance(&measured.latents).unwrap();
    println!("planned {:?} {}: {error:.3e}, best trial {best:.3e}", plan.full, plan.reuse);
    assert!((error / best - 1.0).abs() < 1e-6, "the plan's run has {error}, the best trial {best}");
    assert_eq!(full_calls(&planned), plan.full, "the run follows the plan");

    // Kept and read again it plans the same.
    let again = CacheProfile::from_json("p.json", &profile.to_json().unwrap()).unwrap();
    assert_eq!(again.plan(Budget::FullCalls(3), None, None).unwrap().full, plan.full, "from its file");
}

#[test]
fn analyses_that_cannot_be_are_refused_and_can_be_stopped() {
    let request = short(&json("caching/loops.json"));
    let refused = |branches: Vec<usize>, probes: usize, request: &Request| {
        let options = AnalysisOptions { branches, probes };
        let outcome = with(|pipeline| pipeline.analyze(request, &options, |_| ControlFlow::Continue(())));
        outcome.map(|_| "an analysis").unwrap_err()
    };
    for (branches, words) in [(vec![12], "12"), (vec![], "branch"), (vec![1, 1], "twice")] {
        let error = refused(branches.clone(), 3, &request);
        assert!(matches!(error, Error::Option { .. }), "{branches:?}: {error:?}");
        assert!(error.to_string().contains(words), "{branches:?}: {error}");
    }
    let options = AnalysisOptions { branches: vec![0], probes: 2 };
    let stopped =
        with(|pipeline| pipeline.analyze(&request, &options, |_| ControlFlow::Break(()))).unwrap_err();
    assert!(matches!(stopped, Error::Cancelled { .. }), "{stopped:?}");
}
