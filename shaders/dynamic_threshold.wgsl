//! dynamic_threshold: the bound that a share of the predicted clean sample's magnitudes lies below, per image.
//!
//!   prediction = a * state[0] + b * model_output          a, b of the row of the table
//!   threshold[n] = clamp(quantile(|prediction of image n|, ratio), 1, most)
//!   quantile: between the two ranks around ratio * (count - 1), linearly
//!
//! state         [1 + K, N * count]  f32  the sample is plane 0
//! model_output  [N * count]         f32
//! table         [S, L]              f32  a and b are the second and third value of a row
//! step          [1]                 u32  the row of the table
//! threshold     [N]                 f32
//!
//! grid     (N, 1, 1): one workgroup of 256 lanes owns one image
//! numbers  f32; ranks by four passes over the bits of the magnitudes, eight bits each, so the result is exact
//! source   Saharia et al. 2022, arXiv:2205.11487, section 2.3; _threshold_sample of diffusers, torch.quantile
//! twin     src/reference/dynamic_threshold.rs

struct Params {
    count: u32,      // values of one image
    row_length: u32, // L
    ratio: f32,
    most: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> state: array<f32>;
@group(0) @binding(2) var<storage, read> model_output: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read> step: array<u32>;
@group(0) @binding(5) var<storage, read_write> threshold: array<f32>;

const LANES: u32 = 256u;

var<workgroup> histogram: array<atomic<u32>, 256>;
/// The leading bits of the value of the wanted rank, and its rank among those that share them.
var<workgroup> chosen: vec2<u32>;
/// The least bits above those of the wanted value.
var<workgroup> above: atomic<u32>;

@compute @workgroup_size(256)
fn dynamic_threshold(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = workgroup.x * params.count;
    let head = step[0] * params.row_length;
    let sample_weight = table[head + 1u];
    let output_weight = table[head + 2u];

    let place = params.ratio * f32(params.count - 1u);
    let rank = u32(floor(place));
    let share = place - floor(place);

    if lane == 0u {
        chosen = vec2(0u, rank);
        atomicStore(&above, 0xffffffffu);
    }
    // magnitudes are ordered as their bits are
    for (var round = 0u; round < 4u; round += 1u) {
        atomicStore(&histogram[lane], 0u);
        workgroupBarrier();
        let leading = chosen.x;
        let shift = 24u - 8u * round;
        for (var index = lane; index < params.count; index += LANES) {
            let at = first + index;
            let bits = bitcast<u32>(abs(fma(sample_weight, state[at], output_weight * model_output[at])));
            if round == 0u || (bits >> (shift + 8u)) == leading {
                atomicAdd(&histogram[(bits >> shift) & 255u], 1u);
            }
        }
        workgroupBarrier();
        if lane == 0u {
            var wanted = chosen.y;
            var bin = 0u;
            loop {
                let found = atomicLoad(&histogram[bin]);
                if wanted < found || bin == 255u {
                    break;
                }
                wanted -= found;
                bin += 1u;
            }
            chosen = vec2((leading << 8u) | bin, wanted);
        }
        workgroupBarrier();
    }

    // the next rank: the same value if there are more of it, else the least above it
    let bits_of_rank = chosen.x;
    let more = atomicLoad(&histogram[bits_of_rank & 255u]) > chosen.y + 1u;
    for (var index = lane; index < params.count; index += LANES) {
        let at = first + index;
        let bits = bitcast<u32>(abs(fma(sample_weight, state[at], output_weight * model_output[at])));
        if bits > bits_of_rank {
            atomicMin(&above, bits);
        }
    }
    workgroupBarrier();
    if lane == 0u {
        let low = bitcast<f32>(bits_of_rank);
        let next = atomicLoad(&above);
        var high = low;
        if !more && next != 0xffffffffu {
            high = bitcast<f32>(next);
        }
        threshold[workgroup.x] = clamp(low + share * (high - low), 1.0, params.most);
    }
}
