//! matmul_broadcast: a matrix product with bias, activation and an added residual.
//!
//!   output[m, n] = activate(sum_k input[m, k] * weight[k, n] + bias[n]) + residual[m, n]
//!
//! input     [M, K]  Element
//! weight    [K, N]  Element, or if INT8 [N] f32 and behind them all values as 8-bit integers
//! bias      [N]     f32      read if HAS_BIAS
//! residual  [M, N]  Element  read if HAS_RESIDUAL
//! output    [M, N]  Element
//!
//! grid     (N / COLUMNS, M / ROWS, 1), rounded up, x and y exchanged if ROWS_FIRST: one subgroup of 8 lanes owns ROWS x COLUMNS outputs
//! numbers  products and sums in f32
//! source   torch.nn.functional.linear with its weight transposed
//! twin     src/reference/matmul.rs

struct Params {
    rows: u32,    // M
    terms: u32,   // K
    columns: u32, // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<WeightWord>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> output: array<Element>;

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

/// One term of four rows; those behind the last one repeat it, and are not stored.
fn load_input(row: u32, term: u32) -> vec4<f32> {
    let rows = min(vec4(row) + vec4(0u, 1u, 2u, 3u), vec4(params.rows - 1u));
    let inside = term < params.terms;
    let at = select(vec4(0u), rows * params.terms + term, vec4(inside));
    let values = vec4(f32(input[at.x]), f32(input[at.y]), f32(input[at.z]), f32(input[at.w]));
    return select(vec4(0.0), values, vec4(inside));
}

fn load_rows(row: u32, term: u32) -> Rows {
    return Rows(
        load_input(row, term), load_input(row + 4u, term),
        load_input(row + 8u, term), load_input(row + 12u, term),
        load_input(row + 16u, term), load_input(row + 20u, term),
        load_input(row + 24u, term), load_input(row + 28u, term),
    );
}

fn store_one(row: u32, column: u32, sum: f32) {
    let index = row * params.columns + column;
    var value = sum;
    if HAS_BIAS {
        value += bias[column];
    }
    value = activate(value);
    if HAS_RESIDUAL {
        value += f32(residual[index]);
    }
    output[index] = Element(value);
}

@compute @workgroup_size(8)
fn matmul_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let own = own_block(workgroup, grid);
    let first_row = own.y * ROWS;
    let columns = own_columns(own.x, lane);
    var block = Block();
    for (var term = 0u; term < params.terms; term += LANES) {
        block = multiply(block, load_rows(first_row, term + lane), load_weights(term, columns), COLUMNS / LANES);
    }
    store_block(block, first_row, first_column(own.x, lane));
}
