//! finish_columns: hands sums to `finish_word(row, column, columns, biased)`, word by word.

/// Four columns, as far as there are any.
fn finish(row: u32, column: u32, sums: vec4<f32>) {
    let columns = params.columns;
    if column >= columns {
        return;
    }
    if WORD == 4u {
        finish_word(row, column, columns, sums + load_bias(column));
        return;
    }
    finish_word(row, column, columns, vec4(sums.x) + load_bias(column));
    if column + 1u < columns { finish_word(row, column + 1u, columns, vec4(sums.y) + load_bias(column + 1u)); }
    if column + 2u < columns { finish_word(row, column + 2u, columns, vec4(sums.z) + load_bias(column + 2u)); }
    if column + 3u < columns { finish_word(row, column + 3u, columns, vec4(sums.w) + load_bias(column + 3u)); }
}
