//! conv2d_epilogue: what follows the sums: bias, time embedding, residual, activation, and the store.

override HAS_BIAS: bool = false;
override HAS_TIME: bool = false;
override HAS_RESIDUAL: bool = false;

/// What is added to the columns of one word in every row.
fn load_bias(column: u32) -> vec4<f32> {
    var values = vec4(0.0);
    if HAS_BIAS && WORD == 4u {
        values = vec4(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]);
    } else if HAS_BIAS {
        values = vec4(bias[column]);
    }
    if HAS_TIME {
        values += widen(time[(step[0] * params.columns + column) / WORD]);
    }
    return values;
}

/// One word of the output, of rows of `columns` values.
fn finish_word(row: u32, column: u32, columns: u32, biased: vec4<f32>) {
    let at = (row * columns + column) / WORD;
    var values = biased;
    if HAS_RESIDUAL {
        values += widen(residual[at]);
    }
    output[at] = narrow(vec4(activate(values.x), activate(values.y), activate(values.z), activate(values.w)));
}
