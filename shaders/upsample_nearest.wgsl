//! upsample_nearest: resizes an image, each pixel copied from the nearest above and to the left.
//!
//!   output[n, y, x, c] = input[n, y * H / height, x * W / width, c], divisions rounded down
//!
//! input   [N, H, W, C]           Element
//! output  [N, height, width, C]  Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  copies
//! source   torch.nn.functional.interpolate(mode="nearest", size=...)
//! twin     src/reference/upsample_nearest.rs

struct Params {
    count: u32,        // N * height * width * C
    channels: u32,     // C
    input_height: u32, // H
    input_width: u32,  // W
    height: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn upsample_nearest(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let channel = index % params.channels;
    let pixel = index / params.channels;
    let x = pixel % params.width * params.input_width / params.width;
    let row = pixel / params.width;
    let y = row % params.height * params.input_height / params.height;
    let image = row / params.height;
    let source = (image * params.input_height + y) * params.input_width + x;
    output[index] = input[source * params.channels + channel];
}
