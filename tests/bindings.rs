//! Devices that bind little, as all do beside large enough models: what is cut to fit, and what is said where nothing can
//! be cut.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its sizes")]
#![allow(dead_code, reason = "a part of the helpers is used")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

#[path = "support/loops.rs"]
mod loops;
#[path = "support/network.rs"]
mod network;
mod support;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deepcache::Error;
use deepcache::gpu::choices::{Choices, Family};
use deepcache::gpu::recording::{Recording, largest_binding};
use deepcache::gpu::{Gpu, Purpose};
use deepcache::models::clip::{ClipConfig, ClipTextModel};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, Generation, LoadOptions, PlanTarget, Planner, Request, StorageType,
    VaeTiling,
};
use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, Loader, ModelFiles};
use loops::{GPU, load, run};
use network::Rig;
use serde_json::Value;
use support::{Goldens, repository};

/// What every adapter binds.
const USUAL_LIMIT: u64 = 128 << 20;

/// The least limit, a multiple of 1 KiB, at which a request fits in the VAE's smallest tiles.
fn least_limit(path: &Path, request: &Request) -> u64 {
    let files = ModelFiles::open(path).unwrap();
    let options = LoadOptions::from(StorageType::F32);
    let fits = |kibibytes: u64| {
        let target = PlanTarget { binding_limit: kibibytes << 10, ..PlanTarget::of(&GPU) };
        Planner::open(&files, &options, target).unwrap().plan(request).unwrap().fits()
    };
    let (mut low, mut high) = (1, USUAL_LIMIT >> 10);
    while low < high {
        let middle = (low + high) / 2;
        if fits(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low << 10
}

/// Bytes of the table of tokens of a text encoder.
fn table_bytes(folder: &Path) -> u64 {
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    4 * config["vocab_size"].as_u64().unwrap() * config["hidden_size"].as_u64().unwrap()
}

fn request() -> Request {
    Request {
        steps: Some(4),
        cache: Some(CacheOptions::uniform(2, 1)),
        ..Request::prompt("a large red circle on a blue background")
    }
}

fn limited(path: &Path, limit: u64) -> DiffusionPipeline {
    let gpu = Arc::new(Gpu::open_limited(None, limit).unwrap());
    assert_eq!(gpu.binding_limit(), limit, "the limit is the device's own");
    DiffusionPipeline::load_on(gpu, path, &StorageType::F32.into()).unwrap()
}

/// Runs a model with as little as it can do with, and as it is; wgpu itself refuses larger bindings.
fn check(path: &PathBuf, request: &Request) -> [Generation; 2] {
    let limit = least_limit(path, request);
    let whole = run(&mut load(path, StorageType::F32), request);
    let mut pipeline = limited(path, limit);
    let cut = run(&mut pipeline, request);
    println!(
        "{}: binds {limit} bytes, tiles of {:?}, a table of {} bytes",
        path.display(),
        cut.statistics.vae_tile,
        table_bytes(&path.join("text_encoder"))
    );
    assert_eq!(whole.statistics.vae_tile, None, "all of it fits usually");
    assert!(cut.statistics.vae_tile.is_some(), "the picture is decoded in tiles");
    assert_eq!(cut.latents, whole.latents, "cut tables and tiles change no latent");

    // The same tiles where everything could be bound.
    let planner = |limit| {
        let target = PlanTarget { binding_limit: limit, ..PlanTarget::of(&GPU) };
        let files = ModelFiles::open(path).unwrap();
        Planner::open(&files, &StorageType::F32.into(), target).unwrap().plan(request).unwrap()
    };
    let less = planner(limit - 1024);
    assert!(!less.fits(), "nothing was given away: {less}");
    let error = DiffusionPipeline::load_on(
        Arc::new(Gpu::open_limited(None, limit - 1024).unwrap()),
        path,
        &StorageType::F32.into(),
    )
    .and_then(|mut pipeline| pipeline.generate(request, |_| ControlFlow::Continue(())))
    .unwrap_err();
    println!("{error}");
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    [whole, cut]
}

/// The mean difference of two pictures, of 255.
fn apart(a: &Generation, b: &Generation) -> f64 {
    let pairs = a.pictures[0].pixels.iter().zip(&b.pictures[0].pixels);
    pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.pictures[0].pixels.len() as f64
}

#[test]
fn a_trained_model_draws_nearly_the_same_picture_where_little_is_bound() {
    let [whole, cut] = check(&repository("assets/tiny"), &Request { steps: Some(20), ..request() });
    let mean = apart(&whole, &cut);
    println!("tiles and whole differ by {mean:.2} of 255 on average");
    assert!(mean < 4.0, "{mean:.2} of 255");
}

#[test]
fn stable_diffusion_1_makes_the_same_latents_where_little_is_bound() {
    check(&repository("tests/goldens/sd1/model"), &request());
}

#[test]
fn stable_diffusion_xl_makes_the_same_latents_where_little_is_bound() {
    check(&repository("tests/goldens/sdxl/model"), &request());
}

/// What a text encoder makes of some tokens, with its table cut so that its parts can be bound.
fn text_states(limit: u64) -> (usize, Vec<f64>) {
    let folder = repository("tests/goldens/sd1/model/text_encoder");
    let config = ClipConfig::from_file(folder.join("config.json")).unwrap();
    let file = Checkpoint::open(&[folder.join("model.safetensors")]).unwrap();
    let mut rig = Rig::new(ElementType::F32);
    let mut loader = Loader::new("text_encoder", ElementType::F32).with_binding_limit(limit);
    let model = ClipTextModel::load(config, &file, &mut loader).unwrap();
    let pending = loader.into_pending();
    let tables = pending.iter().filter(|pending| {
        let label = pending.tensor.as_external().unwrap().label();
        label.contains("token_embedding")
    });
    let tables =
        tables.inspect(|table| assert!(table.tensor.bytes() <= limit, "a part can be bound")).count();
    let tensors = pending.iter().map(|pending| &pending.tensor);
    rig.memory.allocate_packed(tensors, Purpose::Weights).unwrap();
    for pending in &pending {
        let mut write = |offset, bytes: &[u8]| rig.memory.write(&pending.tensor, offset, bytes);
        pending.write(&file, &mut write).unwrap();
    }
    let goldens = Goldens::open("sd1/golden/text.safetensors");
    let ids = rig.tensor(&goldens.tensor("in.input_ids"), ElementType::U32);
    let mut recording = rig.recording("text_encoder");
    let states = model.record(&mut recording, &ids).unwrap();
    (tables, rig.play(recording, Some(&states)).remove("output").unwrap())
}

#[test]
fn a_table_of_tokens_is_cut_and_gives_the_same_states() {
    let table = table_bytes(&repository("tests/goldens/sd1/model/text_encoder"));
    let (parts, whole) = text_states(table);
    assert_eq!(parts, 1, "all of the table");
    for (limit, least) in [(table - 1, 2), (table / 5, 5), (1000, 100)] {
        let (parts, states) = text_states(limit);
        println!("{limit} bytes: {parts} parts");
        assert!(parts >= least, "{parts} parts of {limit} bytes");
        assert_eq!(states, whole, "{limit}");
    }
}

#[test]
fn tiles_of_one_size_give_one_picture_whatever_is_bound() {
    let path = repository("assets/tiny");
    let request = Request { vae_tiling: VaeTiling::Always, width: Some(192), ..request() };
    let whole = run(&mut load(&path, StorageType::F32), &request);
    let tile = whole.statistics.vae_tile.expect("192 pixels are more than a tile");
    let auto = Request { vae_tiling: VaeTiling::Auto, ..request.clone() };
    let files = ModelFiles::open(&path).unwrap();
    // The limits from which on a tile of that side is the largest that can be bound.
    let limit = (1..1 << 12).map(|step| step << 14).find(|&limit| {
        let target = PlanTarget { binding_limit: limit, ..PlanTarget::of(&GPU) };
        let planner = Planner::open(&files, &StorageType::F32.into(), target).unwrap();
        let plan = planner.plan(&auto).unwrap();
        plan.fits() && plan.vae_tile == Some(tile)
    });
    let cut = run(&mut limited(&path, limit.expect("a limit with such tiles")), &auto);
    assert_eq!(cut.statistics.vae_tile, Some(tile));
    assert_eq!(cut.pictures, whole.pictures);
}

/// The largest tensor of a full call of Stable Diffusion v1.5 with guidance, on latents of so many a side.
fn largest(element: ElementType, side: usize, family: Family) -> u64 {
    let config = UNetConfig::from_file(repository("tests/published/sd-v1-5.json")).unwrap();
    let mut loader = Loader::new("unet", element);
    let unet = UNet::load(config, &Checkpoint::assumed(), &mut loader).unwrap();
    let mut full = Recording::new("full").with_choices(Arc::new(Choices::from(family)));
    assert_eq!(full.choices().facts.binding_limit, USUAL_LIMIT, "what every device has");
    let sample = Tensor::external("sample", [2, side, side, 4], element);
    unet.record_full(&mut full, &sample, &unet.conditioning(2, 77, 50), &[]).unwrap();
    let (name, bytes) = largest_binding(&[&full]).unwrap();
    println!("{element}, {} pixels, {family}: {bytes} bytes, {name}", 8 * side);
    bytes
}

/// README.md, under limits.
#[test]
fn what_128_mebibytes_hold_of_stable_diffusion() {
    use ElementType::{F16, F32};
    for (element, family, most) in
        [(F16, Family::Broadcast, 1472), (F16, Family::Tiled, 1472), (F32, Family::Tiled, 1024)]
    {
        let side = most / 8;
        assert!(largest(element, side, family) <= USUAL_LIMIT, "{most} pixels fit");
        assert!(largest(element, side + 8, family) > USUAL_LIMIT, "more do not");
    }
}

#[test]
fn feed_forward_layers_over_some_tokens_at_a_time_give_the_same() {
    let path = repository("tests/goldens/sd1/model");
    let request = Request { width: Some(192), height: Some(136), ..request() };
    let whole = run(&mut load(&path, StorageType::F32), &request);
    let least = least_limit(&path, &request);
    let mut pipeline = limited(&path, least);
    let plan = pipeline.memory_plan(&request).unwrap();
    println!("{plan}");
    let cut = run(&mut pipeline, &request);
    assert_eq!(cut.latents, whole.latents);
    // The widest tensor of the U-Net with everything at once: 8 times the channels of the first level.
    let unet = std::fs::read_to_string(path.join("unet/config.json")).unwrap();
    let unet: Value = serde_json::from_str(&unet).unwrap();
    let channels = unet["block_out_channels"][0].as_u64().unwrap();
    let wide = 2 * (136 / 8) * (192 / 8) * 8 * channels * 4;
    assert!(least < wide, "{least} is less than the {wide} bytes of all tokens");
    assert!(cut.statistics.dispatches_full > whole.statistics.dispatches_full, "more dispatches");
}
