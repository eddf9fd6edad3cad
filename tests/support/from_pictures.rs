//! Runs of the reference that start from a picture: requests from its lists, and how near their results come.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests may fail, and tell how near they came")]

use deepcache::image::Picture;
use deepcache::pipelines::{
    CacheOptions, Condition, DiffusionPipeline, Generation, Request, StepKind, StorageType,
};
use deepcache::weights::{ModelFiles, Replacements};
use serde_json::Value;

use super::loops::{GPU, PIXEL_LIMIT, load, number, run};
use super::support::{Goldens, assert_close, json, repository};

pub(crate) fn picture(name: &str) -> Picture {
    let path = repository(&format!("tests/goldens/image-to-image/{name}.png"));
    Picture::read(path, "image").unwrap_or_else(|error| panic!("{error}"))
}

/// The model of a pack, in f32.
pub(crate) fn load_pack(pack: &str) -> DiffusionPipeline {
    if pack == "single" {
        return load_single(&repository("tests/goldens/single/model.safetensors"));
    }
    load(&repository(&format!("tests/goldens/{pack}/model")), StorageType::F32)
}

/// Stable Diffusion 1 in one file, with the small vocabulary of the packs.
pub(crate) fn load_single(path: &std::path::Path) -> DiffusionPipeline {
    let config = Some(repository("tests/goldens/single/config"));
    let files = ModelFiles::open_with(path, &Replacements { config, vae: None }).unwrap();
    DiffusionPipeline::load_files(GPU.clone(), &files, &StorageType::F32.into())
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The runs of a list for a model.
pub(crate) fn cases(list: &Value, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    let found: Vec<Value> =
        list["cases"].as_array().unwrap().iter().filter(|case| wanted(case)).cloned().collect();
    assert!(!found.is_empty(), "the list has such runs");
    found
}

pub(crate) fn request(list: &Value, case: &Value) -> Request {
    let cache =
        case["cache"].as_array().map(|cache| CacheOptions::uniform(number(&cache[0]), number(&cache[1])));
    // A consistency model is asked without a negative prompt.
    let negative = if case["model"] == "lcm" { "" } else { list["negative_prompt"].as_str().unwrap() };
    Request {
        condition: Condition::Prompt {
            prompt: list["prompt"].as_str().unwrap().to_owned(),
            negative_prompt: negative.to_owned(),
        },
        steps: Some(number(&case["steps"])),
        guidance_scale: case["guidance"].as_f64(),
        scheduler: case["scheduler"].as_str().map(|name| name.parse().unwrap()),
        eta: case["eta"].as_f64().unwrap_or(0.0),
        seed: case["seed"].as_u64().unwrap(),
        count: case["count"].as_u64().map_or(1, |count| usize::try_from(count).unwrap()),
        image: Some(picture(case["image"].as_str().unwrap())),
        strength: case["strength"].as_f64(),
        cache,
        ..Request::unconditional()
    }
}

/// Runs a request, and compares latents and, where the reference has one, the picture.
pub(crate) fn check(
    pack: &str,
    pipeline: &mut DiffusionPipeline,
    case: &Value,
    request: &Request,
) -> Generation {
    let name = case["name"].as_str().unwrap();
    let generation = run(pipeline, request);
    let goldens = Goldens::open(&format!("{pack}/{name}.safetensors"));
    let expected = goldens.tensor("latents");
    assert_eq!(generation.latents.shape().to_vec(), expected.shape, "{name}: shape");
    let found: Vec<f64> = generation.latents.values().iter().map(|&value| f64::from(value)).collect();
    assert_close(name, &found, &expected.values, 5e-4, 2.5e-3);
    if case["png"] == true {
        let path = repository(&format!("tests/goldens/{pack}/{name}.png"));
        let expected = Picture::read(path, "picture").unwrap();
        let pairs = generation.pictures[0].pixels.iter().zip(&expected.pixels);
        let apart = pairs.map(|(found, expected)| found.abs_diff(*expected)).max().unwrap();
        println!("{name}: picture within {apart} of 255");
        assert_eq!(generation.pictures[0].size(), expected.size(), "{name}: size");
        assert!(apart <= PIXEL_LIMIT, "{name}: {apart} of 255");
    }
    if let Some(cache) = case["cache"].as_array() {
        let steps = &generation.statistics.steps;
        let full = steps.iter().filter(|step| step.kind == StepKind::Full).map(|step| step.index);
        let expected: Vec<usize> = (0..steps.len()).step_by(number(&cache[0])).collect();
        assert_eq!(full.collect::<Vec<_>>(), expected, "{name}: the first call of the part is full");
        assert!(expected.len() < steps.len(), "{name}: some calls are shallow");
    }
    generation
}

pub(crate) fn list(pack: &str) -> Value {
    json(&format!("{pack}/cases.json"))
}
