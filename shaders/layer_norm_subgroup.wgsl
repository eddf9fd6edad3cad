//! layer_norm_subgroup: normalises each row, then scales and shifts each channel; lanes of a subgroup, of any size,
//! are reduced in registers.
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
//! numbers  f32, Welford per lane, then sums over subgroups and over their results in order; relative to the row's first value, so that a large
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

var<workgroup> partial: array<f32, LANES>; // one sum for each subgroup, of which there may be as many as lanes

/// The sum over all lanes of the workgroup, the same in each.
fn add_up(value: f32, subgroup: u32, subgroups: u32, member: u32) -> f32 {
    let sum = subgroupAdd(value);
    workgroupBarrier();
    if member == 0u {
        partial[subgroup] = sum;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < subgroups; i += 1u) {
        total += partial[i];
    }
    return total;
}

@compute @workgroup_size(LANES)
fn layer_norm_subgroup(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) member: u32,
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
    let count = f32(params.channels);
    let mean = add_up(own.count * own.mean, subgroup, subgroups, member) / count;
    let away = own.mean - mean;
    let squares = add_up(own.squares + own.count * away * away, subgroup, subgroups, member);
    let scale = inverseSqrt(squares / count + params.epsilon);

    for (var channel = lane; channel < params.channels; channel += LANES) {
        let centred = f32(input[first + channel]) - shift - mean;
        output[first + channel] = Element(centred * scale * weight[channel] + bias[channel]);
    }
}
