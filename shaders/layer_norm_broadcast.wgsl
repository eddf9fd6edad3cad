//! layer_norm_broadcast: normalises each row, for adapters whose subgroups have 8 lanes.
//!
//!   output[r, c] = (input[r, c] - mean) / sqrt(variance + epsilon) * weight[c] + bias[c]
//!   mean, variance over row r (biased variance)
//!
//! input   [R, C]  Element
//! weight  [C]     f32
//! bias    [C]     f32
//! output  [R, C]  Element
//!
//! grid     R / 8 workgroups in x and y, rounded up: one workgroup of 8 lanes, each of which owns one row
//! numbers  f32, moments of eight values at a time and merges; relative to the row's first value, so that a
//!          large mean costs no digits
//! source   Ba, Kiros & Hinton 2016, arXiv:1607.06450; torch.nn.functional.layer_norm
//! twin     src/reference/layer_norm.rs

struct Params {
    rows: u32,     // R
    channels: u32, // C
    epsilon: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

const LANES: u32 = 8u;

fn load_four(at: u32) -> vec4<f32> {
    return vec4(f32(input[at]), f32(input[at + 1u]), f32(input[at + 2u]), f32(input[at + 3u]));
}

fn store_four(at: u32, four: vec4<f32>) {
    output[at] = Element(four.x);
    output[at + 1u] = Element(four.y);
    output[at + 2u] = Element(four.z);
    output[at + 3u] = Element(four.w);
}

/// What lanes 0 to 3 hold, in every lane.
fn gather_low(value: f32) -> vec4<f32> {
    return vec4(
        subgroupBroadcast(value, 0u),
        subgroupBroadcast(value, 1u),
        subgroupBroadcast(value, 2u),
        subgroupBroadcast(value, 3u),
    );
}

/// What lanes 4 to 7 hold, in every lane.
fn gather_high(value: f32) -> vec4<f32> {
    return vec4(
        subgroupBroadcast(value, 4u),
        subgroupBroadcast(value, 5u),
        subgroupBroadcast(value, 6u),
        subgroupBroadcast(value, 7u),
    );
}

@compute @workgroup_size(8)
fn layer_norm_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // a lane behind the last row takes part with the last row, and stores nothing
    let own_row = (workgroup.y * grid.x + workgroup.x) * LANES + lane;
    let row = min(own_row, params.rows - 1u);
    let first = row * params.channels;
    let whole = params.channels / LANES * LANES; // channels that are normalised eight at a time
    let shift = f32(input[first]);

    var moments = Moments(0.0, 0.0, 0.0);
    for (var channel = 0u; channel < whole; channel += LANES) {
        let low = load_four(first + channel) - vec4(shift);
        let high = load_four(first + channel + 4u) - vec4(shift);
        let mean = dot(low + high, vec4(1.0 / f32(LANES)));
        let low_delta = low - vec4(mean);
        let high_delta = high - vec4(mean);
        let squares = dot(low_delta, low_delta) + dot(high_delta, high_delta);
        moments = merge(moments, Moments(f32(LANES), mean, squares));
    }
    for (var channel = whole; channel < params.channels; channel += 1u) {
        moments = observe(moments, f32(input[first + channel]) - shift);
    }
    let scale = inverseSqrt(moments.squares / f32(params.channels) + params.epsilon);

    for (var channel = 0u; channel < whole; channel += LANES) {
        let weights = weight[channel + lane];
        let biases = bias[channel + lane];
        let at = first + channel;
        let low = (load_four(at) - vec4(shift) - vec4(moments.mean)) * scale;
        let high = (load_four(at + 4u) - vec4(shift) - vec4(moments.mean)) * scale;
        let low_output = low * gather_low(weights) + gather_low(biases);
        let high_output = high * gather_high(weights) + gather_high(biases);
        if own_row < params.rows {
            store_four(at, low_output);
            store_four(at + 4u, high_output);
        }
    }
    for (var channel = whole; channel < params.channels; channel += 1u) {
        let normal = (f32(input[first + channel]) - shift - moments.mean) * scale;
        if own_row < params.rows {
            output[first + channel] = Element(normal * weight[channel] + bias[channel]);
        }
    }
}
