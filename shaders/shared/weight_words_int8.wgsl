//! weight_words_int8: weights of 8 bits, four in a u32, behind the scales of their columns; read word by word.
//!
//! Products are those of the integers, which f16 and f32 hold exactly. The scale belongs to a whole column, so that it
//! is applied once, to the sum.

alias WeightWord = u32;

/// The integers of the word that begins with value `at`.
fn weight_values(at: u32) -> vec4<f32> {
    let four = unpack4xI8(weight[params.columns + at / 4u]);
    if WORD == 4u {
        return vec4<f32>(four);
    }
    return vec4(f32(four[at % 4u]));
}

/// The same, as activations are stored.
fn weight_word(at: u32) -> Word {
    return narrow(weight_values(at));
}

fn scale_of(column: u32) -> f32 {
    return bitcast<f32>(weight[column]);
}

/// The sums of the columns of one word, multiplied by their scales.
fn scaled(sums: vec4<f32>, column: u32) -> vec4<f32> {
    if WORD == 1u {
        return sums * scale_of(column);
    }
    return sums * vec4(scale_of(column), scale_of(column + 1u), scale_of(column + 2u), scale_of(column + 3u));
}

/// The sum of one column, multiplied by its scale.
fn scaled_one(sum: f32, column: u32) -> f32 {
    return sum * scale_of(column);
}
