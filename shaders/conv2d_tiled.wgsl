//! conv2d_tiled: a convolution as an implicit matrix product, with bias, time embedding and residual.
//!
//!   sum[n, y, x, o] = sum_{i, j, c} image[n, y * stride + i - top, x * stride + j - left, c]
//!                                   * weight[i, j, c, o]
//!   output = sum + bias[o] + time[step, o] + residual[n, y, x, o]
//!   image = input, with second behind its channels; 0 outside
//!
//! input     [N, H, W, C1]             Element
//! second    [N, H, W, C2]             Element  read if HAS_SECOND
//! weight    [KH * KW * (C1 + C2), O]  Element
//! bias      [O]                       f32      read if HAS_BIAS
//! time      [S, O]                    Element  read if HAS_TIME
//! step      [1]                       u32      read if HAS_TIME
//! residual  [N, OH, OW, O]            Element  read if HAS_RESIDUAL
//! output    [N, OH, OW, O]            Element
//!
//! grid     (O / 64, N * OH * OW / 64, 1), rounded up: one workgroup of 64 lanes owns 64 pixels x 64 channels
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
@group(0) @binding(3) var<storage, read> weight: array<Element>;
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

/// For each row of the tile, the pixel [N * H * W] that the present tap reads, or OUTSIDE.
var<workgroup> pixels: array<u32, TILE>;

fn load_pixel(row: u32, channel: u32) -> f32 {
    let pixel = pixels[row];
    if pixel == OUTSIDE {
        return 0.0;
    }
    if channel < params.channels {
        return f32(input[pixel * params.channels + channel]);
    }
    if HAS_SECOND && channel < params.channels + params.second_channels {
        return f32(second[pixel * params.second_channels + channel - params.channels]);
    }
    return 0.0;
}

fn load_weight(term: u32, inside: bool, column: u32) -> f32 {
    if inside && column < params.columns {
        return f32(weight[term * params.columns + column]);
    }
    return 0.0;
}

fn store_one(row: u32, column: u32, sum: f32) {
    if column >= params.columns {
        return;
    }
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
    output[index] = Element(value);
}

fn store_four(row: u32, column: u32, sums: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    store_one(row, column, sums.x);
    store_one(row, column + 1u, sums.y);
    store_one(row, column + 2u, sums.z);
    store_one(row, column + 3u, sums.w);
}

@compute @workgroup_size(64)
fn conv2d_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE;
    let first_column = workgroup.x * TILE;
    let lane_x = lane % 8u;
    let lane_y = lane / 8u;
    let channels = params.channels + params.second_channels;
    var block = Block();

    // each lane follows one row of the tile: where its window begins, possibly left of or above the image,
    // which the unsigned numbers show as being far right of or below it
    let row = first_row + lane;
    let image = row / (params.output_height * params.output_width);
    let first_y = row / params.output_width % params.output_height * params.stride - params.top;
    let first_x = row % params.output_width * params.stride - params.left;

    var first_term = 0u;
    for (var tap_y = 0u; tap_y < params.kernel_height; tap_y += 1u) {
        for (var tap_x = 0u; tap_x < params.kernel_width; tap_x += 1u) {
            let y = first_y + tap_y;
            let x = first_x + tap_x;
            let inside = row < params.rows && y < params.height && x < params.width;
            pixels[lane] = select(OUTSIDE, (image * params.height + y) * params.width + x, inside);
            workgroupBarrier();

            for (var first_channel = 0u; first_channel < channels; first_channel += DEPTH) {
                // stage: 16 lanes read 16 neighbouring channels of a pixel, or 64 columns of a term
                for (var part = 0u; part < 4u; part += 1u) {
                    let four = lane / 16u + 4u * part;
                    let channel = first_channel + lane % 16u;
                    left[(lane % 16u) * 16u + four] = vec4(
                        load_pixel(4u * four, channel),
                        load_pixel(4u * four + 1u, channel),
                        load_pixel(4u * four + 2u, channel),
                        load_pixel(4u * four + 3u, channel),
                    );
                    let term = first_term + first_channel + four;
                    let inside = first_channel + four < channels;
                    let column = first_column + 4u * (lane % 16u);
                    right[four * 16u + lane % 16u] = vec4(
                        load_weight(term, inside, column),
                        load_weight(term, inside, column + 1u),
                        load_weight(term, inside, column + 2u),
                        load_weight(term, inside, column + 3u),
                    );
                }
                workgroupBarrier();
                multiply_panels(&block, lane_x, lane_y);
                workgroupBarrier();
            }
            first_term += channels;
        }
    }
    store_block(block, first_row, first_column, lane_x, lane_y);
}
