//! Prompts to token ids: CLIP's byte-pair encoding.
//!
//! Sennrich, Haddow & Birch 2016, <https://arxiv.org/abs/1508.07909>; Radford et al. 2021 (CLIP),
//! <https://arxiv.org/abs/2103.00020>. Agrees with `CLIPTokenizer` of transformers 5.

mod chunks;
mod embedded;
mod files;
mod syntax;

use std::fmt;
use std::ops::Range;
use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::error::{Error, Result};
use files::Files;

pub use chunks::Chunks;
pub(crate) use syntax::Parsed;
pub use syntax::{Part, PromptSyntax, parse_weighted};

/// What a prompt is cut into before bytes are paired: contractions, words, single digits, runs of other signs.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Marks the last piece of a word.
const END_OF_WORD: &str = "</w>";

/// Turns prompts into the token ids that a CLIP text encoder reads.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    begin: u32,
    end: u32,
    padding: u32,
    max_length: usize,
    /// Words of several vectors: the ids of the first and of the one behind the last.
    words: Vec<Range<u32>>,
}

/// A prompt as token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// `[T]`, `T` being the [maximal length](ClipTokenizer::max_length): begin, the tokens of the prompt, end,
    /// padding.
    pub ids: Vec<u32>,
    /// The text that did not fit, as its tokens read; `None` if all of it did.
    pub truncated: Option<String>,
    /// Tokens of the whole prompt, without begin and end, also those that did not fit.
    pub tokens: usize,
}

impl ClipTokenizer {
    /// Opens a tokenizer directory as diffusers lays it out: `vocab.json` with `merges.txt`, or `tokenizer.json`,
    /// which comes first where both are there; beside them `tokenizer_config.json` and `special_tokens_map.json`,
    /// which may be absent.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Config`] naming the file if it is damaged, if merges do not
    /// fit the vocabulary, or if it lacks a special token.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::of_files(&Files::read(directory.as_ref())?)
    }

    /// CLIP's own tokenizer, which is a part of this library: for models that come without one.
    ///
    /// # Errors
    /// None: the files are this library's own.
    pub fn embedded() -> Result<Self> {
        Self::of_files(&Files::embedded()?)
    }

    /// The same tokenizer, filling prompts up with another token of its vocabulary.
    ///
    /// # Errors
    /// [`Error::Option`] if it is not in the vocabulary.
    pub fn padded_with(self, token: &str) -> Result<Self> {
        let Some(padding) = self.tokenizer.token_to_id(token) else {
            return Err(Error::option("pad_token", format!("\"{token}\" is not in the vocabulary")));
        };
        Ok(Self { padding, ..self })
    }

    /// Learns a word that becomes `count` ids of its own, one after the other, which follow those of the
    /// vocabulary: `word`, `word_1`, …
    ///
    /// Agrees with `load_textual_inversion` and `maybe_convert_prompt` of diffusers, but that a word in upper case is the
    /// whole word too, of which diffusers takes the first id only.
    ///
    /// # Errors
    /// [`Error::Option`] if the word is empty, or it or one of the others is in the vocabulary already.
    pub fn learn(&mut self, word: &str, count: usize) -> Result<()> {
        let refuse = |problem: String| Error::option("embedding", problem);
        if word.trim().is_empty() {
            return Err(refuse(format!("\"{word}\" is no word")));
        }
        let first = self.tokenizer.get_vocab_size(true);
        let words: Vec<String> = std::iter::once(word.to_owned())
            .chain((1..count.max(2)).map(|number| format!("{word}_{number}")))
            .collect();
        if let Some(taken) = words.iter().find(|word| self.tokenizer.token_to_id(word).is_some()) {
            return Err(refuse(format!("\"{taken}\" is in the vocabulary already: choose another word")));
        }
        let added =
            words.iter().take(count).map(|word| AddedToken::from(word.as_str(), false).normalized(true));
        let added = added.collect::<Vec<_>>();
        self.tokenizer.add_tokens(added).map_err(|error| refuse(error.to_string()))?;
        let ids = [first, first + count].map(u32::try_from);
        let [Ok(first), Ok(end)] = ids else { return Err(refuse("there are too many words".to_owned())) };
        self.words.push(first..end);
        Ok(())
    }

    /// Ids with those that follow the first of a word.
    fn whole_words(&self, ids: &[u32]) -> Vec<u32> {
        let mut whole = Vec::with_capacity(ids.len());
        for id in ids {
            match self.words.iter().find(|word| word.start == *id) {
                Some(word) => whole.extend(word.clone()),
                None => whole.push(*id),
            }
        }
        whole
    }

    fn of_files(files: &Files) -> Result<Self> {
        let refuse = |error: tokenizers::Error| Error::config_file(&files.vocabulary_file, error.to_string());
        let begin = files.id("bos_token")?;
        let end = files.id("eos_token")?;
        let padding = files.id("pad_token")?;
        files.id("unk_token")?;

        let model = BPE::builder()
            .vocab_and_merges(files.vocabulary.clone(), files.merges.clone())
            .unk_token(files.special("unk_token").to_owned())
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .build()
            .map_err(refuse)?;
        let mut tokenizer = Tokenizer::new(model);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(refuse)?;
        let normalizers = Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()]);
        tokenizer.with_normalizer(Some(normalizers)).map_err(refuse)?;
        let pattern = SplitPattern::Regex(WORDS.to_owned());
        let words = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(refuse)?;
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
        tokenizer.with_decoder(Some(bytes));
        tokenizer.add_tokens(files.added_tokens()).map_err(refuse)?;
        files.check_added_ids(|token| tokenizer.token_to_id(token))?;

        Ok(Self { tokenizer, begin, end, padding, max_length: files.max_length, words: Vec::new() })
    }

    /// The number of ids that every prompt is encoded to, `T`: 77 for the released CLIP models.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The number of tokens that have an id, those added to the vocabulary included.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The tokens of a text, however many, with all vectors of learned words.
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false);
        let encoding = encoding.map_err(|error| Error::option("prompt", error.to_string()))?;
        Ok(self.whole_words(encoding.get_ids()))
    }

    /// Encodes a prompt; what does not fit is cut off and given back as text.
    ///
    /// # Errors
    /// [`Error::Option`] if the tokenizer cannot read the text.
    pub fn encode(&self, prompt: &str) -> Result<Encoded> {
        let refuse = |error: tokenizers::Error| Error::option("prompt", error.to_string());
        let tokens = self.tokens(prompt)?;
        let (kept, cut) = tokens.split_at(tokens.len().min(self.max_length - 2));
        let truncated = if cut.is_empty() {
            None
        } else {
            let text = self.tokenizer.decode(cut, false).map_err(refuse)?;
            Some(text.replace(END_OF_WORD, " ").trim().to_owned())
        };
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.begin);
        ids.extend_from_slice(kept);
        ids.push(self.end);
        ids.resize(self.max_length, self.padding);
        Ok(Encoded { ids, truncated, tokens: tokens.len() })
    }
}

impl fmt::Debug for ClipTokenizer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClipTokenizer")
            .field("begin", &self.begin)
            .field("end", &self.end)
            .field("padding", &self.padding)
            .field("max_length", &self.max_length)
            .finish_non_exhaustive()
    }
}
