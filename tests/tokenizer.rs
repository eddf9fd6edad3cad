//! The CLIP tokenizer against transformers, and on damaged files.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a panic is how a test fails")]

mod support;

use std::path::Path;

use deepcache::error::Error;
use deepcache::tokenizer::ClipTokenizer;
use serde_json::{Value, json};
use support::{Goldens, repository};

const SMALL: &str = "tests/goldens/sd1/model/tokenizer";

fn ids(row: &Value) -> Vec<u32> {
    row["ids"].as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// Compares with the ids of a golden list, which are neither cut off nor padded.
fn assert_rows(tokenizer: &ClipTokenizer, goldens: &Value, padding: u32) {
    let rows = goldens["rows"].as_array().unwrap();
    for row in rows {
        let prompt = row["prompt"].as_str().unwrap();
        let mut expected = ids(row);
        let tokens = expected.len() - 2;
        let end = expected.pop().unwrap();
        expected.truncate(tokenizer.max_length() - 1);
        expected.push(end);
        expected.resize(tokenizer.max_length(), padding);
        let encoded = tokenizer.encode(prompt).unwrap();
        assert_eq!(encoded.ids, expected, "{prompt:?}");
        assert_eq!(encoded.tokens, tokens, "{prompt:?}");
        assert_eq!(encoded.truncated.is_some(), tokens > tokenizer.max_length() - 2, "{prompt:?}");
    }
    println!("{} prompts agree", rows.len());
}

/// Compares with the padded ids of a golden tensor.
fn assert_tensor(tokenizer: &ClipTokenizer, goldens: &Value, tensors: &Goldens) {
    let expected = tensors.tensor("out.input_ids");
    let rows = goldens["rows"].as_array().unwrap();
    assert_eq!(expected.shape, [rows.len(), tokenizer.max_length()], "one row per prompt");
    for (row, expected) in rows.iter().zip(expected.values.chunks_exact(tokenizer.max_length())) {
        let prompt = row["prompt"].as_str().unwrap();
        let got: Vec<f64> = tokenizer.encode(prompt).unwrap().ids.into_iter().map(f64::from).collect();
        assert_eq!(got, expected, "{prompt:?}");
    }
}

#[test]
fn a_small_vocabulary_encodes_as_in_transformers() {
    let tokenizer = ClipTokenizer::open(repository(SMALL)).unwrap();
    let goldens = support::json("sd1/golden/tokens.json");
    assert_rows(&tokenizer, &goldens, 818);
    assert_tensor(&tokenizer, &goldens, &Goldens::open("sd1/golden/tokens.safetensors"));
}

#[test]
fn tokenizers_pad_with_the_token_of_their_files() {
    for (folder, tokens, padding) in [
        ("sd2/model/tokenizer", "sd2/golden/tokens", 0),
        ("sdxl/model/tokenizer", "sdxl/golden/tokens", 818),
        ("sdxl/model/tokenizer_2", "sdxl/golden/tokens_2", 0),
    ] {
        let tokenizer = ClipTokenizer::open(repository(&format!("tests/goldens/{folder}"))).unwrap();
        let goldens = support::json(&format!("{tokens}.json"));
        assert_rows(&tokenizer, &goldens, padding);
        assert_tensor(&tokenizer, &goldens, &Goldens::open(&format!("{tokens}.safetensors")));
    }
}

#[test]
fn the_clip_vocabulary_encodes_as_in_transformers() {
    let goldens = support::json("clip-tokenizer/tokens.json");
    let tensors = Goldens::open("clip-tokenizer/tokens.safetensors");
    let whole = ClipTokenizer::open(repository("assets/clip-tokenizer")).unwrap();
    for tokenizer in [whole, ClipTokenizer::embedded().unwrap()] {
        assert_eq!(tokenizer.vocabulary_size(), 49408, "tokens");
        assert_rows(&tokenizer, &goldens, 49407);
        assert_tensor(&tokenizer, &goldens, &tensors);
    }
}

#[test]
fn the_tiny_vocabulary_encodes_with_and_without_tokenizer_json() {
    let directory = repository("assets/tiny/tokenizer");
    let goldens = support::json("tokenizer/tiny.json");
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).unwrap();
    }
    for directory in [&directory, copy.path()] {
        let tokenizer = ClipTokenizer::open(directory).unwrap();
        assert_eq!(tokenizer.max_length(), 24);
        for row in goldens["rows"].as_array().unwrap() {
            let prompt = row["prompt"].as_str().unwrap();
            assert_eq!(tokenizer.encode(prompt).unwrap().ids, ids(row), "{prompt:?}");
        }
    }
}

#[test]
fn what_does_not_fit_is_given_back_as_text() {
    let tokenizer = ClipTokenizer::open(repository("assets/clip-tokenizer")).unwrap();
    let prompt = format!("{}Red fox, snow!", "word ".repeat(75));
    let encoded = tokenizer.encode(&prompt).unwrap();
    assert_eq!(encoded.truncated.as_deref(), Some("red fox , snow !"));
    assert_eq!((encoded.tokens, encoded.ids.len()), (80, 77));
    assert_eq!((encoded.ids[0], encoded.ids[76]), (49406, 49407));
    let encoded = tokenizer.encode(&"word ".repeat(75)).unwrap();
    assert_eq!((encoded.tokens, encoded.truncated), (75, None));
}

/// A copy of the small tokenizer in which some files are replaced, or removed where there is no text.
fn changed(changes: &[(&str, Option<String>)]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(repository(SMALL).join(name), copy.path().join(name)).unwrap();
    }
    for (name, text) in changes {
        match text {
            Some(text) => std::fs::write(copy.path().join(name), text).unwrap(),
            None => std::fs::remove_file(copy.path().join(name)).unwrap(),
        }
    }
    copy
}

fn with_config(config: Value) -> tempfile::TempDir {
    changed(&[("tokenizer_config.json", Some(config.to_string())), ("special_tokens_map.json", None)])
}

fn read(name: &str) -> String {
    std::fs::read_to_string(repository(SMALL).join(name)).unwrap()
}

#[test]
fn a_padding_sign_of_its_own_is_also_found_in_the_prompt() {
    // Stable Diffusion 2 pads with "!", which transformers then no longer joins with its neighbours.
    let map = json!({"pad_token": "!", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"});
    let directory = changed(&[("special_tokens_map.json", Some(map.to_string()))]);
    let tokenizer = ClipTokenizer::open(directory.path()).unwrap();
    let encoded = tokenizer.encode("!!! ??? ... ,,, ;;;").unwrap();
    let expected = [817, 0, 0, 0, 30, 30, 286, 13, 13, 269, 11, 11, 267, 26, 26, 282, 818, 0, 0];
    assert_eq!(encoded.ids[..19], expected);
}

#[test]
fn special_tokens_in_capitals_count_only_where_the_files_say_so() {
    let prompt = "<|StartOfText|> x";
    let normalized = ClipTokenizer::open(repository(SMALL)).unwrap();
    assert_eq!(normalized.encode(prompt).unwrap().ids[..4], [817, 817, 343, 818]);
    let map = json!({"bos_token": "<|startoftext|>"});
    let directory = changed(&[("special_tokens_map.json", Some(map.to_string()))]);
    let exact = ClipTokenizer::open(directory.path()).unwrap();
    assert!(exact.encode(prompt).unwrap().tokens > 2, "cut into pieces");
    let listed = json!({"817": {"content": "<|startoftext|>", "normalized": true, "special": true}});
    let config = json!({"added_tokens_decoder": listed, "bos_token": "<|startoftext|>"});
    let directory = changed(&[("tokenizer_config.json", Some(config.to_string()))]);
    let listed = ClipTokenizer::open(directory.path()).unwrap();
    assert_eq!(listed.encode(prompt).unwrap().ids[..4], [817, 817, 343, 818]);
}

#[test]
fn tokenizer_json_and_vocabulary_with_merges_agree() {
    let vocabulary: Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let lines = read("merges.txt");
    let lines = lines.lines().skip(1).filter(|line| !line.is_empty());
    let merges: Vec<Value> = lines
        .enumerate()
        .map(|(index, line)| match line.split_once(' ') {
            Some((left, right)) if index % 2 == 0 => json!([left, right]),
            _ => json!(line),
        })
        .collect();
    let model = json!({"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocabulary, "merges": merges});
    let added = json!([{"id": 818, "content": "<|endoftext|>", "normalized": false, "special": true}]);
    let whole = json!({"model": model, "added_tokens": added}).to_string();
    let directory = changed(&[("tokenizer.json", Some(whole)), ("vocab.json", None), ("merges.txt", None)]);
    let tokenizer = ClipTokenizer::open(directory.path()).unwrap();
    assert_rows(&tokenizer, &support::json("sd1/golden/tokens.json"), 818);
}

#[test]
fn a_length_that_is_absent_or_absurd_is_that_of_clip() {
    let length = |config: Value| {
        ClipTokenizer::open(with_config(config).path()).map(|tokenizer| tokenizer.max_length())
    };
    assert_eq!(length(json!({})).unwrap(), 77);
    assert_eq!(length(json!({"model_max_length": 1e30})).unwrap(), 77);
    assert_eq!(length(json!({"model_max_length": u64::MAX})).unwrap(), 77);
    assert_eq!(length(json!({"model_max_length": 24})).unwrap(), 24);
    for wrong in [json!(1), json!(-3), json!(7.5), json!("77")] {
        let error = length(json!({"model_max_length": wrong})).unwrap_err();
        assert!(
            matches!(&error, Error::Config { key: Some(key), .. } if key == "model_max_length"),
            "{error}"
        );
    }
    let shortest = with_config(json!({"model_max_length": 2}));
    let encoded = ClipTokenizer::open(shortest.path()).unwrap().encode("a fox").unwrap();
    assert_eq!(encoded.ids, [817, 818]);
    assert!(encoded.truncated.is_some(), "nothing fits");
}

#[test]
fn damaged_files_are_named() {
    let vocabulary = |change: &dyn Fn(&mut Value)| {
        let mut vocabulary: Value = serde_json::from_str(&read("vocab.json")).unwrap();
        change(&mut vocabulary);
        Some(vocabulary.to_string())
    };
    let merges = |line: &str| Some(format!("#version: 0.2\n{line}\n"));
    let cases = [
        ("vocab.json", Some("{".to_owned()), "vocab.json: is not JSON"),
        ("vocab.json", Some("[]".to_owned()), "vocab.json: expected a JSON object"),
        ("vocab.json", Some("{}".to_owned()), "line 2: the vocabulary lacks"),
        (
            "vocab.json",
            vocabulary(&|all| all["a"] = json!(5_000_000_000_u64)),
            "key \"a\": expected an id from 0",
        ),
        (
            "vocab.json",
            vocabulary(&|all| all["a"] = json!(1_000_000)),
            "key \"a\": expected an id from 0 to 818",
        ),
        ("vocab.json", vocabulary(&|all| all["a"] = json!(-1)), "key \"a\": expected an id from 0"),
        ("vocab.json", vocabulary(&|all| all["b"] = all["a"].clone()), "is taken twice"),
        ("vocab.json", None, "vocab.json: cannot read"),
        ("merges.txt", merges("it"), "merges.txt: line 2: expected two tokens"),
        ("merges.txt", merges("i t s"), "merges.txt: line 2: expected two tokens"),
        ("merges.txt", merges("i \u{4e2d}"), "merges.txt: line 2: the vocabulary lacks"),
        ("merges.txt", merges("zz</w> q"), "merges.txt: line 2: the vocabulary lacks"),
        ("merges.txt", None, "merges.txt: cannot read"),
        ("special_tokens_map.json", Some("nonsense".to_owned()), "special_tokens_map.json: is not JSON"),
        (
            "special_tokens_map.json",
            Some(r#"{"bos_token": 3}"#.to_owned()),
            "key \"bos_token\": expected a text",
        ),
        ("special_tokens_map.json", Some(r#"{"bos_token": "<s>"}"#.to_owned()), "the \"bos_token\""),
        ("special_tokens_map.json", Some(r#"{"pad_token": ""}"#.to_owned()), "the \"pad_token\""),
        ("tokenizer_config.json", Some("{\"added_tokens_decoder\": 1}".to_owned()), "expected an object"),
        (
            "tokenizer_config.json",
            Some(r#"{"added_tokens_decoder": {"x": "a"}}"#.to_owned()),
            "expected an id from 0 to 4294967295, found \"x\"",
        ),
        ("tokenizer.json", Some("{}".to_owned()), "tokenizer.json: key \"model\": expected an object"),
        ("tokenizer.json", Some(r#"{"model": {"type": "Unigram"}}"#.to_owned()), "expected \"type\" \"BPE\""),
        (
            "tokenizer.json",
            Some(r#"{"model": {"vocab": {}}}"#.to_owned()),
            "expected \"merges\" to be a list",
        ),
        (
            "tokenizer.json",
            Some(r#"{"model": {"vocab": {}, "merges": [7]}}"#.to_owned()),
            "merge 0: expected two",
        ),
        ("added_tokens.json", Some(r#"{"<new>": 900}"#.to_owned()), "expected id 900 as declared"),
    ];
    for (name, text, expected) in cases {
        let directory = changed(&[(name, text)]);
        let error = ClipTokenizer::open(directory.path()).unwrap_err();
        assert!(matches!(error, Error::Config { .. } | Error::Io { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(expected), "{name}: expected {expected:?} in {error}");
    }
    let mut lacking: Value = serde_json::from_str(&read("vocab.json")).unwrap();
    lacking.as_object_mut().unwrap().remove("<|endoftext|>");
    let directory = changed(&[("vocab.json", Some(lacking.to_string()))]);
    let error = ClipTokenizer::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("lacks this token, the \"eos_token\""), "{error}");
    let error = ClipTokenizer::open(Path::new("does/not/exist")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

#[test]
fn tokens_beyond_the_vocabulary_take_the_next_ids() {
    let directory = changed(&[("added_tokens.json", Some(r#"{"<new>": 819}"#.to_owned()))]);
    let tokenizer = ClipTokenizer::open(directory.path()).unwrap();
    assert_eq!(tokenizer.encode("<new>").unwrap().ids[..3], [817, 819, 818]);
}
