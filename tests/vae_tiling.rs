//! Decodes in tiles against diffusers, and when pictures are decoded so.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, reason = "values fit their storage")]

#[path = "support/loops.rs"]
mod loops;
#[path = "support/network.rs"]
mod network;
mod support;

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use deepcache::Error;
use deepcache::gpu::Gpu;
use deepcache::models::vae::tiling::Tiles;
use deepcache::models::vae::{VaeConfig, VaeDecoder};
use deepcache::pipelines::{DiffusionPipeline, Request, StorageType, VaeTiling};
use deepcache::schedulers::SchedulerKind;
use deepcache::tensor::ElementType;
use deepcache::weights::Checkpoint;
use loops::{PIXEL_LIMIT, load, number, pixels_apart, run};
use network::{Rig, channels_last};
use serde_json::Value;
use support::{Golden, Goldens, assert_close, json, relative_l2, repository};

const MODEL: &str = "tests/goldens/sd1/model";

/// `[H, W, 3]` to `[3, H, W]`.
fn planes(values: &[f32]) -> Vec<f64> {
    let channel = |channel: usize| values.iter().skip(channel).step_by(3).map(|&value| f64::from(value));
    (0..3).flat_map(channel).collect()
}

#[test]
fn tiles_of_a_vae_agree_with_diffusers() {
    let folder = repository(MODEL).join("vae");
    let config = VaeConfig::from_file(folder.join("config.json")).unwrap();
    let upsampling = config.upsampling();
    let file = Checkpoint::open(&[folder.join("diffusion_pytorch_model.safetensors")]).unwrap();
    let goldens = Goldens::open("vae_tiling/decode.safetensors");
    for (element, relative, absolute) in [(ElementType::F32, 5e-5, 2.5e-4), (ElementType::F16, 1e-2, 5e-2)] {
        let mut rig = Rig::new(element);
        let decoder = rig.load(&file, |file, loader| VaeDecoder::load(config.clone(), file, loader));
        for (number_of, case) in
            json("vae_tiling/cases.json")["decodes"].as_array().unwrap().iter().enumerate()
        {
            let latents = channels_last(&goldens.tensor(&format!("{number_of}.latents")));
            let [_, height, width, channels] = latents.shape[..] else { panic!("four extents") };
            let sample: Vec<f32> = latents.values.iter().map(|&value| value as f32).collect();
            let tiles = Tiles::new([height, width], number(&case["side"]), upsampling);
            let picture = tiles.join(3, |tile| {
                let values = tiles.cut(&sample, tile).into_iter().map(f64::from).collect();
                let shape = vec![1, tile.size[0], tile.size[1], channels];
                let input = rig.input(&Golden { shape, values });
                let mut recording = rig.recording("vae");
                let output = decoder.record(&mut recording, &input).unwrap();
                let found = rig.play(recording, Some(&output));
                let [height, width] = tile.size.map(|extent| extent * upsampling);
                let shape = vec![1, 3, height, width];
                let pixels = channels_last(&Golden { shape, values: found["output"].clone() });
                Ok::<Vec<f32>, Error>(pixels.values.iter().map(|&value| value as f32).collect())
            });
            let expected = goldens.values(&format!("{number_of}.image"));
            let what = format!("tiles of {} latents, {element}", tiles.side());
            assert_close(&what, &planes(&picture.unwrap()), &expected, relative, absolute);
        }
    }
}

/// The request of the golden loop.
fn request() -> (Request, Goldens) {
    let case = &json("vae_tiling/cases.json")["loop"];
    let side = |key: &str| Some(number(&case[key]));
    let request = Request {
        steps: Some(number(&case["steps"])),
        guidance_scale: case["guidance_scale"].as_f64(),
        scheduler: Some(SchedulerKind::Ddim),
        seed: case["seed"].as_u64().unwrap(),
        height: side("height"),
        width: side("width"),
        vae_tiling: VaeTiling::Always,
        ..Request::prompt(case["prompt"].as_str().unwrap())
    };
    (request, Goldens::open("vae_tiling/loop.safetensors"))
}

#[test]
fn a_run_that_decodes_in_tiles_agrees_with_diffusers() {
    let (request, goldens) = request();
    let mut pipeline = load(&repository(MODEL), StorageType::F32);
    let generation = run(&mut pipeline, &request);
    assert_eq!(generation.statistics.vae_tile, Some(16), "the tile of diffusers");
    let found: Vec<f64> = generation.latents.values().iter().map(|&value| value.into()).collect();
    assert_close("latents", &found, &goldens.values("latents"), 5e-4, 2.5e-3);
    let image = goldens.values("image");
    let apart = pixels_apart(&generation.pictures[0], &image);
    println!("picture within {apart} of 255");
    assert!(apart <= PIXEL_LIMIT, "{apart} of 255");

    for tiling in [VaeTiling::Auto, VaeTiling::Never] {
        let whole = run(&mut pipeline, &Request { vae_tiling: tiling, ..request.clone() });
        assert_eq!(whole.statistics.vae_tile, None, "{tiling:?}: all of it fits");
        assert_eq!(whole.latents, generation.latents, "{tiling:?}");
        assert!(pixels_apart(&whole.pictures[0], &image) > PIXEL_LIMIT, "{tiling:?}: tiles are seen");
        let less = generation.statistics.activation_bytes < whole.statistics.activation_bytes;
        assert!(less, "{tiling:?}: tiles need less memory");
    }
    let small = Request { height: Some(128), width: Some(128), ..request };
    assert_eq!(run(&mut pipeline, &small).statistics.vae_tile, None, "no larger than a tile");
}

#[test]
fn sixteen_bit_storage_decodes_tiles_as_well() {
    let (request, _) = request();
    let whole = |storage| run(&mut load(&repository(MODEL), storage), &request).pictures.remove(0);
    let [small, large] = [StorageType::F16, StorageType::F32].map(whole);
    let values = |pixels: &[u8]| pixels.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    let relative = relative_l2(&values(&small.pixels), &values(&large.pixels));
    println!("f16 against f32: relative l2 {relative:.2e}");
    assert!(relative < 3e-2, "{relative:.2e}");
}

/// Binds 640 KiB at most: the decoder's largest tensor at 128x200 pixels is larger.
static SMALL: LazyLock<Arc<Gpu>> = LazyLock::new(|| Arc::new(Gpu::open_limited(None, 640 << 10).unwrap()));

#[test]
fn what_cannot_be_bound_whole_is_decoded_in_the_largest_tiles_that_can() {
    let (request, _) = request();
    let storage = StorageType::F32;
    let mut pipeline = DiffusionPipeline::load_on(SMALL.clone(), repository(MODEL), &storage.into()).unwrap();
    assert_eq!(pipeline.gpu().binding_limit(), 640 << 10, "the limit");
    let auto = run(&mut pipeline, &Request { vae_tiling: VaeTiling::Auto, ..request.clone() });
    // 12 latents are 96 pixels a side, of 16 channels and four bytes: 576 KiB; 16 would be 1 MiB.
    let side = 12;
    assert_eq!(auto.statistics.vae_tile, Some(side), "the largest that can be bound");
    let always = run(&mut pipeline, &request);
    assert_eq!(always.statistics.vae_tile, Some(side), "diffusers' own tile is too large");
    assert_eq!(always.pictures, auto.pictures, "the same tiles");
    let whole = run(&mut load(&repository(MODEL), storage), &request);
    assert_eq!(whole.latents, auto.latents, "the limit changes no latent");

    let never = Request { vae_tiling: VaeTiling::Never, ..request };
    let error = pipeline.generate(&never, |_| ControlFlow::Continue(())).unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("decode/vae/") && text.contains("--vae-tiling auto"), "{text}");
}

#[test]
fn only_a_vae_decodes_in_tiles() {
    let mut pipeline = load(&repository("tests/goldens/unconditional/ldm"), StorageType::F32);
    let request = Request { steps: Some(2), vae_tiling: VaeTiling::Always, ..Request::unconditional() };
    let error = pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(matches!(&error, Error::Option { option, .. } if option == "vae tiling"), "{error}");
    let words: Value = serde_json::json!(["auto", "always", "never"]);
    for word in words.as_array().unwrap() {
        assert!(word.as_str().unwrap().parse::<VaeTiling>().is_ok(), "{word}");
    }
    assert!("no".parse::<VaeTiling>().unwrap_err().to_string().contains("auto, always or never"));
}
