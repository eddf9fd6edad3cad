//! group_norm_apply_broadcast: normalises each group of channels with its moments, then scales, shifts and
//! activates; for adapters whose lanes are those of a CPU's vectors.
//!
//!   output[n, p, c] = activate((x[n, p, c] - mean) / sqrt(variance + epsilon) * weight[c] + bias[c])
//!   mean, variance of the group of c from its tiles in `moments` (biased variance)
//!   x is `input` with `second` behind its channels
//!
//! input    [N, P, C1]       Element
//! second   [N, P, C2]       Element  not read if C2 is 0
//! moments  [N, G, T, 3]     f32      relative to x[n, 0, first channel of the group]
//! weight   [C1 + C2]        f32
//! bias     [C1 + C2]        f32
//! output   [N, P, C1 + C2]  Element
//!
//! grid     (C / 8, P / block_pixels, N), rounded up: 8 lanes, each of which owns one channel of the pixels
//! numbers  f32; tiles are merged in their order, so results do not depend on scheduling
//! source   Wu & He 2018, arXiv:1803.08494; torch.nn.functional.group_norm
//! twin     src/reference/group_norm.rs

struct Params {
    pixels: u32,          // P
    first_channels: u32,  // C1
    second_channels: u32, // C2
    groups: u32,          // G
    tiles: u32,           // T
    tile_pixels: u32,     // pixels of a tile of the first shader
    block_pixels: u32,    // pixels of a workgroup
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> second: array<Element>;
@group(0) @binding(3) var<storage, read> moments: array<f32>;
@group(0) @binding(4) var<storage, read> weight: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(8)
fn group_norm_apply_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = params.first_channels + params.second_channels;
    let channel = workgroup.x * 8u + lane;
    if channel >= channels {
        return;
    }
    let group_channels = channels / params.groups;
    let group = channel / group_channels;
    let found = statistics(workgroup.z, group);
    let first_row = workgroup.z * params.pixels;
    let shift = load_pair(first_row, group * group_channels);
    let scale = found.y * weight[channel];
    let offset = bias[channel];
    let end = min((workgroup.y + 1u) * params.block_pixels, params.pixels);
    for (var pixel = workgroup.y * params.block_pixels; pixel < end; pixel += 1u) {
        let centred = load_pair(first_row + pixel, channel) - shift - found.x;
        output[(first_row + pixel) * channels + channel] = Element(activate(centred * scale + offset));
    }
}
