//! Textual inversions: words for the tokenizers, and rows for the tables of the text encoders.

use super::stable_diffusion::Opened;
use crate::error::{Error, Result};
use crate::models::clip::ClipConfig;
use crate::tokenizer::ClipTokenizer;
use crate::weights::{Embedding, Word};

/// The table of a text encoder.
const TABLE: &str = "text_model.embeddings.token_embedding.weight";

/// Teaches words to text encoders that are not loaded yet, and to their tokenizers; `is_second` tells that a single one is
/// SDXL's second.
pub(super) fn learn(
    embeddings: &[Embedding],
    encoders: &mut [(&mut ClipTokenizer, &mut Opened<ClipConfig>)],
    is_second: bool,
) -> Result<()> {
    if embeddings.is_empty() {
        return Ok(());
    }
    let channels: Vec<usize> = encoders.iter().map(|(_, encoder)| encoder.config.hidden_size).collect();
    // Begin and end are in every prompt.
    let most = encoders.iter().map(|(tokenizer, _)| tokenizer.max_length() - 2).min().unwrap_or(0);
    let words = embeddings.iter().map(|embedding| Word::read(embedding, &channels, most, is_second));
    let words: Vec<Word> = words.collect::<Result<_>>()?;
    for (number, (tokenizer, encoder)) in encoders.iter_mut().enumerate() {
        // As in diffusers, rows follow those of the tokenizer's own tokens.
        let first = tokenizer.vocabulary_size();
        let mut rows = Vec::new();
        for word in &words {
            tokenizer.learn(&word.token, word.count)?;
            rows.extend_from_slice(&word.values[number]);
        }
        encoder.checkpoint.set_rows(TABLE, first, &rows)?;
        encoder.config.vocab_size = tokenizer.vocabulary_size();
    }
    Ok(())
}

/// Refuses textual inversions for a model without text encoders.
pub(super) fn expect_no_embeddings(embeddings: &[Embedding]) -> Result<()> {
    match embeddings.first() {
        None => Ok(()),
        Some(embedding) => {
            let path = embedding.path.display();
            Err(Error::option(
                "embedding",
                format!("{path} is for a Stable Diffusion model, which this is not"),
            ))
        }
    }
}
