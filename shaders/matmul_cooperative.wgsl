//! matmul_cooperative: a matrix product on cooperative matrices, with bias, activation and an added residual.
//!
//!   output[m, n] = activate(sum_k input[m, k] * weight[k, n] + bias[n]) + residual[m, n]
//!
//! input     [M, K]  Element
//! weight    [K, N]  Element, or if INT8 [N] f32 and behind them all values as 8-bit integers
//! bias      [N]     f32      read if HAS_BIAS
//! residual  [M, N]  Element  read if HAS_RESIDUAL
//! output    [M, N]  Element
//!
//! WORD is 4 if K and N are multiples of it, and 1 otherwise.
//!
//! grid     (N / 64, M / 64, 1), rounded up; more rows than y holds go on along z: one workgroup of LANES lanes owns 64x64 outputs
//! numbers  products of f16, sums in f32; fragments of EDGE x EDGE values
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
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> output: array<Element>;

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

fn load_input(row: u32, term: u32) -> Word {
    if row < params.rows && term < params.terms {
        return input[(row * params.terms + term) / WORD];
    }
    return Word();
}

fn load_weight(term: u32, column: u32) -> Word {
    if term < params.terms && column < params.columns {
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
    value = activate(value);
    if HAS_RESIDUAL {
        value += f32(residual[index]);
    }
    output[index] = Element(value);
}

@compute @workgroup_size(LANES)
fn matmul_cooperative(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE;
    let first_column = workgroup.x * TILE;

    for (var quarter = 0u; quarter < QUARTERS; quarter += subgroups) {
        let place = Place(first_row, first_column, quarter, subgroups, subgroup, lane);
        let row = quarter_row(place);
        let column = quarter_column(place);
        var sums = Sums();
        for (var first_term = 0u; first_term < params.terms; first_term += DEPTH) {
            // stage: neighbouring lanes read neighbouring terms of a row, and neighbouring columns of a term
            for (var i = lane * WORD; i < TILE * DEPTH; i += LANES * WORD) {
                let input_row = i / DEPTH;
                let input_term = i % DEPTH;
                stage_left(
                    input_row * LEFT_STRIDE + input_term,
                    load_input(first_row + input_row, first_term + input_term),
                );
                let weight_term = i / TILE;
                let weight_column = i % TILE;
                stage_right(
                    weight_term * RIGHT_STRIDE + weight_column,
                    load_weight(first_term + weight_term, first_column + weight_column),
                );
            }
            workgroupBarrier();
            multiply_panels(&sums, row, column);
            workgroupBarrier();
        }
        store_quarter(&sums, place);
    }
}
