//! conv2d_cooperative: a convolution as an implicit product of cooperative matrices, with bias, time embedding, residual and activation.
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
//! WORD is 4 if C1, C2 and O are multiples of it, and 1 otherwise.
//!
//! grid     (O / 64, N * OH * OW / 64, 1), rounded up: one workgroup of LANES lanes owns 64 pixels x 64 channels
//! numbers  products of f16, sums in f32; fragments of EDGE x EDGE values
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
@group(0) @binding(1) var<storage, read> input: array<Word>;
@group(0) @binding(2) var<storage, read> second: array<Word>;
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

/// For each row of the tile, the pixel [N * H * W] that the present tap reads, or OUTSIDE.
var<workgroup> pixels: array<u32, TILE>;

fn load_pixel(row: u32, channel: u32) -> Word {
    let pixel = pixels[row];
    if pixel == OUTSIDE {
        return Word();
    }
    if channel < params.channels {
        return input[(pixel * params.channels + channel) / WORD];
    }
    if HAS_SECOND && channel < params.channels + params.second_channels {
        return second[(pixel * params.second_channels + channel - params.channels) / WORD];
    }
    return Word();
}

fn load_weight(term: u32, inside: bool, column: u32) -> Word {
    if inside && column < params.columns {
        return weight_word(term * params.columns + column);
    }
    return Word();
}

fn store_one(row: u32, column: u32, sum: f32) {
    if row >= params.rows || column >= params.columns {
        return;
    }
    let index = row * params.columns + column;
    var value = scaled_one(sum, column);
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

/// The pixel that a tap of the window of an output row falls on, or OUTSIDE.
fn pixel_of(row: u32, tap_y: u32, tap_x: u32) -> u32 {
    // a window may begin left of or above the image, which the unsigned numbers show as being far right of or below it
    let image = row / (params.output_height * params.output_width);
    let y = row / params.output_width % params.output_height * params.stride - params.top + tap_y;
    let x = row % params.output_width * params.stride - params.left + tap_x;
    let inside = row < params.rows && y < params.height && x < params.width;
    return select(OUTSIDE, (image * params.height + y) * params.width + x, inside);
}

@compute @workgroup_size(LANES)
fn conv2d_cooperative(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE;
    let first_column = workgroup.x * TILE;
    let channels = params.channels + params.second_channels;

    for (var quarter = 0u; quarter < QUARTERS; quarter += subgroups) {
        let place = Place(first_row, first_column, quarter, subgroups, subgroup, lane);
        let row = quarter_row(place);
        let column = quarter_column(place);
        var sums = Sums();
        var first_term = 0u;
        for (var tap_y = 0u; tap_y < params.kernel_height; tap_y += 1u) {
            for (var tap_x = 0u; tap_x < params.kernel_width; tap_x += 1u) {
                for (var i = lane; i < TILE; i += LANES) {
                    pixels[i] = pixel_of(first_row + i, tap_y, tap_x);
                }
                workgroupBarrier();

                for (var first_channel = 0u; first_channel < channels; first_channel += DEPTH) {
                    // stage: neighbouring lanes read neighbouring channels of a pixel, and columns of a term
                    for (var i = lane * WORD; i < TILE * DEPTH; i += LANES * WORD) {
                        let pixel_row = i / DEPTH;
                        let pixel_channel = i % DEPTH;
                        stage_left(
                            pixel_row * LEFT_STRIDE + pixel_channel,
                            load_pixel(pixel_row, first_channel + pixel_channel),
                        );
                        let weight_term = i / TILE;
                        let weight_column = i % TILE;
                        let channel = first_channel + weight_term;
                        stage_right(
                            weight_term * RIGHT_STRIDE + weight_column,
                            load_weight(first_term + channel, channel < channels, first_column + weight_column),
                        );
                    }
                    workgroupBarrier();
                    multiply_panels(&sums, row, column);
                    workgroupBarrier();
                }
                first_term += channels;
            }
        }
        store_quarter(&sums, place);
    }
}
