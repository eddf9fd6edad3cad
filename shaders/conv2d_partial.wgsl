//! conv2d_partial: the sums of a convolution over each of PARTS ranges of terms; conv2d_merge adds them up.
//!
//!   sums[p, (n, y, x), o] = sum_{(i, j, c) in part p} image[n, y * stride + i - top, x * stride + j - left, c]
//!                                                     * weight[i, j, c, o]
//!   image = input, with second behind its channels; 0 outside
//!
//! input   [N, H, W, C1]               Element
//! second  [N, H, W, C2]               Element  read if HAS_SECOND
//! weight  [KH * KW * (C1 + C2), O]    Element, or if INT8 [O] f32 and behind them all values as 8-bit integers
//! sums    [PARTS, N * OH * OW, O]     f32
//!
//! grid     (O / TILE_COLUMNS, N * OH * OW / TILE_ROWS, PARTS), rounded up: one workgroup of LANES lanes owns
//!          TILE_ROWS x TILE_COLUMNS sums of one part
//! numbers  products and sums in f32
//! source   torch.nn.functional.conv2d
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
@group(0) @binding(4) var<storage, read_write> sums: array<Sum>;

@compute @workgroup_size(LANES)
fn conv2d_partial(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = workgroup.y * TILE_ROWS;
    let first_column = workgroup.x * TILE_COLUMNS;
    part = workgroup.z;
    let all = params.kernel_height * params.kernel_width * tap_steps();
    let steps = (all + PARTS - 1u) / PARTS;
    var block = Block();
    multiply(&block, first_row, first_column, part * steps, min((part + 1u) * steps, all), lane);
    store_block(block, first_row, first_column + 4u * (lane % LANES_X), lane / LANES_X);
}
