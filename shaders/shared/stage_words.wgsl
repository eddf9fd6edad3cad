//! stage_words: words that were read go into the workgroup arrays `left` and `right` of the file that uses it.
//!
//! These are of single values, since Metal loads fragments from nothing else.

fn stage_left(at: u32, word: Word) {
    left[at] = value_of(word, 0u);
    if WORD == 4u {
        left[at + 1u] = value_of(word, 1u);
        left[at + 2u] = value_of(word, 2u);
        left[at + 3u] = value_of(word, 3u);
    }
}

fn stage_right(at: u32, word: Word) {
    right[at] = value_of(word, 0u);
    if WORD == 4u {
        right[at + 1u] = value_of(word, 1u);
        right[at + 2u] = value_of(word, 2u);
        right[at + 3u] = value_of(word, 3u);
    }
}
