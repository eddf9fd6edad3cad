//! Prompts in CLIP's own vocabulary.

#![no_main]

use std::sync::LazyLock;

use deepcache::tokenizer::ClipTokenizer;
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<ClipTokenizer> =
    LazyLock::new(|| ClipTokenizer::embedded().expect("the library's own files"));

fuzz_target!(|text: &str| {
    if let Ok(encoded) = TOKENIZER.encode(text) {
        assert_eq!(encoded.ids.len(), TOKENIZER.max_length(), "every prompt has the same number of ids");
    }
});
