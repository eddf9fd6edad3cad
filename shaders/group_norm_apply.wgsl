//! group_norm_apply: normalises each group of channels with its moments, then scales, shifts and activates.
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
//! grid     (C / 64, P / block_pixels, N), rounded up: 256 lanes own 64 channels, four pixels at a time
//! numbers  f32; tiles are merged in their order, so results do not depend on scheduling
//! source   Wu & He 2018, arXiv:1803.08494; torch.nn.functional.group_norm
//! twin     src/reference/group_norm.rs

struct Params {
    pixels: u32,          // P
    first_channels: u32,  // C1
    second_channels: u32, // C2
    groups: u32,          // G
    tiles: u32,           // T
    tile_pixels: u32,     // pixels of a tile of group_norm_moments
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

const COLUMNS: u32 = 64u; // channels of a workgroup, hence its most groups
const ROWS: u32 = 4u;     // pixels at a time

var<workgroup> means: array<f32, COLUMNS>;
var<workgroup> scales: array<f32, COLUMNS>;

@compute @workgroup_size(256)
fn group_norm_apply(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let channels = params.first_channels + params.second_channels;
    let group_channels = channels / params.groups;
    let first_channel = workgroup.x * COLUMNS;
    let first_group = first_channel / group_channels;
    let last_group = (min(first_channel + COLUMNS, channels) - 1u) / group_channels;
    if first_group + lane <= last_group {
        let found = statistics(workgroup.z, first_group + lane);
        means[lane] = found.x;
        scales[lane] = found.y;
    }
    workgroupBarrier();

    let channel = first_channel + lane % COLUMNS;
    if channel >= channels {
        return;
    }
    // one lane stays with one channel
    let group = channel / group_channels;
    let first_row = workgroup.z * params.pixels;
    let shift = load_pair(first_row, group * group_channels);
    let mean = means[group - first_group];
    let scale = scales[group - first_group] * weight[channel];
    let offset = bias[channel];
    let end = min((workgroup.y + 1u) * params.block_pixels, params.pixels);
    var pixel = workgroup.y * params.block_pixels + lane / COLUMNS;
    while pixel < end {
        let centred = load_pair(first_row + pixel, channel) - shift - mean;
        output[(first_row + pixel) * channels + channel] = Element(activate(centred * scale + offset));
        pixel += ROWS;
    }
}
