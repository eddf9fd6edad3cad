//! emphasis: moves what tokens were encoded to away from, or towards, the same places of the empty prompt.
//!
//!   output[n, t, c] = input[n, t, c] + (weight[n, t] - 1) * (input[n, t, c] - input[N, t, c])
//!
//! input   [N + 1, T, C]  Element  the last image is that of the empty prompt
//! weight  [N, T]         f32      1 leaves a token as it is, 0 makes it that of the empty prompt
//! output  [N, T, C]      Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   linear interpolation, as in classifier-free guidance
//! twin     src/reference/emphasis.rs

struct Params {
    count: u32,    // N * T * C
    image: u32,    // T * C
    channels: u32, // C
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn emphasis(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let value = f32(input[index]);
    let empty = f32(input[params.count + index % params.image]);
    output[index] = Element(value + (weight[index / params.channels] - 1.0) * (value - empty));
}
