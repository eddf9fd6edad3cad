//! scale_model_input: the sample as the model wants it, once or twice.
//!
//!   output[k, i] = state[0, i] * input_scale; input_scale = table[step, 0]
//!
//! state   [1 + K, N]   f32
//! table   [S, L]       f32
//! step    [1]          u32      the row of the table
//! output  [copies, N]  Element
//!
//! grid     linear, 64 values of N a workgroup
//! numbers  f32
//! source   scale_model_input of diffusers' schedulers
//! twin     src/reference/scale_model_input.rs

struct Params {
    count: u32,      // N
    row_length: u32, // L
    copies: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;
@group(0) @binding(2) var<storage, read> table: array<f32>;
@group(0) @binding(3) var<storage, read> step: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn scale_model_input(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let value = Element(state[index] * table[step[0] * params.row_length]);
    for (var copy = 0u; copy < params.copies; copy += 1u) {
        output[copy * params.count + index] = value;
    }
}
