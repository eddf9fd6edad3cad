//! add_time: a row of a table of time embeddings added to every pixel, another row for every image.
//!
//!   output[n, p, c] = input[n, p, c] + table[step * N + n, c]
//!
//! input   [N, P, C]   Element
//! table   [S * N, C]  Element
//! step    [1]         u32
//! output  [N, P, C]   Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   torch.add; the sums of a ResNet block of diffusers
//! twin     src/reference/add_time.rs

struct Params {
    count: u32,    // N * P * C
    image: u32,    // P * C
    channels: u32, // C
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> table: array<Element>;
@group(0) @binding(3) var<storage, read> step: array<u32>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn add_time(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        let row = step[0] * (params.count / params.image) + index / params.image;
        output[index] = Element(f32(input[index]) + f32(table[row * params.channels + index % params.channels]));
    }
}
