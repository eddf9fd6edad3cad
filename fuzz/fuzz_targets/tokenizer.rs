//! A tokenizer's folder: its files, and a prompt, between zero bytes.

#![no_main]

mod folder;

use deepcache::tokenizer::ClipTokenizer;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] =
    ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json"];

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.split(|byte| *byte == 0);
    let prompt = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    for name in NAMES {
        match parts.next() {
            Some(text) if !text.is_empty() => drop(folder::write(name, text)),
            _ => drop(std::fs::remove_file(folder::FOLDER.join(name))),
        }
    }
    if let Ok(tokenizer) = ClipTokenizer::open(&*folder::FOLDER) {
        if let Ok(encoded) = tokenizer.encode(&prompt) {
            assert_eq!(encoded.ids.len(), tokenizer.max_length(), "every prompt has the same number of ids");
        }
    }
});
