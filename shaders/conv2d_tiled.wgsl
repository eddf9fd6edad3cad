//! conv2d_tiled: a convolution as an implicit matrix product, with bias, time embedding, residual and activation.
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
//! grid     (O / TILE_COLUMNS, N * OH * OW / TILE_ROWS, 1), rounded up; more rows than y holds go on along z: one
//!          workgroup of LANES lanes owns TILE_ROWS pixels x TILE_COLUMNS channels
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
@group(0) @binding(1) var<storage, read> input: array<Word>;
@group(0) @binding(2) var<storage, read> second: array<Word>;
@group(0) @binding(3) var<storage, read> weight: array<WeightWord>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> time: array<Word>;
@group(0) @binding(6) var<storage, read> step: array<u32>;
@group(0) @binding(7) var<storage, read> residual: array<Word>;
@group(0) @binding(8) var<storage, read_write> output: array<Word>;

fn store_row(row: u32, column: u32, lower: vec4<f32>, upper: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    finish(row, column, lower);
    if LANE_COLUMNS == 8u {
        finish(row, column + UPPER, upper);
    }
}

@compute @workgroup_size(LANES)
fn conv2d_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE_ROWS;
    let first_column = workgroup.x * TILE_COLUMNS;
    let steps = params.kernel_height * params.kernel_width * tap_steps();
    var block = Block();
    multiply(&block, first_row, first_column, 0u, steps, lane);
    store_block(block, first_row, first_column + 4u * (lane % LANES_X), lane / LANES_X);
}
