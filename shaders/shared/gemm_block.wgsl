//! gemm_block: the sums of one subgroup of 8 lanes: up to 32 rows by up to 32 columns, 8 terms at a time.
//!
//! Made for software adapters, where a lane is a lane of a vector of the CPU and each load is a slow loop over
//! the lanes: what counts is how much is multiplied for each load. A lane owns every eighth column, and all
//! rows of them. Of 8 terms it brings that of its own number for each row, which `subgroupBroadcast` then hands
//! to all lanes, and all 8 for each of its columns. In a smaller block the rest of the sums stay zero, and the
//! driver drops the loads that nobody uses.

override ROWS: u32 = 32u;    // of a workgroup: 8, 16 or 32

const LANES: u32 = 8u;

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

/// Adds the products of one term. Of the lane's four columns, those behind the first `parts` stay
/// zero, and their loads unused.
fn add_term(sums: mat4x4<f32>, rows: vec4<f32>, weights: vec4<f32>, parts: u32) -> mat4x4<f32> {
    var next = sums;
    next[0] = fma(rows, vec4(weights.x), sums[0]);
    if parts > 1u {
        next[1] = fma(rows, vec4(weights.y), sums[1]);
    }
    if parts > 2u {
        next[2] = fma(rows, vec4(weights.z), sums[2]);
    }
    if parts > 3u {
        next[3] = fma(rows, vec4(weights.w), sums[3]);
    }
    return next;
}

/// Adds the products of eight terms; each lane brings one of them in `rows`.
fn add_terms(sums: mat4x4<f32>, rows: vec4<f32>, weights: Weights, parts: u32) -> mat4x4<f32> {
    var next = add_term(sums, subgroupBroadcast(rows, 0u), weights.t0, parts);
    next = add_term(next, subgroupBroadcast(rows, 1u), weights.t1, parts);
    next = add_term(next, subgroupBroadcast(rows, 2u), weights.t2, parts);
    next = add_term(next, subgroupBroadcast(rows, 3u), weights.t3, parts);
    next = add_term(next, subgroupBroadcast(rows, 4u), weights.t4, parts);
    next = add_term(next, subgroupBroadcast(rows, 5u), weights.t5, parts);
    next = add_term(next, subgroupBroadcast(rows, 6u), weights.t6, parts);
    return add_term(next, subgroupBroadcast(rows, 7u), weights.t7, parts);
}

/// The sums with the products of eight terms added; each lane brings one of them in `rows`.
fn multiply(block: Block, rows: Rows, weights: Weights, parts: u32) -> Block {
    var next = block;
    next.q0 = add_terms(block.q0, rows.q0, weights, parts);
    next.q1 = add_terms(block.q1, rows.q1, weights, parts);
    if ROWS > 8u {
        next.q2 = add_terms(block.q2, rows.q2, weights, parts);
        next.q3 = add_terms(block.q3, rows.q3, weights, parts);
    }
    if ROWS > 16u {
        next.q4 = add_terms(block.q4, rows.q4, weights, parts);
        next.q5 = add_terms(block.q5, rows.q5, weights, parts);
        next.q6 = add_terms(block.q6, rows.q6, weights, parts);
        next.q7 = add_terms(block.q7, rows.q7, weights, parts);
    }
    return next;
}
