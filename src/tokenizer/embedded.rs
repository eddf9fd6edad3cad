//! The vocabulary of CLIP, with which the text encoder of every Stable Diffusion 1 model was trained.

use tokenizers::models::bpe::Vocab;

use super::END_OF_WORD;

/// Pairs in the order in which they are merged; origin and licence lie beside the file.
pub(super) const MERGES: &str = include_str!("../../assets/clip-tokenizer/merges.txt");
pub(super) const CONFIG: &str = include_str!("../../assets/clip-tokenizer/tokenizer_config.json");
pub(super) const SPECIAL_TOKENS: &str = include_str!("../../assets/clip-tokenizer/special_tokens_map.json");

/// Numbers the signs of the 256 bytes, the same at the end of a word, the result of every merge, and the two special
/// tokens.
pub(super) fn vocabulary() -> Vocab {
    let signs = signs_of_bytes();
    let merged = MERGES.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let tokens = (signs.iter().map(char::to_string))
        .chain(signs.iter().map(|sign| format!("{sign}{END_OF_WORD}")))
        .chain(merged.map(|pair| pair.replace(' ', "")))
        .chain(["<|startoftext|>", "<|endoftext|>"].map(str::to_owned));
    tokens.zip(0..).collect()
}

/// The sign that stands for each byte, in the order of the vocabulary: first the bytes that are visible in Latin-1,
/// then the others, which take signs from U+0100 on.
fn signs_of_bytes() -> Vec<char> {
    let visible = ('!'..='~').chain('\u{a1}'..='\u{ac}').chain('\u{ae}'..='\u{ff}');
    visible.chain('\u{100}'..).take(256).collect()
}
