//! matmul_tiled: a matrix product with bias, activation and an added residual.
//!
//!   output[m, n] = activate(sum_k input[m, k] * weight[k, n] + bias[n]) + residual[m, n]
//!
//! input     [M, K]  Element
//! weight    [K, N]  Element
//! bias      [N]     f32      read if HAS_BIAS
//! residual  [M, N]  Element  read if HAS_RESIDUAL
//! output    [M, N]  Element
//!
//! grid     (N / 64, M / 64, 1), rounded up; more rows than y holds go on along z: one workgroup of 64 lanes owns 64x64 outputs
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
@group(0) @binding(2) var<storage, read> weight: array<Element>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<Element>;
@group(0) @binding(5) var<storage, read_write> output: array<Element>;

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

fn load_input(row: u32, term: u32) -> f32 {
    if row < params.rows && term < params.terms {
        return f32(input[row * params.terms + term]);
    }
    return 0.0;
}

fn load_weight(term: u32, column: u32) -> f32 {
    if term < params.terms && column < params.columns {
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
    value = activate(value);
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
fn matmul_tiled(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_row = (workgroup.z * grid.y + workgroup.y) * TILE;
    let first_column = workgroup.x * TILE;
    let lane_x = lane % 8u;
    let lane_y = lane / 8u;
    var block = Block();

    for (var first_term = 0u; first_term < params.terms; first_term += DEPTH) {
        // stage: 16 lanes read 16 neighbouring terms of a row, or 64 neighbouring columns of a term
        for (var part = 0u; part < 4u; part += 1u) {
            let four = lane / 16u + 4u * part;
            let row = first_row + 4u * four;
            let term = first_term + lane % 16u;
            left[(lane % 16u) * 16u + four] = vec4(
                load_input(row, term),
                load_input(row + 1u, term),
                load_input(row + 2u, term),
                load_input(row + 3u, term),
            );
            let column = first_column + 4u * (lane % 16u);
            right[four * 16u + lane % 16u] = vec4(
                load_weight(first_term + four, column),
                load_weight(first_term + four, column + 1u),
                load_weight(first_term + four, column + 2u),
                load_weight(first_term + four, column + 3u),
            );
        }
        workgroupBarrier();
        multiply_panels(&block, lane_x, lane_y);
        workgroupBarrier();
    }
    store_block(block, first_row, first_column, lane_x, lane_y);
}
