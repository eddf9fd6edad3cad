//! Single calls of the networks against diffusers and transformers: every stage that the reference recorded.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

#[path = "support/judge.rs"]
mod judge;
#[path = "support/network.rs"]
mod network;
mod support;

use std::path::Path;

use deepcache::models::clip::{ClipConfig, ClipTextModel};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::models::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use deepcache::tensor::ElementType;
use deepcache::weights::Checkpoint;
use judge::Judge;
use network::{Rig, channels_last};
use support::{Golden, Goldens, repository};

fn open(file: &Path) -> Checkpoint {
    Checkpoint::open(&[file.to_owned()]).unwrap()
}

fn unet(rig: &mut Rig) -> UNet {
    let folder = repository("tests/goldens/sd1/model/unet");
    let config = UNetConfig::from_file(folder.join("config.json")).unwrap();
    rig.load(&open(&folder.join("diffusion_pytorch_model.safetensors")), |file, loader| {
        UNet::load(config, file, loader)
    })
}

fn unet_call(case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("sd1/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let network = unet(&mut rig);
    let prompt = goldens.tensor("in.encoder_hidden_states");
    let sample = channels_last(&goldens.tensor("in.sample"));
    let [batch, tokens] = [prompt.shape[0], prompt.shape[1]];

    let conditioning = network.conditioning(batch, tokens, 1);
    rig.memory.allocate(conditioning.tensors(), deepcache::gpu::Purpose::Persistent).unwrap();
    rig.fill(conditioning.timesteps(), &goldens.values("in.timestep"));
    let frequencies: Vec<f64> = network.frequencies().into_iter().map(f64::from).collect();
    rig.fill(conditioning.frequencies(), &frequencies);
    rig.fill(conditioning.step(), &[0.0]);
    let prompt = rig.input(&prompt);
    let mut recording = rig.recording("unet");
    network.record_conditioning(&mut recording, Some(&prompt), &conditioning).unwrap();
    let mut found = rig.play(recording, None);

    let sample = rig.input(&sample);
    let mut recording = rig.recording("unet");
    let output = network.record_full(&mut recording, &sample, &conditioning, &[]).unwrap().prediction;
    found.extend(rig.play(recording, Some(&output)));

    let mut judge = Judge::of("sd1", case, element);
    judge.compare_stages(&goldens, &found);
    judge.compare("sample", &found["output"], &goldens.values("out.sample"));
    judge.finish();
}

/// `calls!(unet_call: name, …)` expands to a module per case with the tests `f32` and `f16`.
macro_rules! calls {
    ($call:ident: $($module:ident = $case:literal),+ $(,)?) => {$(
        mod $module {
            use super::*;

            #[test]
            fn f32() {
                $call($case, ElementType::F32);
            }

            #[test]
            fn f16() {
                $call($case, ElementType::F16);
            }
        }
    )+};
}

calls!(unet_call:
    unet_with_all_stages = "unet_b1_t261_stages",
    unet_with_both_guidance_halves = "unet_cfg2_t721",
    unet_at_the_first_timestep = "unet_b1_t1",
    unet_at_the_last_timestep = "unet_b1_t981",
    unet_between_two_timesteps = "unet_b1_t500.25",
    unet_with_odd_sizes = "unet_odd_t401",
    unet_with_a_larger_picture = "unet_large_t301",
);

fn text_call(case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("sd1/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = repository("tests/goldens/sd1/model/text_encoder");
    let config = ClipConfig::from_file(folder.join("config.json")).unwrap();
    let model = rig.load(&open(&folder.join("model.safetensors")), |file, loader| {
        ClipTextModel::load(config, file, loader)
    });
    let ids = goldens.tensor("in.input_ids");
    let width = goldens.tensor("out.last_hidden_state").shape[2];
    let tensor = rig.tensor(&ids, ElementType::U32);
    let mut recording = rig.recording("text_encoder");
    let output = model.record(&mut recording, &tensor).unwrap();
    let found = rig.play(recording, Some(&output));

    let mut judge = Judge::of("sd1", case, element);
    for name in goldens.names() {
        if let Some(stage) = name.strip_prefix("out.hidden_states.") {
            let stage = format!("hidden_states.{stage}");
            judge.compare(&stage, &found[&stage], &goldens.values(&name));
        }
    }
    judge.compare("last_hidden_state", &found["output"], &goldens.values("out.last_hidden_state"));
    judge.compare(
        "pooler_output",
        &pooled(&ids, &found["output"], width),
        &goldens.values("out.pooler_output"),
    );
    judge.finish();
}

/// The vector at the first largest id, which is the end of the text.
fn pooled(ids: &Golden, states: &[f64], width: usize) -> Vec<f64> {
    let length = ids.shape[1];
    let rows = ids.values.chunks_exact(length).enumerate().map(|(prompt, ids)| {
        let end = ids.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let start = (prompt * length + end) * width;
        states[start..start + width].to_vec()
    });
    rows.flatten().collect()
}

calls!(text_call: text_encoder = "text");

fn vae_config() -> VaeConfig {
    VaeConfig::from_file(repository("tests/goldens/sd1/model/vae/config.json")).unwrap()
}

fn decode_call(case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("sd1/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = repository("tests/goldens/sd1/model/vae");
    let decoder = rig.load(&open(&folder.join("diffusion_pytorch_model.safetensors")), |file, loader| {
        VaeDecoder::load(vae_config(), file, loader)
    });
    let latents = rig.input(&channels_last(&goldens.tensor("in.latents")));
    let mut recording = rig.recording("vae");
    let output = decoder.record(&mut recording, &latents).unwrap();
    let found = rig.play(recording, Some(&output));
    let mut judge = Judge::of("sd1", case, element);
    judge.compare_stages(&goldens, &found);
    judge.compare("image", &found["output"], &goldens.values("out.image"));
    judge.finish();
}

fn encode_call(case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("sd1/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = repository("tests/goldens/sd1/model/vae");
    let encoder = rig.load(&open(&folder.join("diffusion_pytorch_model.safetensors")), |file, loader| {
        VaeEncoder::load(vae_config(), file, loader)
    });
    let pictures = rig.input(&channels_last(&goldens.tensor("in.image")));
    let mut recording = rig.recording("vae");
    let output = encoder.record(&mut recording, &pictures).unwrap();
    let moments = &rig.play(recording, Some(&output))["output"];
    let (mean, variance) = moments.split_at(moments.len() / 2);
    let variance: Vec<f64> = variance.iter().map(|value| value.clamp(-30.0, 20.0)).collect();
    let mut judge = Judge::of("sd1", case, element);
    judge.compare("mean", mean, &goldens.values("out.mean"));
    judge.compare("logvar", &variance, &goldens.values("out.logvar"));
    judge.finish();
}

calls!(decode_call: vae_decoder = "vae_decode", vae_decoder_with_odd_sizes = "vae_decode_odd");
calls!(encode_call: vae_encoder = "vae_encode");
