//! group_norm_moments_broadcast: mean and squared deviations of each group, for adapters whose lanes are those
//! of a CPU's vectors.
//!
//!   moments[n, g, t] = (count, mean, squares) of x[n, p, c] - x[n, 0, first channel of g]
//!   over the pixels p of tile t and the channels c of group g; x is `input` with `second` behind its channels
//!
//! input    [N, P, C1]     Element
//! second   [N, P, C2]     Element  not read if C2 is 0
//! moments  [N, G, T, 3]   f32
//!
//! grid     (T, G / 8, N), rounded up: 8 lanes own one tile of one image, and each of them one group
//! numbers  f32, Welford; relative to the group's first value, so that a large mean costs no digits
//! source   Wu & He 2018, arXiv:1803.08494; Welford 1962
//! twin     src/reference/group_norm.rs

struct Params {
    pixels: u32,          // P
    first_channels: u32,  // C1
    second_channels: u32, // C2
    groups: u32,          // G
    tiles: u32,           // T
    tile_pixels: u32,     // pixels of a tile
    block_pixels: u32,    // pixels of a workgroup of the second shader
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> second: array<Element>;
@group(0) @binding(3) var<storage, read_write> moments: array<f32>;

@compute @workgroup_size(8)
fn group_norm_moments_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let group = workgroup.y * 8u + lane;
    if group >= params.groups {
        return;
    }
    let group_channels = (params.first_channels + params.second_channels) / params.groups;
    let first_channel = group * group_channels;
    let first_row = workgroup.z * params.pixels;
    let shift = load_pair(first_row, first_channel);

    let first_pixel = workgroup.x * params.tile_pixels;
    let end = min(first_pixel + params.tile_pixels, params.pixels);
    var own = Moments(0.0, 0.0, 0.0);
    for (var pixel = first_pixel; pixel < end; pixel += 1u) {
        for (var channel = 0u; channel < group_channels; channel += 1u) {
            own = observe(own, load_pair(first_row + pixel, first_channel + channel) - shift);
        }
    }
    let index = 3u * ((workgroup.z * params.groups + group) * params.tiles + workgroup.x);
    moments[index] = own.count;
    moments[index + 1u] = own.mean;
    moments[index + 2u] = own.squares;
}
