//! Prompts in CLIP's own vocabulary, plain and weighted.

#![no_main]

use std::sync::LazyLock;

use deepcache::tokenizer::{ClipTokenizer, parse_weighted};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<ClipTokenizer> =
    LazyLock::new(|| ClipTokenizer::embedded().expect("the library's own files"));

fuzz_target!(|text: &str| {
    if let Ok(encoded) = TOKENIZER.encode(text) {
        assert_eq!(encoded.ids.len(), TOKENIZER.max_length(), "every prompt has the same number of ids");
    }
    let Ok(parts) = parse_weighted(text) else { return };
    if let Ok(chunks) = TOKENIZER.encode_chunks(&parts) {
        assert_eq!(chunks.ids.len(), chunks.weights.len(), "every id has a weight");
        assert!(chunks.ids.len().is_multiple_of(TOKENIZER.max_length()), "chunks are whole");
        assert!(chunks.weights.iter().all(|weight| weight.is_finite()), "weights are numbers");
    }
});
