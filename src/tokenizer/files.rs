//! The files of a tokenizer directory: vocabulary, merges, special tokens.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use super::{END_OF_WORD, embedded};
use crate::error::{Error, Result};

/// The length of CLIP's context, where a file does not name one.
const CLIP_LENGTH: usize = 77;
/// A longer context than any text encoder has; transformers writes 1e30 for "unknown".
const LONGEST: f64 = 65_536.0;

/// The special tokens that CLIP knows, with the text that stands for each by default.
const SPECIAL: [(&str, &str); 4] = [
    ("bos_token", "<|startoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
    ("pad_token", "<|endoftext|>"),
];
/// Lists of further tokens that are never cut into pieces.
const FURTHER: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// What the files of a directory say.
pub(super) struct Files {
    pub(super) vocabulary_file: PathBuf,
    pub(super) vocabulary: Vocab,
    pub(super) merges: Merges,
    pub(super) max_length: usize,
    /// The text of each of [`SPECIAL`].
    special: [Added; 4],
    /// Tokens with ids of their own, by id.
    declared: Vec<(u32, Added)>,
    further: Vec<Added>,
}

/// A token that is found in the prompt before it is cut into pieces.
#[derive(Clone)]
struct Added {
    file: PathBuf,
    token: AddedToken,
}

impl Files {
    pub(super) fn read(directory: &Path) -> Result<Self> {
        let config = Entries::read(directory.join("tokenizer_config.json"))?.unwrap_or_default();
        let map = Entries::read(directory.join("special_tokens_map.json"))?.unwrap_or_default();
        let whole = Entries::read(directory.join("tokenizer.json"))?;
        let declared = declared_tokens(directory, &config, whole.as_ref())?;
        let words = match &whole {
            Some(whole) => {
                let (vocabulary, merges) = whole.model()?;
                (whole.file.clone(), vocabulary, merges)
            }
            None => {
                let (file, vocabulary) = read_vocabulary(directory.join("vocab.json"))?;
                let merges = read_merges(&directory.join("merges.txt"), &vocabulary)?;
                (file, vocabulary, merges)
            }
        };
        Self::assemble(&config, &map, declared, words)
    }

    /// CLIP's own, which is a part of this library; its vocabulary follows from its merges.
    pub(super) fn embedded() -> Result<Self> {
        let parse =
            |name: &str, text: &str| Entries::parse(Path::new("assets/clip-tokenizer").join(name), text);
        let config = parse("tokenizer_config.json", embedded::CONFIG)?;
        let map = parse("special_tokens_map.json", embedded::SPECIAL_TOKENS)?;
        let vocabulary = embedded::vocabulary();
        let file = PathBuf::from("assets/clip-tokenizer/merges.txt");
        let merges = parse_merges(&file, embedded::MERGES, &vocabulary)?;
        Self::assemble(&config, &map, Vec::new(), (file, vocabulary, merges))
    }

    fn assemble(
        config: &Entries,
        map: &Entries,
        declared: Vec<(u32, Added)>,
        (vocabulary_file, vocabulary, merges): (PathBuf, Vocab, Merges),
    ) -> Result<Self> {
        // The map is the older of the two, and says nothing where the configuration lists its tokens.
        let named = |key: &str| {
            let mapped = if config.get("added_tokens_decoder").is_some() { None } else { map.named(key) };
            mapped.or_else(|| config.named(key))
        };
        let special = |(key, default): (&str, &str)| match named(key) {
            Some((entries, value)) => entries.added_under(key, value),
            None => Ok(Added { file: config.file.clone(), token: AddedToken::from(default, true) }),
        };
        let [begin, end, unknown, padding] = SPECIAL;
        let special = [special(begin)?, special(end)?, special(unknown)?, special(padding)?];
        let mut further = Vec::new();
        for key in FURTHER {
            let Some((entries, Value::Array(tokens))) = named(key) else { continue };
            for token in tokens {
                further.push(entries.added_under(key, token)?);
            }
        }

        let max_length = config.max_length()?;
        Ok(Self { vocabulary_file, vocabulary, merges, max_length, special, declared, further })
    }

    /// The text of a special token.
    pub(super) fn special(&self, key: &str) -> &str {
        let place = SPECIAL.iter().position(|(name, _)| *name == key);
        &self.special[place.unwrap_or_default()].token.content
    }

    /// The id of a special token.
    pub(super) fn id(&self, key: &str) -> Result<u32> {
        let text = self.special(key);
        let declared =
            || self.declared.iter().find(|(_, added)| added.token.content == text).map(|(id, _)| *id);
        self.vocabulary.get(text).copied().or_else(declared).ok_or_else(|| {
            Error::config(
                &self.vocabulary_file,
                text,
                format!("the vocabulary lacks this token, the \"{key}\""),
            )
        })
    }

    /// Every token that is not cut into pieces, in the order in which transformers adds them: of two with one text,
    /// the later counts.
    pub(super) fn added_tokens(&self) -> Vec<AddedToken> {
        let declared = self.declared.iter().map(|(_, added)| &added.token);
        let known =
            |token: &AddedToken| self.declared.iter().any(|(_, added)| added.token.content == token.content);
        let named = self.special.iter().chain(&self.further).map(|added| &added.token);
        declared.chain(named.filter(|token| !known(token))).cloned().collect()
    }

    /// Checks that every token has the id that its file gives it.
    pub(super) fn check_added_ids(&self, id_of: impl Fn(&str) -> Option<u32>) -> Result<()> {
        for (id, Added { file, token }) in &self.declared {
            let found = id_of(&token.content);
            if found != Some(*id) {
                let found = found.map_or_else(|| "none".to_owned(), |id| id.to_string());
                let problem = format!("expected id {id} as declared, the vocabulary gives {found}");
                return Err(Error::config(file, &token.content, problem));
            }
        }
        Ok(())
    }
}

/// The tokens that files give ids to, by id. What the configuration lists is all there is; without a list there,
/// `tokenizer.json` has the last word.
fn declared_tokens(directory: &Path, config: &Entries, whole: Option<&Entries>) -> Result<Vec<(u32, Added)>> {
    const KEY: &str = "added_tokens_decoder";
    let mut declared = Vec::new();
    if let Some(tokens) = config.get(KEY) {
        for (id, token) in config.expect_object(KEY, tokens)? {
            let number = id.parse().map_or_else(|_| Value::from(id.as_str()), |id: u64| Value::from(id));
            declared.push((config.id(KEY, &number)?, config.added(token)?));
        }
    } else {
        if let Some(entries) = Entries::read(directory.join("added_tokens.json"))? {
            for (text, id) in &entries.entries {
                let token = AddedToken::from(text.as_str(), false).normalized(true);
                declared.push((entries.id(text, id)?, Added { file: entries.file.clone(), token }));
            }
        }
        if let Some((whole, Value::Array(tokens))) = whole.and_then(|whole| whole.named("added_tokens")) {
            for token in tokens {
                let id = whole.id("added_tokens", token.get("id").unwrap_or(&Value::Null))?;
                declared.retain(|(other, _)| *other != id);
                declared.push((id, whole.added(token)?));
            }
        }
    }
    declared.sort_by_key(|(id, _)| *id);
    Ok(declared)
}

/// The entries of one JSON file.
#[derive(Default)]
struct Entries {
    file: PathBuf,
    entries: Map<String, Value>,
}

impl Entries {
    /// `None` if there is no such file.
    fn read(file: PathBuf) -> Result<Option<Self>> {
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(file, "read", error)),
        };
        Self::parse(file, &text).map(Some)
    }

    fn parse(file: PathBuf, text: &str) -> Result<Self> {
        match serde_json::from_str(text) {
            Ok(Value::Object(entries)) => Ok(Self { file, entries }),
            Ok(_) => Err(Error::config_file(file, "expected a JSON object")),
            Err(error) => Err(Error::config_file(file, format!("is not JSON: {error}"))),
        }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.entries.get(key).filter(|value| !value.is_null())
    }

    fn named(&self, key: &str) -> Option<(&Self, &Value)> {
        self.get(key).map(|value| (self, value))
    }

    fn expect_object<'a>(&self, key: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
        value.as_object().ok_or_else(|| Error::config(&self.file, key, "expected an object"))
    }

    fn id(&self, key: &str, value: &Value) -> Result<u32> {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            Error::config(&self.file, key, format!("expected an id from 0 to {}, found {value}", u32::MAX))
        })
    }

    fn added(&self, value: &Value) -> Result<Added> {
        self.added_under("added_tokens", value)
    }

    /// A token written as its text, or as an object with "content" and flags.
    fn added_under(&self, key: &str, value: &Value) -> Result<Added> {
        let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
        let Some(text) = text else {
            let problem = format!("expected a text or an object with a \"content\", found {value}");
            return Err(Error::config(&self.file, key, problem));
        };
        let flag = |name: &str| value.get(name).and_then(Value::as_bool).unwrap_or(false);
        let token = AddedToken::from(text, true)
            .normalized(flag("normalized"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"));
        Ok(Added { file: self.file.clone(), token })
    }

    fn max_length(&self) -> Result<usize> {
        let key = "model_max_length";
        let Some(value) = self.get(key) else { return Ok(CLIP_LENGTH) };
        if value.as_f64().is_some_and(|length| length > LONGEST) {
            return Ok(CLIP_LENGTH);
        }
        let length =
            value.as_u64().and_then(|length| usize::try_from(length).ok()).filter(|length| *length >= 2);
        length.ok_or_else(|| {
            let problem = format!("expected a whole number, at least 2 for begin and end; found {value}");
            Error::config(&self.file, key, problem)
        })
    }

    /// The vocabulary and merges of a `tokenizer.json`.
    fn model(&self) -> Result<(Vocab, Merges)> {
        let key = "model";
        let refuse = |problem: String| Error::config(&self.file, key, problem);
        let model = self.expect_object(key, self.get(key).unwrap_or(&Value::Null))?;
        for (entry, expected) in [("type", "BPE"), ("end_of_word_suffix", END_OF_WORD)] {
            if let Some(found) = model.get(entry).filter(|found| found.as_str() != Some(expected)) {
                return Err(refuse(format!(
                    "expected \"{entry}\" \"{expected}\" as CLIP has it, found {found}"
                )));
            }
        }
        let vocabulary = model.get("vocab").unwrap_or(&Value::Null);
        let vocabulary = vocabulary_of(&self.file, self.expect_object("vocab", vocabulary)?)?;
        let Some(list) = model.get("merges").and_then(Value::as_array) else {
            return Err(refuse("expected \"merges\" to be a list".to_owned()));
        };
        let mut merges = Merges::with_capacity(list.len());
        for (index, merge) in list.iter().enumerate() {
            let pair = match merge {
                Value::String(text) => text.split_once(' '),
                Value::Array(pair) => match &pair[..] {
                    [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                    _ => None,
                },
                _ => None,
            };
            let checked = check_merge(pair, &vocabulary);
            merges.push(checked.map_err(|problem| refuse(format!("merge {index}: {problem}")))?);
        }
        Ok((vocabulary, merges))
    }
}

fn read_vocabulary(file: PathBuf) -> Result<(PathBuf, Vocab)> {
    match Entries::read(file.clone())? {
        Some(entries) => Ok((file, vocabulary_of(&entries.file, &entries.entries)?)),
        None => Err(Error::io(file, "read", ErrorKind::NotFound.into())),
    }
}

fn vocabulary_of(file: &Path, entries: &Map<String, Value>) -> Result<Vocab> {
    let mut taken = vec![false; entries.len()];
    let mut vocabulary = Vocab::with_capacity(entries.len());
    for (token, value) in entries {
        let place = value.as_u64().and_then(|id| usize::try_from(id).ok()).and_then(|id| taken.get_mut(id));
        match (place, value.as_u64().and_then(|id| u32::try_from(id).ok())) {
            (Some(place), Some(id)) if !*place => {
                *place = true;
                vocabulary.insert(token.clone(), id);
            }
            (Some(_), _) => return Err(Error::config(file, token, format!("id {value} is taken twice"))),
            (None, _) => {
                let last = entries.len() - 1;
                return Err(Error::config(
                    file,
                    token,
                    format!("expected an id from 0 to {last}, found {value}"),
                ));
            }
        }
    }
    Ok(vocabulary)
}

fn read_merges(file: &Path, vocabulary: &Vocab) -> Result<Merges> {
    let text = std::fs::read_to_string(file).map_err(|error| Error::io(file, "read", error))?;
    parse_merges(file, &text, vocabulary)
}

fn parse_merges(file: &Path, text: &str, vocabulary: &Vocab) -> Result<Merges> {
    let mut merges = Merges::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("#version") || line.trim().is_empty() {
            continue;
        }
        let checked = check_merge(line.trim_end().split_once(' '), vocabulary);
        let number = index + 1;
        merges
            .push(checked.map_err(|problem| Error::config_file(file, format!("line {number}: {problem}")))?);
    }
    Ok(merges)
}

/// A merge whose parts and result are all in the vocabulary.
fn check_merge(pair: Option<(&str, &str)>, vocabulary: &Vocab) -> Result<(String, String), String> {
    let pair = pair.filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '));
    let Some((left, right)) = pair else { return Err("expected two tokens".to_owned()) };
    let joined = format!("{left}{right}");
    for token in [left, right, &joined] {
        if !vocabulary.contains_key(token) {
            return Err(format!("the vocabulary lacks \"{token}\""));
        }
    }
    Ok((left.to_owned(), right.to_owned()))
}
