//! partial_sums: stores the sums of one of PARTS ranges of terms, for a second shader that adds them up.

override PARTS: u32 = 1u;

/// Four columns of the row that begins at `row`, from `column` on.
fn store_four(row: u32, column: u32, values: vec4<f32>) {
    let at = row + column;
    let behind = params.columns - column;
    if WORD == 4u {
        sums[at / WORD] = narrow_sum(scaled(values, column));
        return;
    }
    sums[at] = narrow_sum(scaled(values, column));
    if behind > 1u { sums[at + 1u] = narrow_sum(scaled(values.yyyy, column + 1u)); }
    if behind > 2u { sums[at + 2u] = narrow_sum(scaled(values.zzzz, column + 2u)); }
    if behind > 3u { sums[at + 3u] = narrow_sum(scaled(values.wwww, column + 3u)); }
}

/// The part that this workgroup works on.
var<private> part: u32;

fn store_row(row: u32, column: u32, lower: vec4<f32>, upper: vec4<f32>) {
    if row >= params.rows {
        return;
    }
    let at = (part * params.rows + row) * params.columns;
    if column < params.columns {
        store_four(at, column, lower);
    }
    let other = column + UPPER;
    if LANE_COLUMNS == 8u && other < params.columns {
        store_four(at, other, upper);
    }
}
