//! gemm_broadcast: one subgroup of 8 lanes multiplies up to 32 rows by up to 32 columns, 8 terms at a time.
//!
//! Made for software adapters, where a lane is a lane of a vector of the CPU and each load is a slow loop over
//! the lanes: what counts is how much is multiplied for each load. A lane owns every eighth column, and all
//! rows of them. Of 8 terms it loads that of its own number for each row, which `subgroupBroadcast` then hands
//! to all lanes, and all 8 for each of its columns. The file that uses this one loads the rows, calls
//! `multiply`, and stores the sums through `store_one(row, column, value)`. In a smaller block the rest of the
//! sums stay zero, and the driver drops the loads that nobody uses.

override ROWS: u32 = 32u;    // of a workgroup: 8, 16 or 32
override COLUMNS: u32 = 32u; // of a workgroup: 8, 16 or 32

// Neighbouring workgroups share their weights and not their rows: for weights that no cache holds.
override ROWS_FIRST: bool = false;

const LANES: u32 = 8u;

/// Which block of columns and which block of rows a workgroup owns.
fn own_block(workgroup: vec3<u32>, grid: vec3<u32>) -> vec2<u32> {
    if ROWS_FIRST {
        return workgroup.yx;
    }
    return vec2(workgroup.x, workgroup.z * grid.y + workgroup.y);
}

/// A value for each row: `qN` for the rows 4 * N to 4 * N + 3.
struct Rows {
    q0: vec4<f32>, q1: vec4<f32>, q2: vec4<f32>, q3: vec4<f32>,
    q4: vec4<f32>, q5: vec4<f32>, q6: vec4<f32>, q7: vec4<f32>,
}

/// The weights of the lane's four columns: `tN` for term N of the eight.
struct Weights {
    t0: vec4<f32>, t1: vec4<f32>, t2: vec4<f32>, t3: vec4<f32>,
    t4: vec4<f32>, t5: vec4<f32>, t6: vec4<f32>, t7: vec4<f32>,
}

/// The sums of one lane: `qN` for the rows 4 * N to 4 * N + 3 of its four columns.
struct Block {
    q0: mat4x4<f32>, q1: mat4x4<f32>, q2: mat4x4<f32>, q3: mat4x4<f32>,
    q4: mat4x4<f32>, q5: mat4x4<f32>, q6: mat4x4<f32>, q7: mat4x4<f32>,
}

/// The columns of a lane. Those behind the last one repeat it, and are not stored.
fn own_columns(workgroup: u32, lane: u32) -> vec4<u32> {
    let columns = vec4(workgroup * COLUMNS + lane) + vec4(0u, LANES, 2u * LANES, 3u * LANES);
    return min(columns, vec4(params.columns - 1u));
}

fn load_term(term: u32, columns: vec4<u32>) -> vec4<f32> {
    let at = vec4(term * params.columns) + columns;
    return vec4(f32(weight[at.x]), f32(weight[at.y]), f32(weight[at.z]), f32(weight[at.w]));
}

/// Terms behind the last one are read as some other weight: their rows' values are zero.
fn load_weights(term: u32, columns: vec4<u32>) -> Weights {
    return Weights(
        load_term(term, columns),
        load_term(term + 1u, columns),
        load_term(term + 2u, columns),
        load_term(term + 3u, columns),
        load_term(term + 4u, columns),
        load_term(term + 5u, columns),
        load_term(term + 6u, columns),
        load_term(term + 7u, columns),
    );
}

/// Adds the products of one term. Columns that the workgroup does not have stay zero, and their loads unused.
fn add_term(sums: mat4x4<f32>, rows: vec4<f32>, weights: vec4<f32>) -> mat4x4<f32> {
    var next = sums;
    next[0] = fma(rows, vec4(weights.x), sums[0]);
    if COLUMNS > LANES {
        next[1] = fma(rows, vec4(weights.y), sums[1]);
    }
    if COLUMNS > 2u * LANES {
        next[2] = fma(rows, vec4(weights.z), sums[2]);
        next[3] = fma(rows, vec4(weights.w), sums[3]);
    }
    return next;
}

/// Adds the products of eight terms; each lane brings one of them in `rows`.
fn add_terms(sums: mat4x4<f32>, rows: vec4<f32>, weights: Weights) -> mat4x4<f32> {
    var next = add_term(sums, subgroupBroadcast(rows, 0u), weights.t0);
    next = add_term(next, subgroupBroadcast(rows, 1u), weights.t1);
    next = add_term(next, subgroupBroadcast(rows, 2u), weights.t2);
    next = add_term(next, subgroupBroadcast(rows, 3u), weights.t3);
    next = add_term(next, subgroupBroadcast(rows, 4u), weights.t4);
    next = add_term(next, subgroupBroadcast(rows, 5u), weights.t5);
    next = add_term(next, subgroupBroadcast(rows, 6u), weights.t6);
    return add_term(next, subgroupBroadcast(rows, 7u), weights.t7);
}

fn multiply(block: ptr<function, Block>, rows: Rows, weights: Weights) {
    (*block).q0 = add_terms((*block).q0, rows.q0, weights);
    (*block).q1 = add_terms((*block).q1, rows.q1, weights);
    if ROWS > 8u {
        (*block).q2 = add_terms((*block).q2, rows.q2, weights);
        (*block).q3 = add_terms((*block).q3, rows.q3, weights);
    }
    if ROWS > 16u {
        (*block).q4 = add_terms((*block).q4, rows.q4, weights);
        (*block).q5 = add_terms((*block).q5, rows.q5, weights);
        (*block).q6 = add_terms((*block).q6, rows.q6, weights);
        (*block).q7 = add_terms((*block).q7, rows.q7, weights);
    }
}

/// Hands every sum to `store_one(row, column, value)` of the file that uses this one, in a loop: to write the
/// stores out would make most of the program that the driver compiles.
fn store_block(block: Block, first_row: u32, first_column: u32) {
    var sums = array<mat4x4<f32>, 8>(
        block.q0, block.q1, block.q2, block.q3, block.q4, block.q5, block.q6, block.q7,
    );
    for (var part = 0u; part < ROWS * COLUMNS / LANES; part += 1u) {
        let own_column = part % (COLUMNS / LANES);
        let own_row = part / (COLUMNS / LANES);
        let row = first_row + own_row;
        let column = first_column + own_column * LANES;
        if row < params.rows && column < params.columns {
            store_one(row, column, sums[own_row / 4u][own_column][own_row % 4u]);
        }
    }
}
