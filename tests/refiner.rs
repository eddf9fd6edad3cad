//! The refiner of SDXL against diffusers: a call of its U-Net, runs that go on with a base's latents, and cached ones.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, reason = "values fit their storage")]

#[path = "support/loops.rs"]
mod loops;
#[path = "support/network.rs"]
mod network;
mod support;

use std::ops::ControlFlow;
use std::path::Path;

use deepcache::gpu::Purpose;
use deepcache::models::unet::{Context, UNet, UNetConfig};
use deepcache::pipelines::{
    CacheOptions, Condition, DiffusionPipeline, Generation, Latents, LoadOptions, Request, StorageType,
};
use deepcache::schedulers::SchedulerKind;
use deepcache::tensor::ElementType;
use deepcache::weights::{Checkpoint, Embedding, ModelFiles, ModelKind, Replacements};
use loops::{GPU, PIXEL_LIMIT, load, number, pixels_apart, run};
use network::{Rig, channels_last};
use serde_json::Value;
use support::{Goldens, assert_close, copy_directory, json, relative_l2, repository};

const REFINER: &str = "tests/goldens/refiner/model";
const BASE: &str = "tests/goldens/sdxl/model";
const SINGLE: &str = "tests/goldens/single-refiner/model.safetensors";

#[test]
fn a_call_of_its_unet_agrees_with_diffusers() {
    let goldens = Goldens::open("refiner/golden/unet.safetensors");
    let folder = repository(REFINER).join("unet");
    let config = UNetConfig::from_file(folder.join("config.json")).unwrap().of_refiner();
    let weights = folder.join("diffusion_pytorch_model.fp16.safetensors");
    let checkpoint = Checkpoint::open(&[weights]).unwrap();
    for (element, relative, absolute) in [(ElementType::F32, 5e-5, 2.5e-4), (ElementType::F16, 1e-2, 5e-2)] {
        let mut rig = Rig::new(element);
        let network = rig.load(&checkpoint, |file, loader| UNet::load(config.clone(), file, loader));
        let prompt = goldens.tensor("in.encoder_hidden_states");
        let conditioning = network.conditioning(prompt.shape[0], prompt.shape[1], 1);
        rig.memory.allocate(conditioning.tensors(), Purpose::Persistent).unwrap();
        rig.fill(conditioning.timesteps(), &goldens.values("in.timestep"));
        let widen = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
        rig.fill(conditioning.frequencies(), &widen(network.frequencies()));
        rig.fill(conditioning.step(), &[0.0]);
        let text_time = conditioning.text_time().unwrap();
        assert_eq!(text_time.told(), 5, "sizes, crop and score");
        rig.fill(&text_time.sizes, &goldens.values("in.added_time_ids"));
        rig.fill(&text_time.frequencies, &widen(network.size_frequencies()));
        rig.fill(&text_time.rows, &[0.0, 0.0]);
        let (prompt, pooled) = (rig.input(&prompt), rig.input(&goldens.tensor("in.added_text_embeds")));
        let context = Context { pooled: Some(&pooled), ..Context::from(Some(&prompt)) };
        let mut recording = rig.recording("unet");
        network.record_conditioning(&mut recording, context, &conditioning).unwrap();
        rig.play(recording, None);
        let sample = rig.input(&channels_last(&goldens.tensor("in.sample")));
        let mut recording = rig.recording("unet");
        let output = network.record_full(&mut recording, &sample, &conditioning, &[]).unwrap().prediction;
        let found = rig.play(recording, Some(&output));
        assert_close(
            &format!("{element}"),
            &found["output"],
            &goldens.values("out.sample"),
            relative,
            absolute,
        );
    }
}

/// The request of a golden run, without its share.
fn request(case: &Value) -> Request {
    let runs = json("refiner/runs.json");
    let text = |key: &str| runs[key].as_str().unwrap().to_owned();
    Request {
        condition: Condition::Prompt { prompt: text("prompt"), negative_prompt: text("negative_prompt") },
        steps: Some(number(&case["steps"])),
        guidance_scale: case["guidance"].as_f64(),
        scheduler: Some(case["scheduler"].as_str().unwrap().parse().unwrap()),
        seed: runs["seed"].as_u64().unwrap(),
        height: Some(number(&runs["height"])),
        width: Some(number(&runs["width"])),
        ..Request::prompt("")
    }
}

/// The same for the refiner, with what the golden run told it.
fn refining(case: &Value, latents: Latents) -> Request {
    let pair = |key: &str| case[key].as_array().map(|pair| [number(&pair[0]), number(&pair[1])]);
    Request {
        original_size: pair("original_size"),
        crops_coords_top_left: pair("crops_coords_top_left"),
        aesthetic_score: case["aesthetic_score"].as_f64(),
        negative_aesthetic_score: case["negative_aesthetic_score"].as_f64(),
        ..request(case).refining(latents, case["share"].as_f64().unwrap())
    }
}

fn latents_of(goldens: &Goldens, name: &str) -> Latents {
    let tensor = goldens.tensor(name);
    let values = tensor.values.iter().map(|&value| value as f32).collect();
    Latents::new(tensor.shape.try_into().unwrap(), values).unwrap()
}

fn check(what: &str, found: &Generation, expected: &[f64]) {
    check_within(5e-4, what, found, expected);
}

fn check_within(limit: f64, what: &str, found: &Generation, expected: &[f64]) {
    let values: Vec<f64> = found.latents.values().iter().map(|&value| f64::from(value)).collect();
    assert_close(what, &values, expected, limit, 5.0 * limit);
}

/// The last part of a run changes large latents little, so what a cache changes in it is small beside them.
const LAST_PART: f64 = 5e-6;

#[test]
fn base_and_refiner_share_a_run_as_in_diffusers() {
    let mut base = load(&repository(BASE), StorageType::F32);
    let mut refiner = load(&repository(REFINER), StorageType::F32);
    assert_eq!(refiner.kind(), ModelKind::TextToImage);
    for case in json("refiner/runs.json")["runs"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let goldens = Goldens::open(&format!("refiner/golden/{name}.safetensors"));
        let first = run(&mut base, &Request { denoising_end: case["share"].as_f64(), ..request(case) });
        check(&format!("{name}: base"), &first, &goldens.values("base"));
        assert!(first.pictures.is_empty(), "{name}: its latents are noisy");

        // From the latents of the reference, and through both models.
        let second = run(&mut refiner, &refining(case, latents_of(&goldens, "base")));
        check_within(LAST_PART, &format!("{name}: refiner"), &second, &goldens.values("refined"));
        let chained = run(&mut refiner, &refining(case, first.latents.clone()));
        check(&format!("{name}: both"), &chained, &goldens.values("refined"));
        let whole = base.generate(&request(case), |_| ControlFlow::Continue(())).unwrap();
        let calls = |found: &Generation| found.statistics.steps.len();
        // A step of two calls is not begun in its middle, so one may be made by both.
        let both = usize::from(name == "heun");
        assert_eq!(calls(&first) + calls(&second), calls(&whole) + both, "{name}: together a whole run");
        if goldens.names().contains(&"image".to_owned()) {
            let apart = pixels_apart(&second.pictures[0], &goldens.values("image"));
            assert!(apart <= PIXEL_LIMIT, "{name}: {apart} of 255");
        }
        for branch in case["branches"].as_array().unwrap().iter().map(number) {
            let cache = Some(CacheOptions::uniform(3, branch));
            let request = Request { cache, ..refining(case, latents_of(&goldens, "base")) };
            let cached = run(&mut refiner, &request);
            let expected = goldens.values(&format!("cached.{branch}"));
            check_within(LAST_PART, &format!("{name}: branch {branch}"), &cached, &expected);
            let apart = relative_l2(&expected, &goldens.values("refined"));
            assert!(apart > 10.0 * LAST_PART, "{name}: the cache of branch {branch} changes {apart:.1e}");
        }
    }
}

#[test]
fn the_scores_matter_and_those_of_diffusers_are_the_usual_ones() {
    let case = &json("refiner/runs.json")["runs"][0];
    let goldens = Goldens::open("refiner/golden/chain.safetensors");
    let mut refiner = load(&repository(REFINER), StorageType::F32);
    let plain = refining(case, latents_of(&goldens, "base"));
    let usual = run(&mut refiner, &plain).latents;
    let asked = Request { aesthetic_score: Some(6.0), negative_aesthetic_score: Some(2.5), ..plain.clone() };
    assert_eq!(run(&mut refiner, &asked).latents, usual, "the usual scores");
    for other in [
        Request { aesthetic_score: Some(2.0), ..plain.clone() },
        Request { negative_aesthetic_score: Some(6.0), ..plain },
    ] {
        assert_ne!(run(&mut refiner, &other).latents, usual, "another score");
    }
}

#[test]
fn a_refiner_in_one_file_is_told_from_its_tensors() {
    let goldens = Goldens::open("single-refiner/run.safetensors");
    let path = repository(SINGLE);
    let replacements =
        Replacements { config: Some(path.with_file_name("config")), ..Replacements::default() };
    let files = ModelFiles::open_with(&path, &replacements).unwrap();
    assert!(matches!(files, ModelFiles::StableDiffusionXlRefiner(_)), "{files:?}");
    for low_memory in [false, true] {
        let options = LoadOptions {
            storage: Some(StorageType::F32),
            replacements: replacements.clone(),
            low_memory,
            ..LoadOptions::default()
        };
        let mut refiner = DiffusionPipeline::load_on(GPU.clone(), &path, &options).unwrap();
        let runs = json("refiner/runs.json");
        let text = |key: &str| runs[key].as_str().unwrap().to_owned();
        let request = Request {
            condition: Condition::Prompt { prompt: text("prompt"), negative_prompt: text("negative_prompt") },
            steps: Some(6),
            guidance_scale: Some(4.0),
            scheduler: Some(SchedulerKind::Euler),
            ..Request::prompt("")
        };
        let found = run(&mut refiner, &request.refining(latents_of(&goldens, "base"), 0.6));
        check("in one file", &found, &goldens.values("refined"));
    }
}

#[test]
fn a_run_that_stops_early_has_no_memory_for_pictures_and_the_plan_knows() {
    let request = Request {
        steps: Some(4),
        width: Some(128),
        height: Some(64),
        denoising_end: Some(0.5),
        ..Request::prompt("a castle")
    };
    for low_memory in [false, true] {
        let options = LoadOptions { low_memory, storage: Some(StorageType::F32), ..LoadOptions::default() };
        let mut base = DiffusionPipeline::load_on(GPU.clone(), repository(BASE), &options).unwrap();
        let plan = base.memory_plan(&request).unwrap();
        let whole = base.memory_plan(&Request { denoising_end: None, ..request.clone() }).unwrap();
        let most =
            |stages: &[deepcache::pipelines::StageMemory]| stages.iter().map(|stage| stage.total()).max();
        let found = run(&mut base, &request);
        assert_eq!(most(&plan.stages), Some(found.statistics.peak_bytes), "low memory: {low_memory}");
        assert!(most(&plan.stages) < most(&whole.stages), "less than a run that decodes");
    }
}

#[test]
fn what_makes_no_sense_is_refused_by_its_option() {
    let case = &json("refiner/runs.json")["runs"][0];
    let latents = latents_of(&Goldens::open("refiner/golden/chain.safetensors"), "base");
    let mut base = load(&repository(BASE), StorageType::F32);
    let mut refiner = load(&repository(REFINER), StorageType::F32);
    let mut refused = |is_refiner: bool, request: Request, words: &[&str]| {
        let pipeline = if is_refiner { &mut refiner } else { &mut base };
        let told = pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap_err().to_string();
        for word in words {
            assert!(told.contains(word), "\"{told}\" does not say \"{word}\"");
        }
    };
    let plain = request(case);
    let refining = refining(case, latents);
    for share in [0.0, 1.0, -0.5, f64::NAN] {
        let words = ["denoising end", "more than 0 and less than 1"];
        refused(false, Request { denoising_end: Some(share), ..plain.clone() }, &words);
    }
    refused(
        false,
        Request { denoising_start: Some(0.5), ..plain.clone() },
        &["denoising start", "expected latents"],
    );
    refused(
        true,
        Request { denoising_end: Some(0.5), ..refining.clone() },
        &["denoising start", "0.6 is not before the denoising end, 0.5"],
    );
    refused(false, Request { denoising_end: Some(0.01), ..plain.clone() }, &["denoising end", "no call"]);
    refused(
        true,
        Request { denoising_start: Some(0.9999), ..refining.clone() },
        &["denoising start", "no call"],
    );
    refused(false, Request { aesthetic_score: Some(6.0), ..plain }, &["aesthetic score", "no refiner"]);
    refused(true, Request { target_size: Some([64, 64]), ..refining.clone() }, &["target size", "not told"]);
    refused(
        true,
        Request { negative_aesthetic_score: Some(f64::NAN), ..refining },
        &["negative aesthetic score", "NaN"],
    );
}

#[test]
fn directories_that_are_no_refiners_are_told_apart() {
    let change = |from: &str, change: &dyn Fn(&mut Value)| {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(&repository(from), copy.path());
        let path = copy.path().join("model_index.json");
        let mut index: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut index);
        std::fs::write(&path, index.to_string()).unwrap();
        copy
    };
    let opened = |folder: &Path| DiffusionPipeline::load_on(GPU.clone(), folder, &StorageType::F32.into());
    let plain = change(REFINER, &|index| index["requires_aesthetics_score"] = false.into());
    let told = opened(plain.path()).unwrap_err().to_string();
    assert!(told.contains("requires_aesthetics_score") && told.contains("expected true"), "{told}");
    // The same class with both text encoders is SDXL.
    let whole = change(BASE, &|index| index["_class_name"] = "StableDiffusionXLImg2ImgPipeline".into());
    assert!(matches!(ModelFiles::open(whole.path()), Ok(ModelFiles::StableDiffusionXl(_))), "SDXL itself");
    // A base's U-Net is told six numbers.
    let other = change(REFINER, &|_| {});
    let config = other.path().join("unet/config.json");
    let mut unet: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    unet["projection_class_embeddings_input_dim"] = (40 + 6 * 16).into();
    std::fs::write(&config, unet.to_string()).unwrap();
    let told = opened(other.path()).unwrap_err().to_string();
    assert!(told.contains("expected the second text encoder's 40 and 5 times 16"), "{told}");
}

#[test]
fn a_word_of_sdxl_is_learned_by_the_one_encoder() {
    let values = (0..4 * 16 * 16_u16).map(|index| f32::from(index % 17) / 8.0 - 1.0).collect();
    let latents = Latents::new([1, 4, 16, 16], values).unwrap();
    let draw = |embeddings: Vec<Embedding>, prompt: &str| {
        let options = LoadOptions { embeddings, ..StorageType::F32.into() };
        let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), repository(REFINER), &options).unwrap();
        let request = Request {
            latents: Some(latents.clone()),
            denoising_start: Some(0.5),
            steps: Some(4),
            ..Request::prompt(prompt)
        };
        run(&mut pipeline, &request).latents
    };
    let toy = || vec![Embedding::new(repository("tests/goldens/textual-inversion/toy.safetensors"))];
    assert_ne!(draw(toy(), "a toy"), draw(Vec::new(), "a toy"), "the word means something else");
    assert_eq!(draw(toy(), "a fox"), draw(Vec::new(), "a fox"), "and no other does");
}
