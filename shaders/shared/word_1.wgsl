//! word_1: rows of any length, read and written value by value.

alias Word = Element;
alias Sum = f32;

/// One of its values.
fn value_of(word: Word, index: u32) -> Element {
    return word;
}

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
