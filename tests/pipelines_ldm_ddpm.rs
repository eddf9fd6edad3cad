//! Whole runs of the paper's other two systems against its code: class-conditional latent diffusion and DDPM.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, reason = "values fit their storage")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use deepcache::deepcache::CacheSchedule;
use deepcache::gpu::Gpu;
use deepcache::pipelines::{
    CacheOptions, Condition, DiffusionPipeline, Generation, Request, StepKind, StorageType,
};
use deepcache::schedulers::{SchedulerKind, TimestepSpacing};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::Value;
use support::{Goldens, copy_directory, json, max_abs, relative_l2, repository};

static GPU: LazyLock<Arc<Gpu>> =
    LazyLock::new(|| Arc::new(Gpu::open(None).unwrap_or_else(|error| panic!("{error}"))));

type Shared = LazyLock<Mutex<DiffusionPipeline>>;

static LDM: Shared = LazyLock::new(|| load("ldm4g"));
static CIFAR: Shared = LazyLock::new(|| load("ddpm-cifar"));
static CHURCH: Shared = LazyLock::new(|| load("ddpm-church"));

fn load(pack: &str) -> Mutex<DiffusionPipeline> {
    let path = repository(&format!("tests/goldens/{pack}/model"));
    let loaded = DiffusionPipeline::load_on(GPU.clone(), path, &StorageType::F32.into());
    Mutex::new(loaded.unwrap_or_else(|error| panic!("{error}")))
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// The loops of a pack.
fn loops(pack: &str) -> Vec<Value> {
    let manifest = json(&format!("{pack}/manifest.json"));
    let all = manifest["cases"].as_array().unwrap().iter();
    let found: Vec<Value> = all.filter(|case| case["kind"] == "loop").cloned().collect();
    assert!(found.len() > 5, "{pack} has loops");
    found
}

/// How a golden was cached, in the words of its code: `[interval, branch]`, and how it departs from uniform.
fn ldm_cache(params: &Value) -> Option<CacheOptions> {
    let cache = params["cache"].as_array()?;
    let (interval, branch) = (number(&cache[0]), number(&cache[1]));
    let schedule = match params["nonuniform"].as_f64() {
        Some(power) => CacheSchedule::Quadratic { interval, power: Some(power) },
        None => CacheSchedule::Uniform { interval },
    };
    Some(CacheOptions { schedule, ..CacheOptions::uniform(interval, branch) })
}

fn ldm_request(case: &Value) -> Request {
    let params = &case["params"];
    let labels = Goldens::open(&format!("ldm4g/{}", case["file"].as_str().unwrap()));
    let labels: Vec<usize> =
        labels.values("in.class_labels").iter().map(|label| *label as u32 as usize).collect();
    let side = |index: usize| params["hw"].as_array().map(|sides| 4 * number(&sides[index]));
    Request {
        steps: Some(number(&params["S"])),
        guidance_scale: params["scale"].as_f64(),
        eta: params["eta"].as_f64().unwrap(),
        seed: params["seed"].as_u64().unwrap(),
        height: side(0),
        width: side(1),
        count: labels.len(),
        cache: ldm_cache(params),
        condition: Condition::ClassLabels(labels),
        ..Request::unconditional()
    }
}

fn run(pipeline: &mut DiffusionPipeline, request: &Request) -> Generation {
    pipeline.generate(request, |_| ControlFlow::Continue(())).unwrap_or_else(|error| panic!("{error}"))
}

/// Compares a run with its golden: timesteps, full calls, the final latents, the picture where there is one.
fn check(pack: &str, case: &Value, generation: &Generation) {
    let name = case["name"].as_str().unwrap();
    let goldens = Goldens::open(&format!("{pack}/{}", case["file"].as_str().unwrap()));
    let steps = &generation.statistics.steps;
    let calls = steps.len() / generation.pictures.len();
    let timesteps: Vec<f64> = steps[..calls].iter().map(|step| step.timestep).collect();
    assert_eq!(timesteps, goldens.values("in.timesteps"), "{name}: timesteps");
    let full = steps[..calls].iter().filter(|step| step.kind == StepKind::Full).map(|step| step.index);
    assert_eq!(full.collect::<Vec<_>>(), numbers(&case["params"]["full_calls"]), "{name}: full calls");

    let key =
        if goldens.names().iter().any(|name| name == "out.latents") { "out.latents" } else { "out.sample" };
    let expected = goldens.values(key);
    let found: Vec<f64> = generation.latents.values().iter().map(|&value| f64::from(value)).collect();
    let (relative, absolute) = (relative_l2(&found, &expected), max_abs(&found, &expected));
    println!("{pack} {name}: relative l2 {relative:.2e}, max abs {absolute:.2e}");
    let limit = |key: &str| case["tolerance"][key].as_f64().unwrap();
    assert!(relative <= limit("rel_l2") && absolute <= limit("max_abs"), "{name}: {relative:.2e}");

    let image = match key {
        "out.sample" => Some(expected),
        _ => goldens.names().iter().any(|name| name == "out.image").then(|| goldens.values("out.image")),
    };
    let Some(image) = image else { return };
    let area = image.len() / 3 / generation.pictures.len();
    for (picture, image) in generation.pictures.iter().zip(image.chunks_exact(3 * area)) {
        let apart = picture.pixels.iter().enumerate().map(|(index, &found)| {
            let value = image[(index % 3) * area + index / 3];
            let expected = (255.0 * (value / 2.0 + 0.5).clamp(0.0, 1.0)).round_ties_even() as i64;
            expected.abs_diff(i64::from(found))
        });
        let apart: Vec<u64> = apart.collect();
        let (worst, beyond) = (apart.iter().max().unwrap(), apart.iter().filter(|apart| **apart > 2).count());
        println!("{pack} {name}: picture within {worst} of 255, {beyond} values of {} beyond 2", apart.len());
        // A latent that lies between two codebook entries may become the other one, which changes its surroundings.
        let margin = case["params"]["min_index_margin"].as_f64().unwrap_or(f64::INFINITY);
        let largest = expected_size(&found);
        let allowed = if margin < 2.0 * absolute * largest { apart.len() / 50 } else { 0 };
        assert!(beyond <= allowed, "{name}: {beyond} values beyond 2 of 255, {worst} at most");
    }
}

fn expected_size(values: &[f64]) -> f64 {
    values.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()))
}

#[test]
fn latent_diffusion_loops_agree_with_the_papers_code() {
    let pipeline = &mut LDM.lock().unwrap_or_else(PoisonError::into_inner);
    for case in loops("ldm4g") {
        let generation = run(pipeline, &ldm_request(&case));
        check("ldm4g", &case, &generation);
    }
}

/// The checkpoint with averaged weights (`model_ema.…`, names without dots) beside the U-Net's, which are made worse.
fn with_averages(folder: &Path) {
    let original = repository("tests/goldens/ldm4g/model");
    let yaml = std::fs::read_to_string(original.join("cin256-v2.yaml")).unwrap();
    std::fs::write(folder.join("ema.yaml"), yaml.replace("use_ema: False", "use_ema: True")).unwrap();
    std::fs::write(folder.join("plain.yaml"), yaml).unwrap();
    let bytes = std::fs::read(original.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        if let Some(own) = name.strip_prefix("model.") {
            tensors.push((format!("model_ema.{}", own.replace('.', "")), view.clone()));
        }
        tensors.push((name, view));
    }
    let name = "model.diffusion_model.out.2.weight";
    let worse = vec![0; file.tensor(name).unwrap().data().len()];
    let shape = file.tensor(name).unwrap().shape().to_vec();
    let view = TensorView::new(safetensors::Dtype::F16, shape, &worse).unwrap();
    tensors.iter_mut().find(|(other, _)| other == name).unwrap().1 = view;
    let whole = safetensors::serialize(tensors, None).unwrap();
    std::fs::write(folder.join("ema.safetensors"), &whole).unwrap();
    std::fs::write(folder.join("plain.safetensors"), &whole).unwrap();
}

#[test]
fn averaged_weights_are_used_where_the_config_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    with_averages(folder.path());
    let case = &loops("ldm4g")[0];
    let mut golden = LDM.lock().unwrap_or_else(PoisonError::into_inner);
    let expected = run(&mut golden, &ldm_request(case)).latents;
    let made = |name: &str| {
        let path = folder.path().join(name);
        let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), path, &StorageType::F32.into()).unwrap();
        run(&mut pipeline, &ldm_request(case)).latents
    };
    assert_eq!(made("ema.safetensors"), expected, "the averages are the golden's weights");
    assert!(
        made("plain.safetensors").distance(&expected).unwrap() > 0.1,
        "the weights beside them are worse"
    );
}

/// A loop of a pixel model: by diffusers (`sched`) or by the paper's code (`skip_type`).
fn pixel_request(pack: &str, case: &Value) -> Request {
    let params = &case["params"];
    let original = params["skip_type"].as_str();
    let steps = number(if original.is_some() { &params["timesteps"] } else { &params["steps"] });
    let cache = if original.is_some() {
        let (interval, branch) = (number(&params["interval"]), number(&params["branch"]));
        let schedule = if params["non_uniform"].as_bool() == Some(true) {
            let (center, power) = (number(&params["center"]), params["pow"].as_f64());
            CacheSchedule::Centered { interval, center: Some(center), power }
        } else {
            CacheSchedule::Uniform { interval }
        };
        Some(CacheOptions { schedule, ..CacheOptions::uniform(interval, branch + 1) })
    } else {
        let cache = params["cache"].as_array();
        cache.map(|cache| CacheOptions::uniform(number(&cache[0]), number(&cache[1])))
    };
    let timestep_spacing = original.map(|kind| match kind {
        "quad" => TimestepSpacing::Quadratic,
        _ => TimestepSpacing::Uniform,
    });
    Request {
        steps: Some(steps),
        scheduler: Some(params["sched"].as_str().map_or(SchedulerKind::Ddim, |name| {
            // What follows tells of the configuration, which the manifest holds as well.
            name.split('_').next().unwrap().parse().unwrap()
        })),
        eta: params["eta"].as_f64().unwrap_or(0.0),
        seed: params["seed"].as_u64().unwrap(),
        count: Goldens::open(&format!("{pack}/{}", case["file"].as_str().unwrap()))
            .tensor("out.sample")
            .shape[0],
        timestep_spacing,
        cache,
        ..Request::unconditional()
    }
}

/// Every loop of a pack; the scheduler's configuration differs between them, so models are loaded anew for it.
fn check_pixels(pack: &str, shared: &Shared) {
    let mut own = shared.lock().unwrap_or_else(PoisonError::into_inner);
    for case in loops(pack) {
        let generation = match case["params"]["scheduler_config"].as_object() {
            None => {
                // The paper's code does not clip.
                let config = serde_json::json!({"clip_sample": false, "beta_schedule": "linear"});
                run(&mut with_scheduler(pack, &config), &pixel_request(pack, &case))
            }
            Some(config) => {
                run(&mut with_scheduler(pack, &Value::from(config.clone())), &pixel_request(pack, &case))
            }
        };
        check(pack, &case, &generation);
    }
    // The model as it is on disk: diffusers' DDPM with clipping.
    let request = Request { steps: Some(3), ..Request::unconditional() };
    let generation = run(&mut own, &request);
    let finite = generation.latents.values().iter().all(|value| value.is_finite());
    assert!(finite, "{pack} as it is on disk");
}

/// A copy of a model with another scheduler configuration.
fn with_scheduler(pack: &str, config: &Value) -> DiffusionPipeline {
    let copy = tempfile::tempdir().unwrap();
    let original = repository(&format!("tests/goldens/{pack}/model"));
    copy_directory(&original, copy.path());
    let files = ["scheduler_config.json", "scheduler/scheduler_config.json"];
    for file in files.iter().filter(|file| original.join(file).is_file()) {
        std::fs::write(copy.path().join(file), config.to_string()).unwrap();
    }
    DiffusionPipeline::load_on(GPU.clone(), copy.path(), &StorageType::F32.into()).unwrap()
}

#[test]
fn cifar_loops_agree_with_diffusers_and_the_papers_code() {
    check_pixels("ddpm-cifar", &CIFAR);
}

#[test]
fn church_loops_agree_with_diffusers_and_the_papers_code() {
    check_pixels("ddpm-church", &CHURCH);
}
