//! Weights that make values beyond what can be stored: noticed, and traced to the layer.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints what it is told")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use deepcache::Error;
use deepcache::image::Picture;
use deepcache::pipelines::{CacheOptions, DiffusionPipeline, LoadOptions, Progress, Request, StorageType};
use loops::GPU;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use support::repository;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name())
        };
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// The small model of Stable Diffusion's shape, one of whose tensors has values as large as 16 bits hold.
fn spoilt(file: &str, tensor: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&repository("tests/goldens/sd1/model"), folder.path());
    let path = folder.path().join(file);
    let bytes = fs::read(&path).unwrap();
    let whole = SafeTensors::deserialize(&bytes).unwrap();
    let mut data: BTreeMap<String, (Vec<usize>, safetensors::Dtype, Vec<u8>)> = BTreeMap::new();
    for (name, view) in whole.tensors() {
        data.insert(name, (view.shape().to_vec(), view.dtype(), view.data().to_vec()));
    }
    let (_, _, values) = data.get_mut(tensor).expect("the model has it");
    let (floats, _) = values.as_chunks_mut::<4>();
    let largest = floats.iter().map(|value| f32::from_le_bytes(*value).abs()).fold(0.0, f32::max);
    let times = 60_000.0 / largest;
    floats.iter_mut().for_each(|value| *value = (f32::from_le_bytes(*value) * times).to_le_bytes());
    let views: BTreeMap<&str, TensorView<'_>> = data
        .iter()
        .map(|(name, (shape, dtype, bytes))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    safetensors::serialize_to_file(&views, None, &path).unwrap();
    folder
}

fn request() -> Request {
    Request { steps: Some(12), cache: Some(CacheOptions::uniform(3, 1)), ..Request::prompt("a lighthouse") }
}

/// Makes a picture that must not come to be; what is said, and how many calls were made.
fn refused(folder: &Path, options: &LoadOptions, request: &Request) -> (String, usize) {
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), folder, options).unwrap();
    let mut calls = 0;
    let outcome = pipeline.generate(request, |progress| {
        if let Progress::Denoising { completed, .. } = progress {
            calls = completed;
        }
        ControlFlow::Continue(())
    });
    let error = outcome.map(|generation| generation.statistics).expect_err("values that are not finite");
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    println!("after {calls} calls: {error}");
    // Nothing is left behind: the next run tells the same.
    let again = pipeline.generate(request, |_| ControlFlow::Continue(()));
    let again = again.map(|generation| generation.statistics).expect_err("again");
    assert_eq!(error.to_string(), again.to_string(), "the same again");
    (error.to_string(), calls)
}

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
const VAE: &str = "vae/diffusion_pytorch_model.safetensors";

#[test]
fn a_layer_of_the_network_is_named_soon() {
    let model = spoilt(UNET, "mid_block.resnets.1.conv1.weight");
    let path = model.path();
    let f16 = LoadOptions::from(StorageType::F16);
    for options in [f16.clone(), LoadOptions { stream_weights: Some(1 << 16), ..f16 }] {
        let (told, calls) = refused(path, &options, &request());
        assert!(told.contains("full/unet/mid_block/resnets.1/conv1"), "{told}");
        assert!(told.contains("call 1 of 1"), "{told}");
        assert!(told.contains("--dtype f32"), "{told}");
        assert!(calls <= 3, "{calls} calls were made of 12");
    }
    // In 32 bits it is a picture.
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), path, &StorageType::F32.into()).unwrap();
    let generation = pipeline.generate(&request(), |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(generation.pictures.len(), 1, "it has room there");
}

#[test]
fn a_projection_of_the_prompt_is_named() {
    let name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight";
    let model = spoilt(UNET, name);
    let (told, _) = refused(model.path(), &StorageType::F16.into(), &request());
    assert!(told.contains("condition/unet/mid_block"), "{told}");
    assert!(told.contains("attn2"), "{told}");
}

#[test]
fn a_layer_of_the_decoder_is_named_and_32_bits_help() {
    let model = spoilt(VAE, "decoder.up_blocks.1.resnets.0.conv1.weight");
    let short = Request { steps: Some(2), cache: None, ..request() };
    let f16 = LoadOptions::from(StorageType::F16);
    let (told, _) = refused(model.path(), &f16, &short);
    assert!(told.contains("decode/vae/decoder/up_blocks.1/resnets.0/conv1"), "{told}");
    assert!(told.contains("--vae-dtype f32"), "{told}");
    let options = LoadOptions { vae_storage: Some(StorageType::F32), ..f16 };
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), model.path(), &options).unwrap();
    let planned = pipeline.memory_plan(&short).unwrap().peak();
    let generation = pipeline.generate(&short, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(generation.statistics.peak_bytes, planned, "the plan knows of it");
    assert_eq!(generation.pictures.len(), 1, "a picture");
}

#[test]
fn a_layer_of_the_encoder_is_named_and_32_bits_help() {
    let model = spoilt(VAE, "encoder.down_blocks.1.resnets.0.conv1.weight");
    let image =
        Picture { width: 64, height: 64, pixels: (0..64 * 64 * 3_u32).map(|at| (at % 251) as u8).collect() };
    let request = Request { steps: Some(3), cache: None, image: Some(image), ..request() };
    let f16 = LoadOptions::from(StorageType::F16);
    let (told, calls) = refused(model.path(), &f16, &request);
    assert!(told.contains("encode/vae/encoder/down_blocks.1/resnets.0/conv1"), "{told}");
    assert!(told.contains("--vae-dtype f32") && calls == 0, "after {calls} calls: {told}");
    let options = LoadOptions { vae_storage: Some(StorageType::F32), ..f16 };
    let mut pipeline = DiffusionPipeline::load_on(GPU.clone(), model.path(), &options).unwrap();
    let generation = pipeline.generate(&request, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(generation.pictures.len(), 1, "a picture");
}
