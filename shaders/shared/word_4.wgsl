//! word_4: rows of a multiple of four values, read and written four at a time.

alias Word = vec4<Element>;
alias Sum = vec4<f32>;

/// One of its values.
fn value_of(word: Word, index: u32) -> Element {
    return word[index];
}

fn widen(word: Word) -> vec4<f32> {
    return vec4<f32>(word);
}

fn narrow(values: vec4<f32>) -> Word {
    return Word(values);
}

fn narrow_sum(values: vec4<f32>) -> Sum {
    return values;
}
