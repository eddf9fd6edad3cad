//! Whole runs of a latent consistency model, whose U-Net reads the guidance scale, against diffusers.

#[path = "support/loops.rs"]
mod loops;
mod support;

use deepcache::pipelines::{CacheOptions, Request, StorageType};
use loops::{load, run};
use support::{Goldens, assert_close, json, repository};

#[test]
fn runs_agree_with_diffusers_at_every_guidance_scale() {
    let mut pipeline = load(&repository("tests/goldens/lcm/model"), StorageType::F32);
    let cases = json("lcm/cases.json");
    let side = Some(usize::try_from(cases["size"].as_u64().unwrap()).unwrap());
    let mut found = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let usual = name == "usual"; // four steps and a scale of 8.5 are what nobody has to ask for
        let request = Request {
            steps: (!usual).then(|| usize::try_from(case["steps"].as_u64().unwrap()).unwrap()),
            guidance_scale: (!usual).then(|| case["guidance"].as_f64().unwrap()),
            seed: case["seed"].as_u64().unwrap(),
            height: side,
            width: side,
            ..Request::prompt(cases["prompt"].as_str().unwrap())
        };
        let generation = run(&mut pipeline, &request);
        let scale = case["guidance"].as_f64().unwrap();
        assert_eq!(generation.guidance_scale.map(f64::from), Some(scale), "{name}: the scale that was read");
        let latents: Vec<f64> = generation.latents.values().iter().map(|&value| f64::from(value)).collect();
        let goldens = Goldens::open(&format!("lcm/golden/{name}.safetensors"));
        assert_close(name, &latents, &goldens.values("out.latents"), 5e-4, 2.5e-3);
        found.push(latents);
        // With every call full, a cache changes nothing.
        let cached = Request { cache: Some(CacheOptions::uniform(1, 0)), ..request };
        let again = run(&mut pipeline, &cached).latents;
        assert_eq!(again.values(), generation.latents.values(), "{name}: full calls");
    }
    assert_ne!(found[0], found[1], "the scale matters");
}
