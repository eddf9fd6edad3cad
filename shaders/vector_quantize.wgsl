//! vector_quantize: the nearest entry of a codebook for every vector.
//!
//!   output[p] = argmin_k sum_d (input[p, d] - codebook[k, d])^2     the smallest k where several are as near
//!
//! input     [P, D]  f32
//! codebook  [K, D]  f32
//! output    [P]     u32
//!
//! grid     (x, y, 1) with x * y >= P: one workgroup of 64 lanes owns one vector, a lane every 64th entry
//! numbers  f32
//! source   van den Oord et al. 2017, arXiv:1711.00937, equation 1; VectorQuantizer of diffusers
//! twin     src/reference/vector_quantize.rs

struct Params {
    count: u32,    // P
    entries: u32,  // K
    channels: u32, // D
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<f32>;
@group(0) @binding(2) var<storage, read> codebook: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<u32>;

const LANES: u32 = 64u;
const FURTHEST: f32 = 3.4e38;

var<workgroup> distances: array<f32, LANES>;
var<workgroup> nearest: array<u32, LANES>;

@compute @workgroup_size(64)
fn vector_quantize(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let vector = workgroup.y * grid.x + workgroup.x;
    // workgroups behind the last one repeat it, so that all lanes meet at the barriers
    let first = min(vector, params.count - 1u) * params.channels;

    var least = FURTHEST;
    var best = 0u;
    for (var entry = lane; entry < params.entries; entry += LANES) {
        var distance = 0.0;
        for (var channel = 0u; channel < params.channels; channel += 1u) {
            let difference = input[first + channel] - codebook[entry * params.channels + channel];
            distance = fma(difference, difference, distance);
        }
        // entries rise, so the first of equals stays
        if distance < least {
            least = distance;
            best = entry;
        }
    }
    distances[lane] = least;
    nearest[lane] = best;
    workgroupBarrier();

    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            let other = distances[lane + stride];
            let entry = nearest[lane + stride];
            if other < distances[lane] || (other == distances[lane] && entry < nearest[lane]) {
                distances[lane] = other;
                nearest[lane] = entry;
            }
        }
        workgroupBarrier();
    }
    if lane == 0u && vector < params.count {
        output[vector] = nearest[0];
    }
}
