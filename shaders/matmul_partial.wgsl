//! matmul_partial: the sums of a matrix product over each of PARTS ranges of terms; matmul_merge adds them up.
//!
//!   sums[p, m, n] = sum_{k in part p} input[m, k] * weight[k, n]
//!
//! input   [M, K]         Element
//! weight  [K, N]         Element, or if INT8 [N] f32 and behind them all values as 8-bit integers
//! sums    [PARTS, M, N]  f32
//!
//! grid     (N / TILE_COLUMNS, M / TILE_ROWS, PARTS), rounded up: one workgroup of LANES lanes owns
//!          TILE_ROWS x TILE_COLUMNS sums of one part, whose terms are a multiple of DEPTH
//! numbers  products and sums in f32
//! source   torch.nn.functional.linear with its weight transposed
//! twin     src/reference/matmul.rs

struct Params {
    rows: u32,    // M
    terms: u32,   // K
    columns: u32, // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Word>;
@group(0) @binding(2) var<storage, read> weight: array<WeightWord>;
@group(0) @binding(3) var<storage, read_write> sums: array<Sum>;

@compute @workgroup_size(LANES)
fn matmul_partial(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = workgroup.y * TILE_ROWS;
    let first_column = workgroup.x * TILE_COLUMNS;
    part = workgroup.z;
    let steps = (params.terms + DEPTH - 1u) / DEPTH;
    let terms = (steps + PARTS - 1u) / PARTS * DEPTH;
    var block = Block();
    multiply(&block, first_row, first_column, part * terms, min((part + 1u) * terms, params.terms), lane);
    store_block(block, first_row, first_column + 4u * (lane % LANES_X), lane / LANES_X);
}
