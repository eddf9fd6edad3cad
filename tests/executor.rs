//! What the executor tells of what it has played.

#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]
#![allow(dead_code, reason = "a part of the helpers is used")]

#[path = "support/network.rs"]
mod network;
mod support;

use deepcache::gpu::Purpose;
use deepcache::kernels::activation::{Activation, activation};
use deepcache::tensor::{ElementType, Tensor};
use network::Rig;

/// More plays than timestamps are kept of.
const MANY: usize = 2100;

#[test]
fn runs_that_nobody_timed_leave_room_for_the_next_one() {
    let mut rig = Rig::new(ElementType::F32);
    let input = Tensor::external("input", [4], ElementType::F32);
    let output = Tensor::external("output", [4], ElementType::F32);
    rig.memory.allocate([&input, &output], Purpose::Persistent).unwrap();
    rig.fill(&input, &[1.0, 2.0, 3.0, 4.0]);
    let mut recording = rig.recording("small");
    let result = activation(&mut recording, &input, Activation::Silu).unwrap();
    recording.place(&result, &output);
    let program = rig.executor.prepare(&rig.memory, &[&recording]).unwrap().remove(0);
    // As an analysis plays, or a run that is stopped.
    for _ in 0..MANY {
        rig.executor.play(&program).unwrap();
    }
    rig.executor.forget_durations();
    let play = rig.executor.play(&program).unwrap();
    rig.executor.finish().unwrap();
    let durations = rig.executor.durations(&[play]).unwrap();
    assert!(durations[0].is_some_and(|seconds| seconds >= 0.0), "{durations:?}");
}
