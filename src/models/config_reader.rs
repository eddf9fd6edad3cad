//! Typed reading of a `config.json` or a YAML file, in which every key is honoured, known to be harmless, or refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// More channels, tokens or layers than this are a mistake in the file.
const LARGEST: usize = 65_536;

/// Sizes of one attention head that the kernels know.
const HEAD_SIZES: std::ops::RangeInclusive<usize> = 1..=1024;

/// A configuration file, or a section of one, and the keys that were asked for so far.
#[derive(Debug)]
pub(super) struct ConfigReader {
    file: PathBuf,
    /// The keys that lead to this section, each followed by a dot; empty at the top.
    section: String,
    entries: Map<String, Value>,
    known: BTreeSet<String>,
}

impl ConfigReader {
    /// Reads a file that must hold one JSON object.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, "read", source))?;
        match serde_json::from_str(&text) {
            Ok(Value::Object(entries)) => Ok(Self::new(path, String::new(), entries)),
            Ok(_) => Err(Error::config_file(path, "is not a JSON object")),
            Err(error) => Err(Error::config_file(path, format!("is not JSON: {error}"))),
        }
    }

    /// Reads a YAML file that must hold one mapping.
    pub(super) fn open_yaml(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, "read", source))?;
        match serde_saphyr::from_str(&text) {
            Ok(Value::Object(entries)) => Ok(Self::new(path, String::new(), entries)),
            Ok(_) => Err(Error::config_file(path, "is not a YAML mapping")),
            Err(error) => {
                let words = error.to_string();
                let first = words.lines().next().unwrap_or_default();
                Err(Error::config_file(path, format!("is not YAML: {first}")))
            }
        }
    }

    fn new(file: &Path, section: String, entries: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), section, entries, known: BTreeSet::new() }
    }

    /// The mapping below a key, which must be there.
    pub(super) fn child(&mut self, key: &str) -> Result<Self> {
        match self.value(key) {
            Some(Value::Object(entries)) => {
                let section = format!("{}{key}.", self.section);
                Ok(Self::new(&self.file, section, entries))
            }
            Some(found) => Err(self.unexpected(key, &found, "a mapping")),
            None => Err(self.refuse(key, "is missing, expected a mapping")),
        }
    }

    /// Whether a key is there and not null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| !value.is_null())
    }

    /// The class that the file was written for, if it says so.
    pub(super) fn class_name(&self) -> Option<&str> {
        self.entries.get("_class_name").and_then(Value::as_str)
    }

    /// An error about one key.
    pub(super) fn refuse(&self, key: &str, problem: impl Into<String>) -> Error {
        Error::config(&self.file, &format!("{}{key}", self.section), problem)
    }

    /// The value of a key, unless it is absent or null.
    fn value(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.entries.get(key).filter(|value| !value.is_null()).cloned()
    }

    /// The value of a key, even null, unless it is absent.
    fn given(&mut self, key: &str) -> Option<Value> {
        self.known.insert(key.to_owned());
        self.entries.get(key).cloned()
    }

    fn unexpected(&self, key: &str, found: &Value, expected: &str) -> Error {
        self.refuse(key, format!("found {}, expected {expected}", brief(found)))
    }

    /// The class that the file was written for, if it says so.
    pub(super) fn class(&mut self, supported: &str) -> Result<()> {
        self.only("_class_name", &[Value::from(supported)])
    }

    /// A key that may be absent or null, or have one of the values that change nothing.
    pub(super) fn only(&mut self, key: &str, supported: &[Value]) -> Result<()> {
        let Some(found) = self.value(key) else { return Ok(()) };
        if supported.iter().any(|value| equal(value, &found)) {
            return Ok(());
        }
        let supported: Vec<_> = supported.iter().map(Value::to_string).collect();
        let supported = if supported.is_empty() { "null".to_owned() } else { supported.join(" or ") };
        Err(self.refuse(key, format!("found {}, supported is {supported}", brief(&found))))
    }

    /// A size from 1 to [`LARGEST`].
    pub(super) fn size(&mut self, key: &str, default: usize) -> Result<usize> {
        self.size_up_to(key, default, LARGEST)
    }

    /// A size from 1 to [`LARGEST`] of a key that must be there.
    pub(super) fn required_size(&mut self, key: &str) -> Result<usize> {
        match self.given(key) {
            None => Err(self.refuse(key, "is missing, expected a positive integer")),
            Some(found) => self.as_size(key, &found, LARGEST),
        }
    }

    /// A list of sizes, of any length, of a key that must be there.
    pub(super) fn list(&mut self, key: &str) -> Result<Vec<usize>> {
        match self.given(key) {
            Some(Value::Array(list)) => list.iter().map(|found| self.as_size(key, found, LARGEST)).collect(),
            Some(found) => Err(self.unexpected(key, &found, "a list of positive integers")),
            None => Err(self.refuse(key, "is missing, expected a list of positive integers")),
        }
    }

    /// Multiples of a base, the first of which must be 1: channels of every level of an original model.
    pub(super) fn multiples(&mut self, key: &str, base: usize) -> Result<Vec<usize>> {
        let multiples = self.channels(key, &[1, 2, 4, 8], 1..=8)?;
        if multiples[0] != 1 {
            return Err(self.refuse(key, format!("found {} first, supported is 1", multiples[0])));
        }
        Ok(multiples.iter().map(|multiple| multiple.saturating_mul(base)).collect())
    }

    /// Whether a key is there and null.
    pub(super) fn given_as_null(&mut self, key: &str) -> bool {
        self.known.insert(key.to_owned());
        self.entries.get(key).is_some_and(Value::is_null)
    }

    /// A size from 1 to `largest`.
    pub(super) fn size_up_to(&mut self, key: &str, default: usize, largest: usize) -> Result<usize> {
        match self.given(key) {
            None => Ok(default),
            Some(found) => self.as_size(key, &found, largest),
        }
    }

    fn as_size(&self, key: &str, found: &Value, largest: usize) -> Result<usize> {
        let size = found.as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
        match size {
            Some(size) if size <= largest => Ok(size),
            Some(size) => Err(self.refuse(key, format!("found {size}, supported are at most {largest}"))),
            None => Err(self.unexpected(key, found, "a positive integer")),
        }
    }

    /// A list of sizes, or one size for each of `count` places.
    pub(super) fn sizes(&mut self, key: &str, count: usize, default: usize) -> Result<Vec<usize>> {
        match self.given(key) {
            None => Ok(vec![default; count]),
            Some(found) => self.as_sizes(key, &found, count),
        }
    }

    /// As [`sizes`](Self::sizes), of a key that may be absent or null.
    pub(super) fn optional_sizes(&mut self, key: &str, count: usize) -> Result<Option<Vec<usize>>> {
        self.value(key).map(|found| self.as_sizes(key, &found, count)).transpose()
    }

    fn as_sizes(&self, key: &str, found: &Value, count: usize) -> Result<Vec<usize>> {
        match found {
            Value::Array(list) => {
                let sizes: Vec<usize> =
                    list.iter().map(|found| self.as_size(key, found, LARGEST)).collect::<Result<_>>()?;
                self.expect_length(key, sizes.len(), count)?;
                Ok(sizes)
            }
            found => Ok(vec![self.as_size(key, found, LARGEST)?; count]),
        }
    }

    /// The channels of every level.
    pub(super) fn channels(
        &mut self,
        key: &str,
        default: &[usize],
        levels: std::ops::RangeInclusive<usize>,
    ) -> Result<Vec<usize>> {
        let channels: Vec<usize> = match self.given(key) {
            None => default.to_vec(),
            Some(Value::Array(list)) => {
                list.iter().map(|found| self.as_size(key, found, LARGEST)).collect::<Result<_>>()?
            }
            Some(found) => return Err(self.unexpected(key, &found, "a list of positive integers")),
        };
        if levels.contains(&channels.len()) {
            return Ok(channels);
        }
        let (least, most) = levels.into_inner();
        Err(self.refuse(key, format!("found {} levels, supported are {least} to {most}", channels.len())))
    }

    /// Block types, one for each of `count` levels, as places in the list of those `supported`.
    pub(super) fn blocks(
        &mut self,
        key: &str,
        default: &[&str],
        supported: &[&str],
        count: usize,
    ) -> Result<Vec<usize>> {
        let names = match self.given(key) {
            None => default.iter().map(|name| Value::from(*name)).collect(),
            Some(Value::Array(list)) => list,
            Some(found) => return Err(self.unexpected(key, &found, "a list of block types")),
        };
        let mut blocks = Vec::with_capacity(names.len());
        for name in &names {
            let Some(place) = supported.iter().position(|block| name.as_str() == Some(block)) else {
                let problem = format!("found {name}, supported are {}", supported.join(" and "));
                return Err(self.refuse(key, problem));
            };
            blocks.push(place);
        }
        self.expect_length(key, blocks.len(), count)?;
        Ok(blocks)
    }

    fn expect_length(&self, key: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(self.refuse(key, format!("found {found} entries, expected {expected}")))
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> Result<bool> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(found) => Err(self.unexpected(key, &found, "true or false")),
        }
    }

    /// A finite number.
    pub(super) fn number(&mut self, key: &str, default: f64) -> Result<f64> {
        match self.given(key) {
            None => Ok(default),
            Some(found) => match found.as_f64() {
                Some(number) if number.is_finite() => Ok(number),
                _ => Err(self.unexpected(key, &found, "a number")),
            },
        }
    }

    /// What is added to a variance: above 0 and below 1.
    pub(super) fn epsilon(&mut self, key: &str, default: f64) -> Result<f32> {
        let number = self.number(key, default)?;
        #[expect(clippy::cast_possible_truncation, reason = "kernels compute in f32")]
        let epsilon = number as f32;
        if epsilon > 0.0 && epsilon < 1.0 {
            return Ok(epsilon);
        }
        Err(self.refuse(key, format!("found {number}, expected a number above 0 and below 1")))
    }

    /// A word, one of those supported, as its place among them.
    pub(super) fn word(&mut self, key: &str, default: &str, supported: &[&str]) -> Result<usize> {
        let found = self.given(key).unwrap_or_else(|| Value::from(default));
        supported.iter().position(|word| found.as_str() == Some(word)).ok_or_else(|| {
            self.refuse(key, format!("found {found}, supported is {}", supported.join(" or ")))
        })
    }

    /// A token id, if there is one.
    pub(super) fn token(&mut self, key: &str, default: u32) -> Result<Option<u32>> {
        if self.entries.get(key).is_none() {
            self.known.insert(key.to_owned());
            return Ok(Some(default));
        }
        match self.value(key) {
            None => Ok(None),
            Some(found) => match found.as_u64().and_then(|id| u32::try_from(id).ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(self.unexpected(key, &found, "a token id")),
            },
        }
    }

    /// Height and width, given as one number or two.
    pub(super) fn extents(&mut self, key: &str) -> Result<Option<[usize; 2]>> {
        Ok(self.optional_sizes(key, 2)?.map(|sizes| [sizes[0], sizes[1]]))
    }

    /// Checks that norm groups divide the channels of every level.
    pub(super) fn expect_groups(&self, key: &str, groups: usize, channels: &[usize]) -> Result<()> {
        match channels.iter().find(|channels| !channels.is_multiple_of(groups)) {
            None => Ok(()),
            Some(channels) => {
                Err(self.refuse(key, format!("found {groups}, which does not divide {channels} channels")))
            }
        }
    }

    /// Checks that heads divide the channels into sizes that the kernels know.
    pub(super) fn expect_heads(&self, key: &str, heads: usize, channels: usize) -> Result<()> {
        if !channels.is_multiple_of(heads) {
            return Err(
                self.refuse(key, format!("found {heads} heads, which do not divide {channels} channels"))
            );
        }
        let size = channels / heads;
        if HEAD_SIZES.contains(&size) {
            return Ok(());
        }
        let (least, most) = HEAD_SIZES.into_inner();
        let problem = format!(
            "found {heads} heads for {channels} channels, so {size} values per head; supported are {least} to {most}"
        );
        Err(self.refuse(key, problem))
    }

    /// Refuses the keys that nobody asked for, apart from those starting with an underscore and the harmless.
    pub(super) fn finish(self, harmless: &[&str]) -> Result<()> {
        let unknown = self.entries.iter().find(|(key, _)| {
            !self.known.contains(*key) && !key.starts_with('_') && !harmless.contains(&key.as_str())
        });
        match unknown {
            None => Ok(()),
            Some((key, value)) => {
                Err(self.refuse(key, format!("found {}, but this key is not known", brief(value))))
            }
        }
    }
}

/// Equality in which 1 and 1.0 are the same number.
fn equal(left: &Value, right: &Value) -> bool {
    left == right || matches!((left.as_f64(), right.as_f64()), (Some(left), Some(right)) if left == right)
}

/// A value as JSON, cut off where it becomes long.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
