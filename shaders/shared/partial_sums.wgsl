//! partial_sums: stores the sums of one of PARTS ranges of terms, for a second shader that adds them up.

override PARTS: u32 = 1u;

/// Four columns from `at` on, `behind` of them before the end of the row.
fn store_four(at: u32, behind: u32, values: vec4<f32>) {
    if WORD == 4u {
        sums[at / WORD] = narrow_sum(values);
        return;
    }
    sums[at] = narrow_sum(values);
    if behind > 1u { sums[at + 1u] = narrow_sum(values.yyyy); }
    if behind > 2u { sums[at + 2u] = narrow_sum(values.zzzz); }
    if behind > 3u { sums[at + 3u] = narrow_sum(values.wwww); }
}

/// The part that this workgroup works on.
var<private> part: u32;

fn store_row(row: u32, column: u32, lower: vec4<f32>, upper: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    let at = (part * params.rows + row) * params.columns;
    if column < params.columns {
        store_four(at + column, params.columns - column, lower);
    }
    let other = column + UPPER;
    if LANE_COLUMNS == 8u && other < params.columns {
        store_four(at + other, params.columns - other, upper);
    }
}
