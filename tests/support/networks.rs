//! Single calls of the networks of a Stable Diffusion model, compared with diffusers and transformers.

#![allow(dead_code, reason = "each test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};

use deepcache::models::clip::{ClipConfig, ClipTextModel};
use deepcache::models::unet::{Context, UNet, UNetConfig};
use deepcache::models::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use deepcache::tensor::ElementType;
use deepcache::weights::Checkpoint;

use super::judge::Judge;
use super::network::{Rig, channels_last};
use super::support::{Golden, Goldens, repository};

/// A folder of a pack's model.
fn folder(pack: &str, network: &str) -> PathBuf {
    repository(&format!("tests/goldens/{pack}/model/{network}"))
}

/// The weights in a folder, of whatever name.
fn open(folder: &Path) -> Checkpoint {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let weights = files.filter(|file| file.extension().is_some_and(|found| found == "safetensors"));
    Checkpoint::open(&weights.collect::<Vec<_>>()).unwrap()
}

fn unet(pack: &str, rig: &mut Rig) -> UNet {
    let folder = folder(pack, "unet");
    let config = UNetConfig::from_file(folder.join("config.json")).unwrap();
    rig.load(&open(&folder), |file, loader| UNet::load(config, file, loader))
}

pub(crate) fn unet_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let network = unet(pack, &mut rig);
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
    let mut context = Context::from(Some(&prompt));
    let pooled;
    if let Some(text_time) = conditioning.text_time() {
        rig.fill(&text_time.sizes, &goldens.values("in.added_time_ids"));
        let frequencies: Vec<f64> = network.size_frequencies().into_iter().map(f64::from).collect();
        rig.fill(&text_time.frequencies, &frequencies);
        let rows: Vec<f64> = text_time.row_values().into_iter().map(f64::from).collect();
        rig.fill(&text_time.rows, &rows);
        pooled = rig.input(&goldens.tensor("in.added_text_embeds"));
        context.pooled = Some(&pooled);
    }
    let mut recording = rig.recording("unet");
    network.record_conditioning(&mut recording, context, &conditioning).unwrap();
    let mut found = rig.play(recording, None);

    let sample = rig.input(&sample);
    let mut recording = rig.recording("unet");
    let output = network.record_full(&mut recording, &sample, &conditioning, &[]).unwrap().prediction;
    found.extend(rig.play(recording, Some(&output)));

    let mut judge = Judge::of(pack, case, element);
    judge.compare_stages(&goldens, &found);
    judge.compare("sample", &found["output"], &goldens.values("out.sample"));
    judge.finish();
}

/// `calls!(unet_call of "sd1": name = "case", …)` expands to a module per case with the tests `f32` and `f16`.
macro_rules! calls {
    ($call:ident of $pack:literal: $($module:ident = $case:literal),+ $(,)?) => {$(
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
pub(crate) use calls;

pub(crate) fn text_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = folder(pack, "text_encoder");
    let config = ClipConfig::from_file(folder.join("config.json")).unwrap();
    let model = rig.load(&open(&folder), |file, loader| ClipTextModel::load(config, file, loader));
    let ids = goldens.tensor("in.input_ids");
    let width = goldens.tensor("out.last_hidden_state").shape[2];
    let tensor = rig.tensor(&ids, ElementType::U32);
    let mut recording = rig.recording("text_encoder");
    let output = model.record(&mut recording, &tensor).unwrap();
    let found = rig.play(recording, Some(&output));

    let mut judge = Judge::of(pack, case, element);
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

/// The second text encoder of SDXL: its states and the prompt as one vector.
pub(crate) fn second_text_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = folder(pack, "text_encoder_2");
    let config = ClipConfig::from_file(folder.join("config.json")).unwrap();
    let model =
        rig.load(&open(&folder), |file, loader| ClipTextModel::load_with_projection(config, file, loader));
    let ids = goldens.tensor("in.input_ids_2");
    let length = ids.shape[1];
    let ends = ids.values.chunks_exact(length).enumerate().map(|(prompt, ids)| {
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        (prompt * length + model.config().end_of(&ids)) as f64
    });
    let ends = Golden { shape: vec![ids.shape[0], 1], values: ends.collect() };
    let ids = rig.tensor(&ids, ElementType::U32);
    let ends = rig.tensor(&ends, ElementType::U32);
    let mut recording = rig.recording("text_encoder_2");
    let states = model.record_states(&mut recording, &ids).unwrap();
    let pooled = model.record_pooled(&mut recording, &states.last, &ends).unwrap();
    let found = rig.play(recording, Some(&pooled));

    let mut judge = Judge::of(pack, case, element);
    for name in goldens.names() {
        if let Some(stage) = name.strip_prefix("out.hidden_states_2.") {
            let stage = format!("hidden_states.{stage}");
            judge.compare(&stage, &found[&stage], &goldens.values(&name));
        }
    }
    judge.compare("text_embeds", &found["output"], &goldens.values("out.text_embeds_2"));
    judge.finish();
}

fn vae_config(folder: &Path) -> VaeConfig {
    VaeConfig::from_file(folder.join("config.json")).unwrap()
}

pub(crate) fn decode_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = folder(pack, "vae");
    let decoder =
        rig.load(&open(&folder), |file, loader| VaeDecoder::load(vae_config(&folder), file, loader));
    let latents = rig.input(&channels_last(&goldens.tensor("in.latents")));
    let mut recording = rig.recording("vae");
    let output = decoder.record(&mut recording, &latents).unwrap();
    let found = rig.play(recording, Some(&output));
    let mut judge = Judge::of(pack, case, element);
    judge.compare_stages(&goldens, &found);
    judge.compare("image", &found["output"], &goldens.values("out.image"));
    judge.finish();
}

pub(crate) fn encode_call(pack: &str, case: &str, element: ElementType) {
    let goldens = Goldens::open(&format!("{pack}/golden/{case}.safetensors"));
    let mut rig = Rig::new(element);
    let folder = folder(pack, "vae");
    let encoder =
        rig.load(&open(&folder), |file, loader| VaeEncoder::load(vae_config(&folder), file, loader));
    let pictures = rig.input(&channels_last(&goldens.tensor("in.image")));
    let mut recording = rig.recording("vae");
    let output = encoder.record(&mut recording, &pictures).unwrap();
    let moments = &rig.play(recording, Some(&output))["output"];
    let (mean, variance) = moments.split_at(moments.len() / 2);
    let variance: Vec<f64> = variance.iter().map(|value| value.clamp(-30.0, 20.0)).collect();
    let mut judge = Judge::of(pack, case, element);
    judge.compare("mean", mean, &goldens.values("out.mean"));
    judge.compare("logvar", &variance, &goldens.values("out.logvar"));
    judge.finish();
}
