//! matmul_tiled: a matrix product with bias, activation and an added residual, or with GEGLU.
//!
//!   output[m, n] = activate(sum_k input[m, k] * weight[k, n] + bias[n]) + residual[m, n]
//!   with GATED, sums s with biases:  output[m, n] = s[m, n] * gelu(s[m, N / 2 + n]),  N / 2 columns
//!
//! input     [M, K]  Element
//! weight    [K, N]  Element, or if INT8 [N] f32 and behind them all values as 8-bit integers
//! bias      [N]     f32      read if HAS_BIAS
//! residual  [M, N]  Element  read if HAS_RESIDUAL
//! output    [M, N]  Element
//!
//! grid     (N / TILE_COLUMNS, M / TILE_ROWS, 1), rounded up; more rows than y holds go on along z: one workgroup of
//!          LANES lanes owns TILE_ROWS x TILE_COLUMNS sums
//! numbers  products and sums in f32
//! source   torch.nn.functional.linear with its weight transposed; GEGLU of Shazeer 2020, arXiv:2002.05202
//! twin     src/reference/matmul.rs

struct Params {
    rows: u32,    // M
    terms: u32,   // K
    columns: u32, // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<WeightWord>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<Word>;
@group(0) @binding(5) var<storage, read_write> output: array<Word>;

/// Values times the activated gates beside them: GEGLU.
fn store_gated(row: u32, column: u32, values: vec4<f32>, gates: vec4<f32>) {
    let columns = params.columns / 2u;
    for (var i = 0u; i < 4u; i += WORD) {
        if column + i >= columns {
            return;
        }
        var value = values;
        var gate = gates;
        if WORD == 1u {
            value = vec4(values[i]);
            gate = vec4(gates[i]);
        }
        value = scaled(value, column + i) + load_bias(column + i);
        gate = scaled(gate, columns + column + i) + load_bias(columns + column + i);
        let gated = value * vec4(gelu(gate.x), gelu(gate.y), gelu(gate.z), gelu(gate.w));
        output[(row * columns + column + i) / WORD] = narrow(gated);
    }
}

fn store_row(row: u32, column: u32, lower: vec4<f32>, upper: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    if GATED {
        store_gated(row, column, lower, upper);
        return;
    }
    finish(row, column, lower);
    if LANE_COLUMNS == 8u {
        finish(row, column + UPPER, upper);
    }
}

@compute @workgroup_size(LANES)
fn matmul_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE_ROWS;
    let first_column = workgroup.x * select(TILE_COLUMNS, TILE_COLUMNS / 2u, GATED);
    var block = Block();
    multiply(&block, first_row, first_column, 0u, params.terms, lane);
    store_block(block, first_row, first_column + 4u * (lane % LANES_X), lane / LANES_X);
}
