//! scale_model_input_beside: the sample as the model wants it, once or twice, and other channels beside it.
//!
//!   output[k, p, c] = state[0, p * C + c] * input_scale    c < C; input_scale = table[step, 0]
//!                   = beside[p, c - C]                     C <= c < C + E
//!
//! state   [1 + K, P * C]      f32
//! table   [S, L]              f32
//! step    [1]                 u32      the row of the table
//! beside  [P, E]              f32      not scaled
//! output  [copies, P, C + E]  Element
//!
//! grid     linear, 64 values of [P, C + E] a workgroup
//! numbers  f32
//! source   scale_model_input of diffusers' schedulers; the channels of StableDiffusionInpaintPipeline
//! twin     src/reference/scale_model_input.rs

struct Params {
    count: u32,      // P * (C + E)
    row_length: u32, // L
    copies: u32,
    channels: u32,   // C
    beside: u32,     // E
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read> step: array<u32>;
@group(0) @binding(4) var<storage, read> beside: array<f32>;
@group(0) @binding(5) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn scale_model_input_beside(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let width = params.channels + params.beside;
    let pixel = index / width;
    let channel = index % width;
    var value: f32;
    if channel < params.channels {
        value = state[pixel * params.channels + channel] * table[step[0] * params.row_length];
    } else {
        value = beside[pixel * params.beside + channel - params.channels];
    }
    for (var copy = 0u; copy < params.copies; copy += 1u) {
        output[copy * params.count + index] = Element(value);
    }
}
