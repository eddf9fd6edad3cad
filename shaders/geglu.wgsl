//! geglu: the first half of the channels, gated by the second.
//!
//!   output[r, c] = input[r, c] * gelu(input[r, C + c])
//!
//! input   [R, 2C]  Element
//! output  [R, C]   Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32, gelu with the error function
//! source   Shazeer 2020, arXiv:2002.05202; GEGLU of diffusers
//! twin     src/reference/geglu.rs

struct Params {
    count: u32,    // R * C
    channels: u32, // C
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn geglu(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        // row r of the input starts at 2 r C
        let value = index + index / params.channels * params.channels;
        output[index] = Element(f32(input[value]) * gelu(f32(input[value + params.channels])));
    }
}
