//! group_norm_moments: mean and squared deviations of each group of channels over each tile of pixels.
//!
//!   moments[n, g, t] = (count, mean, squares) of x[n, p, c] - x[n, 0, first channel of g]
//!   over the pixels p of tile t and the channels c of group g; x is `input` with `second` behind its channels
//!
//! input    [N, P, C1]     Element
//! second   [N, P, C2]     Element  not read if C2 is 0
//! moments  [N, G, T, 3]   f32
//!
//! grid     (T, G, N): one workgroup of 256 lanes owns one tile of one group of one image
//! numbers  f32, Welford per lane and pairwise merges; relative to the group's first value, so that a large
//!          mean costs no digits
//! source   Wu & He 2018, arXiv:1803.08494; Chan, Golub & LeVeque 1979
//! twin     src/reference/group_norm.rs

struct Params {
    pixels: u32,          // P
    first_channels: u32,  // C1
    second_channels: u32, // C2
    groups: u32,          // G
    tiles: u32,           // T
    tile_pixels: u32,     // pixels of a tile
    block_pixels: u32,    // pixels of a workgroup of group_norm_apply
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> second: array<Element>;
@group(0) @binding(3) var<storage, read_write> moments: array<f32>;

const LANES: u32 = 256u;

var<workgroup> partial: array<Moments, LANES>;

@compute @workgroup_size(256)
fn group_norm_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group_channels = (params.first_channels + params.second_channels) / params.groups;
    let first_channel = workgroup.y * group_channels;
    let first_row = workgroup.z * params.pixels;
    let shift = load_pair(first_row, first_channel);

    // neighbouring lanes read neighbouring channels; each lane steps on without dividing again
    let step_pixels = LANES / group_channels;
    let step_channels = LANES % group_channels;
    let end = min((workgroup.x + 1u) * params.tile_pixels, params.pixels);
    var pixel = workgroup.x * params.tile_pixels + lane / group_channels;
    var channel = lane % group_channels;
    var own = Moments(0.0, 0.0, 0.0);
    while pixel < end {
        own = observe(own, load_pair(first_row + pixel, first_channel + channel) - shift);
        pixel += step_pixels;
        channel += step_channels;
        if channel >= group_channels {
            channel -= group_channels;
            pixel += 1u;
        }
    }
    partial[lane] = own;
    workgroupBarrier();

    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            partial[lane] = merge(partial[lane], partial[lane + stride]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        let index = 3u * ((workgroup.z * params.groups + workgroup.y) * params.tiles + workgroup.x);
        moments[index] = partial[0].count;
        moments[index + 1u] = partial[0].mean;
        moments[index + 2u] = partial[0].squares;
    }
}
