//! gemm_broadcast: weights and sums of a matrix product in blocks of `gemm_block`.
//!
//! The file that uses this one loads the rows, calls `multiply`, and stores the sums through
//! `store_one(row, column, value)`. How weights are stored is for `weight_columns` or `weight_columns_int8` to say.

override COLUMNS: u32 = 32u; // of a workgroup: 8, 16 or 32

// Neighbouring workgroups share their weights and not their rows: for weights that no cache holds.
override ROWS_FIRST: bool = false;

/// Which block of columns and which block of rows a workgroup owns.
fn own_block(workgroup: vec3<u32>, grid: vec3<u32>) -> vec2<u32> {
    if ROWS_FIRST {
        return workgroup.yx;
    }
    return vec2(workgroup.x, workgroup.z * grid.y + workgroup.y);
}

/// The columns of a lane. Those behind the last one repeat it, and are not stored.
fn own_columns(workgroup: u32, lane: u32) -> vec4<u32> {
    let columns = vec4(first_column(workgroup, lane)) + COLUMN_STEP * vec4(0u, 1u, 2u, 3u);
    return min(columns, vec4(params.columns - 1u));
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

/// Hands every sum to `store_one(row, column, value)` of the file that uses this one, in a loop: to write the
/// stores out would make most of the program that the driver compiles.
fn store_block(block: Block, first_row: u32, first: u32) {
    var sums = array<mat4x4<f32>, 8>(
        block.q0, block.q1, block.q2, block.q3, block.q4, block.q5, block.q6, block.q7,
    );
    for (var part = 0u; part < ROWS * COLUMNS / LANES; part += 1u) {
        let own_column = part % (COLUMNS / LANES);
        let own_row = part / (COLUMNS / LANES);
        let row = first_row + own_row;
        let column = first + own_column * COLUMN_STEP;
        if row < params.rows && column < params.columns {
            store_one(row, column, scaled_one(sums[own_row / 4u][own_column][own_row % 4u], column));
        }
    }
}
