//! weight_words: weights that are stored as activations are, read word by word.

alias WeightWord = Word;

/// The word that begins with value `at`.
fn weight_word(at: u32) -> Word {
    return weight[at / WORD];
}

/// The same, as f32.
fn weight_values(at: u32) -> vec4<f32> {
    return widen(weight[at / WORD]);
}

/// The sums of the columns of one word; nothing remains to be done.
fn scaled(sums: vec4<f32>, column: u32) -> vec4<f32> {
    return sums;
}

/// The sum of one column.
fn scaled_one(sum: f32, column: u32) -> f32 {
    return sum;
}
