//! Prompts of any length: chunks that each fill the text encoder.

use super::{ClipTokenizer, Part};
use crate::error::{Error, Result};

/// A prompt as chunks of token ids, with a weight for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunks {
    /// `[K, T]`, T being the [maximal length](ClipTokenizer::max_length): each begin, tokens, end, padding.
    pub ids: Vec<u32>,
    /// `[K, T]`: weights of the tokens; 1 for begin, end and padding.
    pub weights: Vec<f32>,
    /// K, at least 1.
    pub count: usize,
}

impl Chunks {
    /// Whether any token has another weight than 1.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        #[expect(clippy::float_cmp, reason = "1 stands for no weight")]
        self.weights.iter().any(|&weight| weight != 1.0)
    }
}

impl ClipTokenizer {
    /// Encodes the parts of a prompt, each by itself, into as many chunks as they need: a chunk ends where it is full,
    /// be that in the middle of a word, or where a part begins another. There are no empty chunks, but one for a prompt
    /// without tokens.
    ///
    /// # Errors
    /// [`Error::Option`] if the tokenizer cannot read a text, or if it has no room for tokens.
    pub fn encode_chunks(&self, parts: &[Part]) -> Result<Chunks> {
        let room = self.max_length - 2;
        let mut chunks = Chunks { ids: Vec::new(), weights: Vec::new(), count: 0 };
        let (mut tokens, mut weights) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut breaks = false;
        for part in parts {
            breaks |= part.begins_chunk;
            for token in self.tokens(&part.text)? {
                if room == 0 {
                    return Err(Error::option("prompt", "this model's text encoder has no room for tokens"));
                }
                if tokens.len() == room || (breaks && !tokens.is_empty()) {
                    self.push_chunk(&mut chunks, &mut tokens, &mut weights);
                }
                breaks = false;
                tokens.push(token);
                #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
                weights.push(part.weight as f32);
            }
        }
        if !tokens.is_empty() || chunks.count == 0 {
            self.push_chunk(&mut chunks, &mut tokens, &mut weights);
        }
        Ok(chunks)
    }

    /// Adds empty chunks until there are so many.
    pub fn fill_up(&self, chunks: &mut Chunks, count: usize) {
        while chunks.count < count {
            self.push_chunk(chunks, &mut Vec::new(), &mut Vec::new());
        }
    }

    /// Adds one chunk, and empties the lists of its tokens.
    fn push_chunk(&self, chunks: &mut Chunks, tokens: &mut Vec<u32>, weights: &mut Vec<f32>) {
        chunks.count += 1;
        let length = chunks.count * self.max_length;
        chunks.ids.push(self.begin);
        chunks.ids.append(tokens);
        chunks.ids.push(self.end);
        chunks.ids.resize(length, self.padding);
        chunks.weights.push(1.0);
        chunks.weights.append(weights);
        chunks.weights.resize(length, 1.0);
    }
}
