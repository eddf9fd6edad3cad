//! A U-Net of Stable Diffusion v1.5's shape against diffusers, in 16-bit storage, and with weights of 8 bits. See
//! `scripts/check-full-size`.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]
#![allow(dead_code, reason = "a part of the helpers is used")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

#[path = "support/network.rs"]
mod network;
mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use deepcache::gpu::Purpose;
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, WeightStorage};
use network::{Rig, channels_last};
use support::{Goldens, relative_l2};

const SKIP_INDEX: usize = 1;
const RELATIVE: f64 = 1e-2;
/// Each weight is off by up to a 254th of the largest of its row, which is 0.4 % in the mean, as these rows are even
/// random numbers; the network adds that up as it does the rounding of 16-bit activations.
const RELATIVE_INT8: f64 = 2e-2;
const MOST_MEMORY: u64 = 16 << 30;

#[test]
fn a_full_and_a_shallow_step_agree_with_diffusers() {
    let directory =
        PathBuf::from(std::env::var("DEEPCACHE_FULL_SIZE").expect("run by scripts/check-full-size"));
    // One after the other, so that their times can be compared and one model is in memory.
    check(&directory, WeightStorage::AsActivations, RELATIVE);
    check(&directory, WeightStorage::Int8, RELATIVE_INT8);
    let peak = peak_resident();
    println!("peak resident memory of the process: {:.1} GiB", peak as f64 / f64::from(1 << 30));
    assert!(peak <= MOST_MEMORY, "inside 16 GiB");
}

fn check(directory: &Path, storage: WeightStorage, limit: f64) {
    println!("matrices stored as {storage:?}");
    let goldens = Goldens::open(directory.join("reference.safetensors").to_str().unwrap());
    let mut rig = Rig::new(ElementType::F16);
    let started = Instant::now();
    let folder = directory.join("unet");
    let config = UNetConfig::from_file(folder.join("config.json")).unwrap();
    let weights = Checkpoint::open(&[folder.join("diffusion_pytorch_model.safetensors")]).unwrap();
    let unet = rig.load_as(&weights, storage, |file, loader| UNet::load(config, file, loader));
    rig.memory.flush().unwrap();
    println!("loaded {:.1} MiB of weights in {:.1} s", mebibytes(&rig, Purpose::Weights), elapsed(started));

    let sample = channels_last(&goldens.tensor("in.sample"));
    let second = channels_last(&goldens.tensor("in.second_sample"));
    let prompt = goldens.tensor("in.encoder_hidden_states");
    let [_, height, width, _] = sample.shape[..] else { panic!("an image") };
    let conditioning = unet.conditioning(1, prompt.shape[1], 2);
    rig.memory.allocate(conditioning.tensors(), Purpose::Persistent).unwrap();
    rig.fill(conditioning.timesteps(), &goldens.values("in.timesteps"));
    let frequencies: Vec<f64> = unet.frequencies().into_iter().map(f64::from).collect();
    rig.fill(conditioning.frequencies(), &frequencies);
    let kept = unet.kept_feature(SKIP_INDEX, 1, height, width).unwrap();
    rig.memory.allocate([&kept], Purpose::Cache).unwrap();
    let prompt = rig.input(&prompt);
    let input = rig.input(&sample);

    let mut conditions = rig.recording("prompt");
    unet.record_conditioning(&mut conditions, Some(&prompt), &conditioning).unwrap();
    let mut full = rig.recording("full");
    let keep = [(SKIP_INDEX, &kept)];
    let full_output = unet.record_full(&mut full, &input, &conditioning, &keep).unwrap().prediction;
    let full_place = Tensor::external("full", full_output.shape().clone(), ElementType::F16);
    full.place(&full_output, &full_place);
    let mut shallow = rig.recording("shallow");
    let output =
        unet.record_shallow(&mut shallow, &input, &conditioning, SKIP_INDEX, &kept).unwrap().prediction;
    let shallow_place = Tensor::external("shallow", output.shape().clone(), ElementType::F16);
    shallow.place(&output, &shallow_place);
    rig.memory.allocate([&full_place, &shallow_place], Purpose::Persistent).unwrap();
    let programs = rig.executor.prepare(&rig.memory, &[&conditions, &full, &shallow]).unwrap();
    let plan = rig.executor.plan();
    let ratio = plan.bytes() as f64 / plan.largest_live_set as f64;
    println!("slots {:.1} MiB, {ratio:.3} of the live set", plan.bytes() as f64 / f64::from(1 << 20));
    assert!(ratio <= 1.3, "slots near the live set");

    rig.executor.play(&programs[0]).unwrap();
    for (name, program, place, sample, row) in [
        ("full", &programs[1], &full_place, &sample, 0.0),
        ("shallow", &programs[2], &shallow_place, &second, 1.0),
    ] {
        rig.fill(&input, &sample.values);
        rig.fill(conditioning.step(), &[row]);
        rig.executor.play(program).unwrap(); // some drivers compile at the first use
        rig.executor.finish().unwrap();
        let started = Instant::now();
        rig.executor.play(program).unwrap();
        rig.executor.finish().unwrap();
        let seconds = elapsed(started);
        let gigamacs = program.cost().multiply_accumulates as f64 * 1e-9;
        let found = rig.values(place);
        let relative = relative_l2(&found, &goldens.values(&format!("out.{name}")));
        println!("{name}: {gigamacs:.1} GMAC in {seconds:.1} s; relative l2 {relative:.2e}");
        assert!(relative <= limit, "{name}: {relative:.2e}");
    }
    let feature = rig.values(&kept);
    let relative = relative_l2(&feature, &goldens.values("out.kept_feature"));
    println!("kept feature {}: relative l2 {relative:.2e}", kept.shape());
    assert!(relative <= limit, "kept feature: {relative:.2e}");
}

fn mebibytes(rig: &Rig, purpose: Purpose) -> f64 {
    rig.memory.bytes(purpose) as f64 / f64::from(1 << 20)
}

fn elapsed(started: Instant) -> f64 {
    started.elapsed().as_secs_f64()
}

/// The most memory that the process, a software driver's included, has had; 0 where the system does not tell.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    1024 * kibibytes.unwrap_or(0)
}
