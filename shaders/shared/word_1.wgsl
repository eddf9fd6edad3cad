//! word_1: rows of any length, read and written value by value.

const WORD: u32 = 1u;
alias Word = Element;
alias Sum = f32;

/// The value, four times.
fn widen(word: Word) -> vec4<f32> {
    return vec4(f32(word));
}

fn narrow(values: vec4<f32>) -> Word {
    return Word(values.x);
}

fn narrow_sum(values: vec4<f32>) -> Sum {
    return values.x;
}
