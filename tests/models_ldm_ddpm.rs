//! Single calls of the networks of latent diffusion and DDPM against the original code and diffusers.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

#[path = "support/judge.rs"]
mod judge;
#[path = "support/network.rs"]
mod network;
mod support;

use std::collections::HashMap;

use deepcache::gpu::Purpose;
use deepcache::models::latent_diffusion::{ClassEmbedder, LatentDiffusionConfig};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::models::vae::VaeEncoder;
use deepcache::models::vq::VqDecoder;
use deepcache::tensor::ElementType;
use deepcache::weights::{Checkpoint, ModelFiles, names_latent_diffusion};
use judge::Judge;
use network::{Rig, channels_last};
use support::{Golden, Goldens, repository};

/// One call of a U-Net on a golden's sample, at its timestep, with this context; every mark, and `output`.
fn call(
    rig: &mut Rig,
    network: &UNet,
    goldens: &Goldens,
    context: Option<&Golden>,
) -> HashMap<String, Vec<f64>> {
    let sample = channels_last(&goldens.tensor("in.sample"));
    let tokens = context.map_or(0, |context| context.shape[1]);
    let conditioning = network.conditioning(sample.shape[0], tokens, 1);
    rig.memory.allocate(conditioning.tensors(), Purpose::Persistent).unwrap();
    rig.fill(conditioning.timesteps(), &goldens.values("in.timestep"));
    let frequencies: Vec<f64> = network.frequencies().into_iter().map(f64::from).collect();
    rig.fill(conditioning.frequencies(), &frequencies);
    rig.fill(conditioning.step(), &[0.0]);
    let context = context.map(|context| rig.input(context));
    let mut recording = rig.recording("unet");
    network.record_conditioning(&mut recording, context.as_ref(), &conditioning).unwrap();
    let mut found = rig.play(recording, None);

    let sample = rig.input(&sample);
    let mut recording = rig.recording("unet");
    let flow = network.record_full(&mut recording, &sample, &conditioning, &[]).unwrap();
    found.extend(rig.play(recording, Some(&flow.prediction)));
    found
}

/// `calls!(function, pack: name = case, …)` expands to a module per case with the tests `f32` and `f16`.
macro_rules! calls {
    ($call:ident, $pack:literal: $($module:ident = $case:literal),+ $(,)?) => {$(
        mod $module {
            use super::*;

            #[test]
            fn f32() {
                $call($pack, $case, ElementType::F32);
            }

            #[test]
            fn f16() {
                $call($pack, $case, ElementType::F16);
            }
        }
    )+};
}

fn pixel_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let ModelFiles::Pixels { unet, .. } =
        ModelFiles::open(repository(&format!("tests/goldens/{pack}/model"))).unwrap()
    else {
        panic!("{pack} makes pixels");
    };
    let config = UNetConfig::from_file(&unet.config).unwrap();
    let checkpoint = Checkpoint::open(&unet.weights).unwrap();
    let network = rig.load(&checkpoint, |file, loader| UNet::load(config, file, loader));
    let found = call(&mut rig, &network, &goldens, None);
    let mut judge = Judge::of(pack, case, element);
    judge.compare_stages(&goldens, &found);
    judge.compare("sample", &found["output"], &goldens.values("out.sample"));
    judge.finish();
}

calls!(pixel_call, "ddpm-cifar":
    cifar_with_all_stages = "unet_b1_t261_stages",
    cifar_at_the_first_timestep = "unet_b1_t0",
    cifar_at_the_last_timestep = "unet_b1_t999",
    cifar_with_two_images = "unet_b2_t500",
);
calls!(pixel_call, "ddpm-church":
    church_with_all_stages = "unet_b1_t261_stages",
    church_at_the_first_timestep = "unet_b1_t0",
    church_at_the_last_timestep = "unet_b1_t999",
    church_with_two_images = "unet_b2_t500",
);

fn ldm_config() -> LatentDiffusionConfig {
    LatentDiffusionConfig::from_file(repository("tests/goldens/ldm4g/model/cin256-v2.yaml")).unwrap()
}

fn ldm_checkpoint() -> Checkpoint {
    Checkpoint::open(&[repository("tests/goldens/ldm4g/model/model.safetensors")]).unwrap()
}

/// The mark of a module of the original U-Net.
fn ldm_mark(stage: &str, found: &HashMap<String, Vec<f64>>) -> String {
    let number = |text: &str| text.parse::<usize>().unwrap();
    let mut places = Vec::new();
    match stage.split_once('.') {
        Some(("input_blocks", "0")) => places.push("conv_in".to_owned()),
        Some(("input_blocks", unit)) => {
            let (level, layer) = ((number(unit) - 1) / 3, (number(unit) - 1) % 3);
            places.push(format!("down_blocks.{level}.attentions.{layer}"));
            places.push(format!("down_blocks.{level}.resnets.{layer}"));
            places.push(format!("down_blocks.{level}.downsamplers.0"));
        }
        Some(("output_blocks", unit)) => {
            let (block, layer) = (number(unit) / 3, number(unit) % 3);
            if layer == 2 {
                places.push(format!("up_blocks.{block}.upsamplers.0"));
            }
            places.push(format!("up_blocks.{block}.attentions.{layer}"));
            places.push(format!("up_blocks.{block}.resnets.{layer}"));
        }
        _ => places.push("mid_block".to_owned()),
    }
    places.into_iter().find(|place| found.contains_key(place)).unwrap()
}

fn ldm_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let config = ldm_config();
    let classes = [config.classes, config.unet.cross_attention_dim.unwrap()];
    let unet = ldm_checkpoint().renamed(|name| names_latent_diffusion::unet(name, 2));
    let network = rig.load(&unet, |file, loader| UNet::load(config.unet, file, loader));

    let mut judge = Judge::of(pack, case, element);
    let context = if goldens.names().iter().any(|name| name == "in.context") {
        goldens.tensor("in.context")
    } else {
        let table = ldm_checkpoint().renamed(names_latent_diffusion::class_embedder);
        let embedder = rig.load(&table, |file, loader| ClassEmbedder::load(classes, file, loader));
        let labels = goldens.tensor("in.class_labels");
        let count = labels.shape[0];
        let labels = Golden { shape: vec![count, 1], values: labels.values };
        let labels = rig.tensor(&labels, ElementType::U32);
        let mut recording = rig.recording("class_embedder");
        let output = embedder.record(&mut recording, &labels).unwrap();
        let context = rig.play(recording, Some(&output)).remove("output").unwrap();
        judge.compare("context", &context, &goldens.values("out.context"));
        Golden { shape: vec![count, 1, classes[1]], values: context }
    };
    let found = call(&mut rig, &network, &goldens, Some(&context));
    judge.compare_stages_as(&goldens, &found, |stage| ldm_mark(stage, &found));
    judge.compare("sample", &found["output"], &goldens.values("out.sample"));
    judge.finish();
}

calls!(ldm_call, "ldm4g":
    ldm_with_all_stages = "unet_b1_t261_stages",
    ldm_at_the_first_timestep = "unet_b1_t1",
    ldm_at_a_late_timestep = "unet_b1_t951",
    ldm_with_both_guidance_halves = "unet_cfg2_t501",
    ldm_with_another_size = "unet_odd_t401",
    ldm_with_five_tokens = "unet_tokens5_t601",
);

fn vq_decode_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let autoencoder = ldm_checkpoint().renamed(|name| names_latent_diffusion::autoencoder(name, 3));
    let decoder = rig.load(&autoencoder, |file, loader| VqDecoder::load(ldm_config().vq, file, loader));
    let latents = rig.tensor(&channels_last(&goldens.tensor("in.latents")), ElementType::F32);
    let mut recording = rig.recording("vq");
    let output = decoder.record(&mut recording, &latents).unwrap();
    let found = rig.play(recording, Some(&output));
    let mut judge = Judge::of(pack, case, element);
    judge.compare("quantized", &found["quantize"], &goldens.values("out.quantized"));
    judge.compare_stages_as(&goldens, &found, |stage| {
        let stage = stage.replace("up.2.block.", "up_blocks.0.resnets.");
        let stage =
            stage.replace("mid.block_1", "mid_block.resnets.0").replace("mid.block_2", "mid_block.resnets.1");
        stage.replace("mid.attn_1", "mid_block.attentions.0")
    });
    judge.compare("image", &found["output"], &goldens.values("out.image"));
    judge.finish();
}

fn vq_encode_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let autoencoder = ldm_checkpoint().renamed(|name| names_latent_diffusion::autoencoder(name, 3));
    let config = ldm_config().vq.autoencoder;
    let encoder = rig.load(&autoencoder, |file, loader| VaeEncoder::load(config, file, loader));
    let pictures = rig.input(&channels_last(&goldens.tensor("in.image")));
    let mut recording = rig.recording("vq");
    let output = encoder.record(&mut recording, &pictures).unwrap();
    let found = rig.play(recording, Some(&output));
    let mut judge = Judge::of(pack, case, element);
    judge.compare("latents", &found["output"], &goldens.values("out.latents"));
    judge.finish();
}

calls!(vq_decode_call, "ldm4g": vq_decoder = "vq_decode");
calls!(vq_encode_call, "ldm4g": vq_encoder = "vq_encode");
