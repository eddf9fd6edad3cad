//! finite: whether a tensor holds a value that is not a number, or infinite.
//!
//!   output[first + step[0] * stride] = 1  if any value is not finite; otherwise nothing is written
//!
//! input   [N]  Element
//! step    [1]  u32
//! output  [R]  f32      zeros before
//!
//! grid     linear, 64 values a workgroup
//! numbers  by the bits of an f32, since compilers may take every value for a number; lanes that write, write the same
//! source   black pictures of 16-bit models: every program that runs them
//! twin     src/reference/finite.rs

struct Params {
    count: u32, // N
    first: u32,
    stride: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> step: array<u32>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

const EXPONENT: u32 = 0x7f800000u;

@compute @workgroup_size(64)
fn finite(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        let bits = bitcast<u32>(f32(input[index]));
        if (bits & EXPONENT) == EXPONENT {
            output[params.first + step[0] * params.stride] = 1.0;
        }
    }
}
