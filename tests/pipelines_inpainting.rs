//! Inpainting, by U-Nets that read a mask and by others, against diffusers, and what is refused.

#![expect(clippy::cast_possible_truncation, reason = "values fit their storage")]
#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/from_pictures.rs"]
mod from_pictures;
#[path = "support/loops.rs"]
mod loops;
mod support;

use std::ops::ControlFlow;
use std::path::Path;

use checkpoints::{changed, write};
use deepcache::Error;
use deepcache::image::Picture;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, LoadOptions, PlanTarget, Planner, Request, StorageType,
};
use deepcache::weights::{Checkpoint, CheckpointKind, Loader, ModelFiles};
use from_pictures::{cases, check, list, load_pack, load_single, picture, request};
use half::f16;
use loops::{GPU, load, number, run};
use safetensors::Dtype;
use support::{Goldens, copy_directory, repository};

/// Copies tensors, with the first convolution of the U-Net replaced by one of 9 inputs.
fn with_nine_inputs(from: &Path, to: &Path, name: &str, pack: &str) {
    let golden = Goldens::open("inpainting/conv_in.safetensors").tensor(pack);
    let tensors = changed(from, |mut stored| {
        if stored.0 == name {
            let values = golden.values.iter().map(|&value| value as f32);
            stored.3 = match stored.1 {
                Dtype::F16 => values.flat_map(|value| f16::from_f32(value).to_le_bytes()).collect(),
                _ => values.flat_map(f32::to_le_bytes).collect(),
            };
            stored.2.clone_from(&golden.shape);
        }
        Some(stored)
    });
    assert!(tensors.iter().any(|stored| stored.2 == golden.shape), "the file has {name}");
    write(to, &tensors);
}

/// The model of a pack with a U-Net of 9 inputs, as a directory of diffusers.
fn directory(pack: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&repository(&format!("tests/goldens/{pack}/model")), folder.path());
    let unet = folder.path().join("unet");
    let edit = |path: &Path, from: &str, to: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(from), "{}: {from}", path.display());
        std::fs::write(path, text.replace(from, to)).unwrap();
    };
    edit(&unet.join("config.json"), "\"in_channels\": 4", "\"in_channels\": 9");
    let class = if pack == "sdxl" { "StableDiffusionXL" } else { "StableDiffusion" };
    let index = folder.path().join("model_index.json");
    edit(&index, &format!("\"{class}Pipeline\""), &format!("\"{class}InpaintPipeline\""));
    for file in std::fs::read_dir(&unet).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            with_nine_inputs(&file, &file, "conv_in.weight", pack);
        }
    }
    folder
}

fn masked(case: &serde_json::Value, request: Request) -> Request {
    let mask = if case["image"] == "odd" { "odd-mask" } else { "mask" };
    Request { mask_image: Some(picture(mask)), ..request }
}

fn check_all(pipeline: &mut DiffusionPipeline, model: &str, inputs: usize) {
    let list = list("inpainting");
    for case in cases(&list, |case| case["model"] == model && number(&case["inputs"]) == inputs) {
        check("inpainting", pipeline, &case, &masked(&case, request(&list, &case)));
    }
}

#[test]
fn stable_diffusion_1_that_reads_a_mask() {
    let folder = directory("sd1");
    check_all(&mut load(folder.path(), StorageType::F32), "sd1", 9);
}

#[test]
fn stable_diffusion_xl_that_reads_a_mask() {
    let folder = directory("sdxl");
    check_all(&mut load(folder.path(), StorageType::F32), "sdxl", 9);
}

#[test]
fn a_model_in_one_file_that_reads_a_mask() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let name = "model.diffusion_model.input_blocks.0.0.weight";
    with_nine_inputs(&repository("tests/goldens/single/model.safetensors"), &path, name, "single");
    let kind = CheckpointKind::of(&Checkpoint::open(std::slice::from_ref(&path)).unwrap());
    assert_eq!(kind, Some(CheckpointKind::StableDiffusion1), "by its tensors");
    check_all(&mut load_single(&path), "single", 9);
}

#[test]
fn models_that_read_no_mask_put_back_what_stays() {
    check_all(&mut load_pack("sd1"), "sd1", 4);
    check_all(&mut load_pack("sdxl"), "sdxl", 4);
}

#[test]
fn a_call_of_a_network_with_nine_inputs() {
    use deepcache::gpu::{Executor, Memory, Purpose};
    use deepcache::models::unet::{Context, UNet, UNetConfig};
    use deepcache::pipelines::load_network;
    use deepcache::tensor::{ElementType, Tensor};

    let folder = directory("sd1");
    let unet = folder.path().join("unet");
    let config = UNetConfig::from_file(unet.join("config.json")).unwrap();
    assert_eq!((config.in_channels, config.out_channels), (9, 4), "by its configuration");
    let checkpoint = Checkpoint::open(&[unet.join("diffusion_pytorch_model.safetensors")]).unwrap();
    let mut memory = Memory::new(GPU.clone());
    let mut executor = Executor::new(GPU.clone());
    let build = |file: &Checkpoint, loader: &mut _| UNet::load(config, file, loader);
    let unet = load_network(&checkpoint, &mut memory, Loader::new("unet", ElementType::F32), build).unwrap();
    let goldens = Goldens::open("inpainting/unet.safetensors");
    let [sample, states] = ["sample", "states"].map(|name| goldens.tensor(name));
    let [images, channels, height, width] = sample.shape[..] else { panic!("four extents") };

    let conditioning = unet.conditioning(images, states.shape[1], 1);
    let input = Tensor::external("sample", [images, height, width, channels], ElementType::F32);
    let context = Tensor::external("states", [images, states.shape[1], states.shape[2]], ElementType::F32);
    let output = Tensor::external("prediction", [images, height, width, 4], ElementType::F32);
    let mut begin = executor.recording("condition");
    let states_of = Context { hidden_states: Some(&context), ..Context::default() };
    unet.record_conditioning(&mut begin, states_of, &conditioning).unwrap();
    let mut call = executor.recording("full");
    let flow = unet.record_full(&mut call, &input, &conditioning, &[]).unwrap();
    call.place(&flow.prediction, &output);
    let tensors = conditioning.tensors().chain([&input, &context, &output]);
    memory.allocate(tensors, Purpose::Persistent).unwrap();
    let floats = |values: &[f64]| -> Vec<f32> { values.iter().map(|&value| value as f32).collect() };
    let area = height * width;
    let last = |at: usize| {
        sample.values[at / (area * channels) * area * channels + at % channels * area + at / channels % area]
    };
    let values: Vec<f64> = (0..sample.values.len()).map(last).collect();
    memory.write(&input, 0, bytemuck::cast_slice(&floats(&values))).unwrap();
    memory.write(&context, 0, bytemuck::cast_slice(&floats(&states.values).repeat(images))).unwrap();
    memory.write(conditioning.timesteps(), 0, bytemuck::bytes_of(&371.0_f32)).unwrap();
    memory.write(conditioning.frequencies(), 0, bytemuck::cast_slice(&unet.frequencies())).unwrap();
    memory.write(conditioning.step(), 0, bytemuck::bytes_of(&0_u32)).unwrap();
    let programs = executor.prepare(&memory, &[&begin, &call]).unwrap();
    for program in &programs {
        executor.play(program).unwrap();
    }
    executor.finish().unwrap();
    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&output).unwrap());
    let first = |at: usize| f64::from(found[at / (4 * area) * 4 * area + at % area * 4 + at / area % 4]);
    let found: Vec<f64> = (0..found.len()).map(first).collect();
    support::assert_close("a call", &found, &goldens.values("prediction"), 5e-5, 1e-3);
}

#[test]
fn what_a_mask_leaves_alone_stays() {
    let mut pipeline = load_pack("sd1");
    let list = list("inpainting");
    let case = &cases(&list, |case| case["name"] == "blend_ddim_part")[0];
    let image = request(&list, case);
    let nothing = Picture { pixels: vec![0; 128 * 128 * 3], ..picture("mask") };
    let everything = Picture { pixels: vec![255; 128 * 128 * 3], ..picture("mask") };
    let latents = |pipeline: &mut _, mask: Option<&Picture>, seed| {
        run(pipeline, &Request { mask_image: mask.cloned(), seed, ..image.clone() }).latents
    };
    // Nothing is drawn anew: the noise is all gone, and what is left is what the encoder drew from the same seed.
    let kept = latents(&mut pipeline, Some(&nothing), 5);
    let other = run(
        &mut pipeline,
        &Request {
            mask_image: Some(nothing.clone()),
            seed: 5,
            strength: Some(0.2),
            steps: Some(7),
            ..image.clone()
        },
    );
    assert!(kept.distance(&other.latents).unwrap() < 1e-6, "the picture itself, whatever the steps");
    // Everything is drawn anew: as image to image.
    let all = latents(&mut pipeline, Some(&everything), 5);
    assert_eq!(all, latents(&mut pipeline, None, 5), "a mask of everything");
    assert!(all.distance(&kept).unwrap() > 0.1, "the mask matters");
}

#[test]
fn plans_know_what_a_mask_takes() {
    let folder = directory("sd1");
    let files = ModelFiles::open(folder.path()).unwrap();
    let list = list("inpainting");
    let case = &cases(&list, |case| case["name"] == "ddim_cached")[0];
    for low_memory in [false, true] {
        let options = LoadOptions { low_memory, ..StorageType::F32.into() };
        let mut pipeline = DiffusionPipeline::load_files(GPU.clone(), &files, &options).unwrap();
        let request = masked(case, request(&list, case));
        let planned = Planner::open(&files, &options, PlanTarget::of(&GPU)).unwrap().plan(&request).unwrap();
        let found = run(&mut pipeline, &request).statistics;
        assert_eq!(found.peak_bytes, planned.peak(), "peak");
        let persistent = planned.stages.iter().map(|stage| stage.persistent).max();
        assert_eq!(Some(found.persistent_bytes), persistent, "persistent");
    }
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let folder = directory("sd1");
    let mut reads = load(folder.path(), StorageType::F32);
    let mut blends = load_pack("sd1");
    let mut pixels = load(&repository("tests/goldens/ddpm-cifar/model"), StorageType::F32);
    let text = Request { steps: Some(2), ..Request::prompt("a fox") };
    let (image, mask) = (Some(picture("picture")), Some(picture("mask")));
    let torn = Some(Picture { width: 7, ..picture("picture") });
    let empty = Some(Picture { width: 0, height: 0, pixels: Vec::new() });
    let tiny = Some(Picture { width: 9, height: 7, pixels: vec![0; 9 * 7 * 3] });
    let from = |image: &Option<Picture>| Request { image: image.clone(), ..text.clone() };
    let with =
        |image: &Option<Picture>, mask: &Option<Picture>| Request { mask_image: mask.clone(), ..from(image) };
    let strength = |strength| Request { strength: Some(strength), ..from(&image) };
    let refused = |pipeline: &mut DiffusionPipeline, request: Request, option: &str, says: &str| {
        let error = pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap_err();
        let planned = pipeline.memory_plan(&request).unwrap_err();
        assert_eq!(error.to_string(), planned.to_string(), "a plan says the same");
        assert!(matches!(&error, Error::Option { option: found, .. } if found == option), "{error}");
        assert!(error.to_string().contains(says), "{error}: {says}");
    };
    refused(&mut reads, text.clone(), "image", "an inpainting model");
    refused(&mut reads, from(&image), "mask", "an inpainting model");
    for pipeline in [&mut reads, &mut blends] {
        refused(pipeline, with(&None, &mask), "mask", "expected an image too");
        refused(
            pipeline,
            with(&image, &Some(picture("odd-mask"))),
            "mask",
            "has 150x101 pixels, expected the 128x128",
        );
        refused(pipeline, with(&image, &torn), "mask", "49152 bytes do not fill 7x128");
        refused(pipeline, with(&torn, &mask), "image", "49152 bytes do not fill 7x128");
        refused(pipeline, with(&empty, &mask), "image", "pixels");
        refused(pipeline, with(&tiny, &tiny), "image", "has 9x7 pixels, expected at least 8");
        refused(
            pipeline,
            Request { strength: Some(0.5), ..text.clone() },
            "strength",
            "expected an image too",
        );
    }
    for wrong in [-0.1, 1.01, f64::NAN, f64::INFINITY] {
        refused(&mut blends, strength(wrong), "strength", "expected 0 to 1");
    }
    refused(&mut blends, strength(0.4), "strength", "less than one");
    let wide = Request { width: Some(133), ..from(&image) };
    refused(&mut blends, wide, "width", "133 is not a multiple");
    let unconditional = Request { image: image.clone(), ..Request::unconditional() };
    refused(&mut pixels, unconditional, "image", "only Stable Diffusion models");
    // A cache's branch and lists are counted in the calls that are left.
    let beyond = Request { cache: Some(CacheOptions::uniform(2, 99)), strength: Some(1.0), ..from(&image) };
    refused(&mut blends, beyond, "cache branch", "99");
}

#[test]
fn files_that_are_no_pictures_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text.png"), "not a picture").unwrap();
    let whole = std::fs::read(repository("tests/goldens/image-to-image/odd.png")).unwrap();
    std::fs::write(path("cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("empty.png"), "").unwrap();
    // A header that promises more pixels than anything has.
    let mut vast = whole.clone();
    vast[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let checksum = crc32fast::hash(&vast[12..29]).to_be_bytes();
    vast[29..33].copy_from_slice(&checksum);
    std::fs::write(path("vast.png"), vast).unwrap();
    for name in ["text.png", "cut.png", "empty.png", "vast.png"] {
        let error = Picture::read(path(name), "image").unwrap_err();
        println!("{error}");
        assert!(matches!(&error, Error::Option { option, .. } if option == "image"), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains("png"), "{error}");
    }
    let error = Picture::read(path("none.png"), "image").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    // Grey, transparent and deep pictures are RGB of 8 bits; what is behind the transparency counts.
    let deep = image::ImageBuffer::from_pixel(3, 2, image::LumaA([0x8080_u16, 0x1234]));
    deep.save(path("deep.png")).unwrap();
    let clear = image::RgbaImage::from_pixel(2, 5, image::Rgba([9, 200, 30, 0]));
    clear.save(path("clear.png")).unwrap();
    let found = Picture::read(path("deep.png"), "image").unwrap();
    assert_eq!(found, Picture { width: 3, height: 2, pixels: vec![0x80; 18] }, "16 bits");
    let found = Picture::read(path("clear.png"), "image").unwrap();
    assert_eq!(found, Picture { width: 2, height: 5, pixels: [9, 200, 30].repeat(10) }, "transparent");
}
