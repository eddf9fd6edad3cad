//! matmul_merge: adds up the parts of matmul_partial, with bias, activation and an added residual.
//!
//!   output[m, n] = activate(sum_p sums[p, m, n] + bias[n]) + residual[m, n]
//!
//! sums      [PARTS, M, N]  f32
//! bias      [N]            f32      read if HAS_BIAS
//! residual  [M, N]         Element  read if HAS_RESIDUAL
//! output    [M, N]         Element
//!
//! grid     linear, 64 words a workgroup
//! numbers  f32; parts are added in their order, so results do not depend on scheduling
//! source   torch.nn.functional.linear with its weight transposed
//! twin     src/reference/matmul.rs

struct Params {
    rows: u32,    // M
    terms: u32,   // K
    columns: u32, // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> sums: array<Sum>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<Word>;
@group(0) @binding(4) var<storage, read_write> output: array<Word>;

override PARTS: u32 = 1u;

@compute @workgroup_size(64)
fn matmul_merge(
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
