//! finish_columns: hands sums to `finish_word(row, column, columns, biased)`, word by word.

/// The sums of the columns of one word with their biases.
fn biased(sums: vec4<f32>, column: u32) -> vec4<f32> {
    return scaled(sums, column) + load_bias(column);
}

/// Four columns, as far as there are any.
fn finish(row: u32, column: u32, sums: vec4<f32>) {
    let columns = params.columns;
    if column >= columns {
        return;
    }
    if WORD == 4u {
        finish_word(row, column, columns, biased(sums, column));
        return;
    }
    finish_word(row, column, columns, biased(vec4(sums.x), column));
    if column + 1u < columns { finish_word(row, column + 1u, columns, biased(vec4(sums.y), column + 1u)); }
    if column + 2u < columns { finish_word(row, column + 2u, columns, biased(vec4(sums.z), column + 2u)); }
    if column + 3u < columns { finish_word(row, column + 3u, columns, biased(vec4(sums.w), column + 3u)); }
}
