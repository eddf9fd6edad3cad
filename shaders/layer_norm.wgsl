//! layer_norm: normalises each row, then scales and shifts each channel.
//!
//!   output[r, c] = (input[r, c] - mean) / sqrt(variance + epsilon) * weight[c] + bias[c]
//!   mean, variance over row r (biased variance)
//!
//! input   [R, C]  Element
//! weight  [C]     f32
//! bias    [C]     f32
//! output  [R, C]  Element
//!
//! grid     R workgroups in x and y: one workgroup of 64 lanes owns one row
//! numbers  f32, Welford per lane and pairwise merges; relative to the row's first value, so that a large
//!          mean costs no digits
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

const LANES: u32 = 64u;

var<workgroup> partial: array<Moments, LANES>;

@compute @workgroup_size(64)
fn layer_norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = workgroup.y * grid.x + workgroup.x;
    if row >= params.rows {
        return;
    }
    let first = row * params.channels;
    let shift = f32(input[first]);
    var own = Moments(0.0, 0.0, 0.0);
    for (var channel = lane; channel < params.channels; channel += LANES) {
        own = observe(own, f32(input[first + channel]) - shift);
    }
    partial[lane] = own;
    workgroupBarrier();

    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            partial[lane] = merge(partial[lane], partial[lane + stride]);
        }
        workgroupBarrier();
    }
    let mean = partial[0].mean;
    let scale = inverseSqrt(partial[0].squares / f32(params.channels) + params.epsilon);

    for (var channel = lane; channel < params.channels; channel += LANES) {
        let centred = f32(input[first + channel]) - shift - mean;
        output[first + channel] = Element(centred * scale * weight[channel] + bias[channel]);
    }
}
