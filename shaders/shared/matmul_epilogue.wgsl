//! matmul_epilogue: what follows the sums: bias, activation, residual, and the store.

override HAS_BIAS: bool = false;
override HAS_RESIDUAL: bool = false;

/// The biases of the columns of one word.
fn load_bias(column: u32) -> vec4<f32> {
    if !HAS_BIAS {
        return vec4(0.0);
    }
    if WORD == 1u {
        return vec4(bias[column]);
    }
    return vec4(bias[column], bias[column + 1u], bias[column + 2u], bias[column + 3u]);
}

/// One word of the output, of rows of `columns` values.
fn finish_word(row: u32, column: u32, columns: u32, biased: vec4<f32>) {
    let at = (row * columns + column) / WORD;
    var values = vec4(activate(biased.x), activate(biased.y), activate(biased.z), activate(biased.w));
    if HAS_RESIDUAL {
        values += widen(residual[at]);
    }
    output[at] = narrow(values);
}
