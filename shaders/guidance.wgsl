//! guidance: joins the model's outputs without and with the prompt, as f32.
//!
//!   output[i] = input[i] + scale * (input[N + i] - input[i]) if GUIDED, else input[i]
//!
//! input   [2N] or [N]  Element  the half without the prompt first
//! output  [N]          f32
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   Ho & Salimans 2022, arXiv:2207.12598, in the form of diffusers
//! twin     src/reference/guidance.rs

struct Params {
    count: u32, // N
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<f32>;

override GUIDED: bool = false;

@compute @workgroup_size(64)
fn guidance(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    var value = f32(input[index]);
    if GUIDED {
        value += params.scale * (f32(input[params.count + index]) - value);
    }
    output[index] = value;
}
