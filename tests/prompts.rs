//! Prompts: their syntax, chunks, weights and CLIP skip, and whole runs of them against diffusers and text encoders of
//! transformers.

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::collections::HashMap;
use std::ops::ControlFlow;

use deepcache::Error;
use deepcache::pipelines::{Condition, DiffusionPipeline, PromptSyntax, Request, StorageType};
use deepcache::tokenizer::{ClipTokenizer, Part, parse_weighted};
use loops::{load, number, run};
use support::{Goldens, assert_close, repository};

fn model(name: &str) -> DiffusionPipeline {
    load(&repository(&format!("tests/goldens/{name}/model")), StorageType::F32)
}

fn prompt(text: &str, negative: &str) -> Condition {
    Condition::Prompt { prompt: text.to_owned(), negative_prompt: negative.to_owned() }
}

/// Parts as text, weight and whether they begin a chunk.
fn parts(text: &str) -> Vec<(String, f64, bool)> {
    let parts = parse_weighted(text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    parts.into_iter().map(|part| (part.text, (part.weight * 1e9).round() / 1e9, part.begins_chunk)).collect()
}

#[test]
fn runs_agree_with_the_reference() {
    let mut models: HashMap<String, DiffusionPipeline> = HashMap::new();
    for case in support::json("prompts/runs.json")["runs"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let pipeline = models.entry(text("model").to_owned()).or_insert_with(|| model(text("model")));
        let request = Request {
            condition: prompt(text("prompt"), text("negative_prompt")),
            prompt_syntax: text("syntax").parse().unwrap(),
            clip_skip: number(&case["clip_skip"]),
            steps: Some(number(&case["num_inference_steps"])),
            guidance_scale: case["guidance_scale"].as_f64(),
            seed: case["seed"].as_u64().unwrap(),
            height: Some(number(&case["height"])),
            width: Some(number(&case["width"])),
            ..Request::unconditional()
        };
        let generation = run(pipeline, &request);
        let expected = Goldens::open(&format!("prompts/{}", text("file"))).values("out.latents");
        let found: Vec<f64> = generation.latents.values().iter().map(|&value| value.into()).collect();
        assert_close(text("file"), &found, &expected, 5e-4, 2.5e-3);
    }
}

#[test]
fn a_short_prompt_without_brackets_is_the_same_in_both_syntaxes() {
    let mut pipeline = model("sd1");
    let plain = Request {
        steps: Some(2),
        width: Some(64),
        height: Some(64),
        condition: prompt("a castle on a hill", "dark"),
        ..Request::unconditional()
    };
    let weighted = Request { prompt_syntax: PromptSyntax::Weighted, ..plain.clone() };
    let [plain, weighted] = [plain, weighted].map(|request| run(&mut pipeline, &request));
    assert!(plain.latents.values() == weighted.latents.values(), "the same to the last bit");
    assert!(plain.warnings.is_empty() && weighted.warnings.is_empty(), "nothing to be told");
}

#[test]
fn plain_syntax_tells_what_weighted_syntax_would_read() {
    let mut pipeline = model("sd1");
    let mut told = |text: &str, prompt_syntax| {
        let condition = prompt(text, "");
        let steps = Some(1);
        let (width, height) = (Some(64), Some(64));
        let request = Request { condition, prompt_syntax, steps, width, height, ..Request::unconditional() };
        run(&mut pipeline, &request).warnings
    };
    let long = "a red boat on the sea and ".repeat(30);
    for (text, words) in
        [("a (red:1.2) boat", "has weights"), ("a BREAK b", "BREAK"), (&long, "longer than 75")]
    {
        let warnings = told(text, PromptSyntax::Plain);
        assert!(warnings.len() == 1 && warnings[0].contains(words), "{text}: {warnings:?}");
        assert!(warnings[0].contains("weighted"), "{warnings:?}");
        assert!(told(text, PromptSyntax::Weighted).is_empty(), "{text}");
    }
    assert!(told("a boat (old)", PromptSyntax::Plain).is_empty(), "brackets alone may be text");
}

#[test]
fn brackets_multiply_weights() {
    let one = |text: &str, weight: f64| (text.to_owned(), weight, false);
    assert_eq!(parts("a (word) b"), [one("a ", 1.0), one("word", 1.1), one(" b", 1.0)]);
    assert_eq!(parts("(word:1.3)"), [one("word", 1.3)]);
    assert_eq!(parts("(word: -.5 )"), [one("word", -0.5)]);
    assert_eq!(parts("[word]"), [one("word", 0.909_090_909)]);
    assert_eq!(parts("((a) b:2)"), [one("a", 2.2), one(" b", 2.0)]);
    assert_eq!(parts("[(a)]b"), [one("a", 1.0), one("b", 1.0)].map(|_| one("ab", 1.0))[..1]);
    assert_eq!(parts("[a:1.5]"), [one("a:1.5", 0.909_090_909)]);
    assert_eq!(parts("(a:b)(c:1.2.3)(d:1e1)"), [one("a:bc:1.2.3d:1e1", 1.1)]);
    assert_eq!(parts("()[](:2)"), []);
    assert_eq!(parts("(a:0)"), [one("a", 0.0)]);
}

#[test]
fn escaped_and_unpaired_brackets_are_text() {
    let one = |text: &str, weight: f64| (text.to_owned(), weight, false);
    assert_eq!(parts(r"\(a\) \[b\] \\ \c \"), [one(r"(a) [b] \ \c \", 1.0)]);
    assert_eq!(parts(r"(a \(b\):1.5)"), [one("a (b)", 1.5)]);
    assert_eq!(parts("a :) b"), [one("a :) b", 1.0)]);
    assert_eq!(parts("(a"), [one("(a", 1.0)]);
    assert_eq!(parts("(a ("), [one("(a (", 1.0)]);
    assert_eq!(parts("((a)"), [one("(", 1.0), one("a", 1.1)]);
    assert_eq!(parts("( [ ) ]"), [one(" [ ", 1.1), one(" ]", 1.0)]);
    assert_eq!(parts("]["), [one("][", 1.0)]);
}

#[test]
fn breaks_are_words_of_their_own() {
    let found =
        |text: &str| parts(text).into_iter().map(|(text, _, begins)| (text, begins)).collect::<Vec<_>>();
    assert_eq!(found("a BREAK b"), [("a ".to_owned(), false), (" b".to_owned(), true)]);
    assert_eq!(found("aBREAK BREAKS break éBREAK"), [("aBREAK BREAKS break éBREAK".to_owned(), false)]);
    assert_eq!(parts("(a BREAK b:2)"), [("a ".to_owned(), 2.0, false), (" b".to_owned(), 2.0, true)]);
    assert_eq!(found("BREAK,BREAK"), [(",".to_owned(), true)]);
}

#[test]
fn weights_out_of_range_are_refused() {
    let deep = format!("{}a{}", "(".repeat(100), ")".repeat(100));
    for text in ["(a:101)", "((a:20):20)", "(a:-100.5)", &deep, &format!("(a:{})", "9".repeat(400))] {
        match parse_weighted(text) {
            Err(Error::Option { option, problem }) => {
                assert_eq!(option, "prompt", "{problem}");
                assert!(problem.contains("from -100 to 100"), "{problem}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let request = Request {
        condition: prompt("a boat", "(dark:1000)"),
        prompt_syntax: PromptSyntax::Weighted,
        ..Request::unconditional()
    };
    let error = model("sd1").generate(&request, |_| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().starts_with("negative prompt: expected weights"), "{error}");
    assert!("brackets".parse::<PromptSyntax>().is_err(), "no such syntax");
}

#[test]
fn what_a_model_cannot_do_is_refused() {
    let small = Request { steps: Some(1), width: Some(64), height: Some(64), ..Request::prompt("a boat") };
    let refuse = |name: &str, request: &Request, words: &[&str]| {
        let error = model(name).generate(request, |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error:?}");
        words.iter().for_each(|word| assert!(error.to_string().contains(word), "{error}: {word}"));
    };
    let skip = |clip_skip| Request { clip_skip, ..small.clone() };
    refuse("sd1", &skip(1000), &["clip skip", "0 to ", "found 1000"]);
    refuse("sdxl", &skip(3), &["clip skip", "0 to 2", "found 3"]);
    refuse("ldm4g", &Request { clip_skip: 1, ..Request::class_label(1) }, &["clip skip", "no text encoder"]);
    let endless = Request {
        condition: prompt(&"a ".repeat(75 * 64 + 1), ""),
        prompt_syntax: PromptSyntax::Weighted,
        ..small.clone()
    };
    refuse("sd1", &endless, &["prompt", "65 chunks", "64"]);
    run(&mut model("sdxl"), &skip(2));
}

#[test]
fn chunks_hold_every_token_once() {
    let tokenizer = ClipTokenizer::embedded().unwrap();
    let words = |count: usize| Part { text: "red ".repeat(count), weight: 1.0, begins_chunk: false };
    for (count, chunks) in [(0, 1), (1, 1), (75, 1), (76, 2), (150, 2), (151, 3)] {
        let found = tokenizer.encode_chunks(&[words(count)]).unwrap();
        assert_eq!((found.count, found.ids.len()), (chunks, 77 * chunks), "{count} tokens");
        let red = tokenizer.encode("red").unwrap().ids[1];
        assert_eq!(found.ids.iter().filter(|id| **id == red).count(), count, "{count} tokens");
        let begin = found.ids.chunks(77).filter(|chunk| chunk[0] == 49_406).count();
        assert_eq!(begin, chunks, "every chunk begins");
        assert!(!found.is_weighted(), "no weights");
    }
    let broken = |text: &str| tokenizer.encode_chunks(&parse_weighted(text).unwrap()).unwrap();
    assert_eq!(broken("a BREAK b").count, 2, "a break");
    assert_eq!(broken("BREAK a BREAK BREAK b BREAK").count, 2, "no empty chunks");
    let weighted = broken("a (red:1.5) boat");
    assert_eq!(weighted.weights[..5], [1.0, 1.0, 1.5, 1.0, 1.0], "weights of tokens");
    assert!(weighted.is_weighted(), "weights");
    assert_eq!(weighted.ids, tokenizer.encode("a red boat").unwrap().ids, "the same tokens");
}

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

/// What is not a bracket, a backslash, a number behind a colon or a break comes out as it went in, whatever is around it.
#[test]
fn random_prompts_keep_their_words() {
    const SIGNS: [&str; 30] = [
        "(",
        ")",
        "[",
        "]",
        "\\",
        ":",
        "1.5",
        "0",
        "-",
        ".",
        ",",
        "BREAK",
        " ",
        "\n",
        "a",
        "red",
        "é",
        "e\u{301}",
        "日本",
        "🦊",
        "\u{200d}",
        "\u{0}",
        "\u{feff}",
        "ß",
        "İ",
        "<|endoftext|>",
        "\u{202e}",
        "ﬁ",
        "\u{10ffff}",
        "(a:1.1)",
    ];
    let tokenizer = ClipTokenizer::embedded().unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for round in 0..4000 {
        let length = random.below(60);
        let text: String = (0..length).map(|_| SIGNS[random.below(SIGNS.len())]).collect();
        let Ok(parts) = parse_weighted(&text) else {
            refused += 1;
            continue;
        };
        let words = |text: &str| -> String {
            text.replace("BREAK", "").chars().filter(|sign| sign.is_alphabetic()).collect()
        };
        let joined: Vec<String> = parts.iter().map(|part| words(&part.text)).collect();
        assert_eq!(joined.concat(), words(&text), "{text:?}");
        assert!(parts.iter().all(|part| part.weight.is_finite() && !part.text.is_empty()), "{text:?}");
        let again: String = parts.iter().map(|part| escaped(&part.text)).collect();
        let once = parse_weighted(&again).unwrap();
        assert!(once.iter().all(|part| part.weight == 1.0), "escaped text has no weights: {again:?}");
        if round % 4 == 0 {
            let chunks = tokenizer.encode_chunks(&parts).unwrap();
            assert_eq!(chunks.ids.len(), chunks.count * 77, "{text:?}");
            assert_eq!(chunks.weights.len(), chunks.ids.len(), "{text:?}");
        }
    }
    println!("{refused} of 4000 were refused for their weights");
    assert!(refused < 1000, "most are read");
}

fn escaped(text: &str) -> String {
    let sign = |sign: char| if "()[]\\".contains(sign) { format!("\\{sign}") } else { sign.to_string() };
    text.chars().map(sign).collect()
}

#[test]
fn deep_and_long_prompts_are_read_soon() {
    let started = std::time::Instant::now();
    for text in [
        "(".repeat(200_000),
        ")".repeat(200_000),
        "[(".repeat(100_000) + &"]".repeat(100_000),
        "(]".repeat(100_000),
        format!("{}a{}", "[".repeat(100_000), "]".repeat(100_000)),
        "BREAK ".repeat(50_000),
    ] {
        parse_weighted(&text).unwrap();
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
