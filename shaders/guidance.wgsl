//! guidance: joins the model's outputs without and with the prompt, as f32.
//!
//!   guided = input[i] + scale * (input[N + i] - input[i])
//!   output[i] = guided * factor of the image if GUIDED and HAS_FACTOR, guided if GUIDED, else input[i]
//!
//! input   [2N] or [N]        Element  the half without the prompt first
//! factor  [N / image_count]  f32      read if HAS_FACTOR
//! output  [N]                f32
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   Ho & Salimans 2022, arXiv:2207.12598, in the form of diffusers
//! twin     src/reference/guidance.rs

struct Params {
    count: u32,       // N
    image_count: u32, // values of one image
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> factor: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

override GUIDED: bool = false;
override HAS_FACTOR: bool = false;

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
    if HAS_FACTOR {
        value *= factor[index / params.image_count];
    }
    output[index] = value;
}
