//! conv2d_merge: adds up the parts of conv2d_partial, with bias, time embedding, residual and activation.
//!
//!   output = activate(sum_p sums[p, (n, y, x), o] + bias[o] + time[step, o] + residual[n, y, x, o])
//!
//! sums      [PARTS, N * OH * OW, O]  f32
//! bias      [O]                      f32      read if HAS_BIAS
//! time      [S, O]                   Element  read if HAS_TIME
//! step      [1]                      u32      read if HAS_TIME
//! residual  [N, OH, OW, O]           Element  read if HAS_RESIDUAL
//! output    [N, OH, OW, O]           Element
//!
//! grid     linear, 64 words a workgroup
//! numbers  f32; parts are added in their order, so results do not depend on scheduling
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
@group(0) @binding(1) var<storage, read> sums: array<Sum>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> time: array<Word>;
@group(0) @binding(4) var<storage, read> step: array<u32>;
@group(0) @binding(5) var<storage, read> residual: array<Word>;
@group(0) @binding(6) var<storage, read_write> output: array<Word>;

override PARTS: u32 = 1u;

@compute @workgroup_size(64)
fn conv2d_merge(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let words = params.rows * params.columns / WORD;
    let word = linear_index(workgroup, grid, lane);
    if word >= words {
        return;
    }
    var total = vec4(0.0);
    for (var part = 0u; part < PARTS; part += 1u) {
        total += vec4<f32>(sums[part * words + word]);
    }
    let row = word * WORD / params.columns;
    let column = word * WORD - row * params.columns;
    finish_word(row, column, params.columns, total + load_bias(column));
}
