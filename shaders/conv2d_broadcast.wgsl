//! conv2d_broadcast: a convolution as an implicit matrix product, with bias, time embedding, residual and activation.
//!
//!   sum[n, y, x, o] = sum_{i, j, c} image[n, y * stride + i - top, x * stride + j - left, c]
//!                                   * weight[i, j, c, o]
//!   output = activate(sum + bias[o] + time[step, o] + residual[n, y, x, o])
//!   image = input, with second behind its channels; 0 outside
//!
//! input     [N, H, W, C1]             Element
//! second    [N, H, W, C2]             Element  read if HAS_SECOND
//! weight    [KH * KW * (C1 + C2), O]  Element, or if INT8 [O] f32 and behind them all values as 8-bit integers
//! bias      [O]                       f32      read if HAS_BIAS
//! time      [S, O]                    Element  read if HAS_TIME
//! step      [1]                       u32      read if HAS_TIME
//! residual  [N, OH, OW, O]            Element  read if HAS_RESIDUAL
//! output    [N, OH, OW, O]            Element
//!
//! grid     (O / COLUMNS, N * OH * OW / ROWS, 1), rounded up, x and y exchanged if ROWS_FIRST: one subgroup of 8 lanes owns ROWS pixels x COLUMNS channels
//! numbers  products and sums in f32
//! source   torch.nn.functional.conv2d; the sums of a ResNet block of diffusers
//! twin     src/reference/conv2d.rs

struct Params {
    height: u32,          // H
    width: u32,           // W
    channels: u32,        // C1
    second_channels: u32, // C2
    output_height: u32,   // OH
    output_width: u32,    // OW
    rows: u32,            // N * OH * OW
    columns: u32,         // O
    kernel_height: u32,   // KH
    kernel_width: u32,    // KW
    stride: u32,
    top: u32,
    left: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> second: array<Element>;
@group(0) @binding(3) var<storage, read> weight: array<WeightWord>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> time: array<Element>;
@group(0) @binding(6) var<storage, read> step: array<u32>;
@group(0) @binding(7) var<storage, read> residual: array<Element>;
@group(0) @binding(8) var<storage, read_write> output: array<Element>;

override HAS_SECOND: bool = false;
override HAS_BIAS: bool = false;
override HAS_TIME: bool = false;
override HAS_RESIDUAL: bool = false;

const OUTSIDE: u32 = 0xffffffffu;

/// For each row of the block, the first value that the present tap reads, or OUTSIDE.
struct Places {
    q0: vec4<u32>, q1: vec4<u32>, q2: vec4<u32>, q3: vec4<u32>,
    q4: vec4<u32>, q5: vec4<u32>, q6: vec4<u32>, q7: vec4<u32>,
}

/// The values that the lanes 0 to 3 hold.
fn lower_lanes(value: u32) -> vec4<u32> {
    return vec4(
        subgroupBroadcast(value, 0u),
        subgroupBroadcast(value, 1u),
        subgroupBroadcast(value, 2u),
        subgroupBroadcast(value, 3u),
    );
}

/// The values that the lanes 4 to 7 hold.
fn upper_lanes(value: u32) -> vec4<u32> {
    return vec4(
        subgroupBroadcast(value, 4u),
        subgroupBroadcast(value, 5u),
        subgroupBroadcast(value, 6u),
        subgroupBroadcast(value, 7u),
    );
}

/// Each lane brings its row of every eight, by pixels; all get all, by values.
fn places(pixels: vec4<u32>, channels: u32) -> Places {
    let own = select(pixels * channels, vec4(OUTSIDE), pixels == vec4(OUTSIDE));
    return Places(
        lower_lanes(own.x), upper_lanes(own.x), lower_lanes(own.y), upper_lanes(own.y),
        lower_lanes(own.z), upper_lanes(own.z), lower_lanes(own.w), upper_lanes(own.w),
    );
}

fn load_input(first: vec4<u32>, channel: u32) -> vec4<f32> {
    let inside = (first != vec4(OUTSIDE)) & vec4(channel < params.channels);
    let at = select(vec4(0u), first + channel, inside);
    let values = vec4(f32(input[at.x]), f32(input[at.y]), f32(input[at.z]), f32(input[at.w]));
    return select(vec4(0.0), values, inside);
}

fn load_second(first: vec4<u32>, channel: u32) -> vec4<f32> {
    let inside = (first != vec4(OUTSIDE)) & vec4(channel < params.second_channels);
    let at = select(vec4(0u), first + channel, inside);
    let values = vec4(f32(second[at.x]), f32(second[at.y]), f32(second[at.z]), f32(second[at.w]));
    return select(vec4(0.0), values, inside);
}

fn load_input_rows(first: Places, channel: u32) -> Rows {
    return Rows(
        load_input(first.q0, channel), load_input(first.q1, channel),
        load_input(first.q2, channel), load_input(first.q3, channel),
        load_input(first.q4, channel), load_input(first.q5, channel),
        load_input(first.q6, channel), load_input(first.q7, channel),
    );
}

fn load_second_rows(first: Places, channel: u32) -> Rows {
    return Rows(
        load_second(first.q0, channel), load_second(first.q1, channel),
        load_second(first.q2, channel), load_second(first.q3, channel),
        load_second(first.q4, channel), load_second(first.q5, channel),
        load_second(first.q6, channel), load_second(first.q7, channel),
    );
}

fn store_one(row: u32, column: u32, sum: f32) {
    let index = row * params.columns + column;
    var value = sum;
    if HAS_BIAS {
        value += bias[column];
    }
    if HAS_TIME {
        value += f32(time[step[0] * params.columns + column]);
    }
    if HAS_RESIDUAL {
        value += f32(residual[index]);
    }
    output[index] = Element(activate(value));
}

@compute @workgroup_size(8)
fn conv2d_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let own = own_block(workgroup, grid);
    let first_row = own.y * ROWS;
    let columns = own_columns(own.x, lane);
    var block = Block();

    // each lane follows its row of every eight: where its window begins, possibly left of or above the image,
    // which the unsigned numbers show as being far right of or below it
    let row = vec4(first_row + lane) + vec4(0u, 8u, 16u, 24u);
    let image = row / (params.output_height * params.output_width);
    let first_y = row / params.output_width % params.output_height * params.stride - params.top;
    let first_x = row % params.output_width * params.stride - params.left;

    var term = 0u;
    for (var tap_y = 0u; tap_y < params.kernel_height; tap_y += 1u) {
        for (var tap_x = 0u; tap_x < params.kernel_width; tap_x += 1u) {
            let y = first_y + tap_y;
            let x = first_x + tap_x;
            let inside = (row < vec4(params.rows)) & (y < vec4(params.height)) & (x < vec4(params.width));
            let pixels = select(vec4(OUTSIDE), (image * params.height + y) * params.width + x, inside);

            let first = places(pixels, params.channels);
            for (var channel = 0u; channel < params.channels; channel += LANES) {
                block = multiply(block, load_input_rows(first, channel + lane), load_weights(term + channel, columns), COLUMNS / LANES);
            }
            term += params.channels;

            if HAS_SECOND {
                let first = places(pixels, params.second_channels);
                for (var channel = 0u; channel < params.second_channels; channel += LANES) {
                    block = multiply(block, load_second_rows(first, channel + lane), load_weights(term + channel, columns), COLUMNS / LANES);
                }
                term += params.second_channels;
            }
        }
    }
    store_block(block, first_row, first_column(own.x, lane));
}
