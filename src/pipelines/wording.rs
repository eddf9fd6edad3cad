//! How prompts are worded: chunks, weights, and the layer of the text encoder that is read.

use super::model::Inputs;
use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::kernels::emphasis::emphasis;
use crate::kernels::token_embedding::token_embedding;
use crate::models::clip::ClipTextModel;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::{Chunks, ClipTokenizer, Parsed, PromptSyntax};

/// A row that no table has: zeros come of it.
pub(super) const NOWHERE: u32 = u32::MAX;

/// More chunks than this are taken for a mistake.
const MOST_CHUNKS: usize = 64;

/// What of a condition decides the shapes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wording {
    /// Conditions of one call: two with guidance, what stands for none first.
    pub(super) copies: usize,
    /// Chunks of every prompt, one behind the other in the context.
    pub(super) chunks: usize,
    /// Whether any token has a weight.
    pub(super) is_weighted: bool,
    /// Layers at the end of the text encoder that the prompt is not read from; the negative prompt is always read from
    /// the usual one, as in diffusers.
    pub(super) clip_skip: usize,
}

impl Wording {
    /// Of a condition that is no text.
    pub(super) fn without_text(copies: usize) -> Self {
        Self { copies, chunks: 1, is_weighted: false, clip_skip: 0 }
    }

    /// The numbers of the hidden states that make the context, where `usual` is the one that does without a skip.
    pub(super) fn layers(&self, usual: usize) -> Vec<usize> {
        let skipped = usual.saturating_sub(self.clip_skip);
        if self.reads_two_layers() { vec![skipped, usual] } else { vec![skipped] }
    }

    fn reads_two_layers(&self) -> bool {
        self.clip_skip > 0 && self.copies == 2
    }

    /// Whether the context is gathered by rows, instead of being the hidden states as they are.
    pub(super) fn has_rows(&self, zeros: bool) -> bool {
        zeros || self.reads_two_layers()
    }

    /// The rows of the hidden states that make the context, `[copies, chunks * tokens]`; nowhere for a negative prompt
    /// that zeros stand for.
    pub(super) fn rows(&self, tokens: usize, negative_is_zero: bool) -> Vec<u32> {
        let length = self.chunks * tokens;
        let count = self.copies * length;
        let row = |row: usize| {
            let is_negative = self.copies == 2 && row < length;
            match (is_negative, negative_is_zero) {
                (true, true) => NOWHERE,
                // The second table begins where the first ends.
                (true, false) if self.reads_two_layers() => number(count + row),
                _ => number(row),
            }
        };
        (0..count).map(row).collect()
    }

    /// Records the context, `[copies, chunks * T, C]`, from the hidden states of its layers, `[copies * chunks, T, C]`
    /// each.
    pub(super) fn record_context(
        &self,
        recording: &mut Recording,
        states: &[Tensor],
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (count, channels) = (states[0].shape().rows(), states[0].shape().channels());
        let Some(rows) = rows else {
            return states[0].reshape([self.copies, count / self.copies, channels]); // [N, K * T, C]
        };
        let tables: Result<Vec<Tensor>> =
            states.iter().map(|state| state.reshape([count, channels])).collect(); // [N * K * T, C]
        token_embedding(&mut recording.scope("rows"), rows, &tables?, None) // [N, K * T, C]
    }
}

/// A number of a row; nowhere where there are too many for a device.
fn number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(NOWHERE)
}

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub(super) struct TextEncoder {
    pub(super) tokenizer: ClipTokenizer,
    pub(super) model: ClipTextModel,
}

impl TextEncoder {
    /// Memory for token ids, and weights where there are any.
    pub(super) fn inputs(&self, [ids, weights]: [&str; 2], wording: &Wording) -> Vec<Tensor> {
        let tokens = self.tokenizer.max_length();
        let images = wording.copies * wording.chunks;
        let all = images + usize::from(wording.is_weighted);
        let mut inputs = vec![Tensor::external(ids, [all, tokens], ElementType::U32)];
        if wording.is_weighted {
            inputs.push(Tensor::external(weights, [images, tokens], ElementType::F32));
        }
        inputs
    }

    /// The values of the inputs: all chunks of all prompts, behind them an empty one where there are weights.
    pub(super) fn values(&self, prompts: &[Chunks], wording: &Wording) -> Result<Inputs> {
        let mut ids = Vec::new();
        let mut weights = Vec::new();
        for chunks in prompts {
            ids.extend_from_slice(&chunks.ids);
            weights.extend(chunks.weights.iter().map(|weight| weight.to_bits()));
        }
        if !wording.is_weighted {
            return Ok(vec![ids]);
        }
        ids.extend(self.tokenizer.encode_chunks(&[])?.ids);
        Ok(vec![ids, weights])
    }

    /// Records hidden states as they were weighted, `[N, T, C]`, without the empty prompt's.
    pub(super) fn record_weights(
        recording: &mut Recording,
        states: Vec<Tensor>,
        weights: Option<&Tensor>,
    ) -> Result<Vec<Tensor>> {
        let Some(weights) = weights else { return Ok(states) };
        let recording = &mut recording.scope("weights");
        states.iter().map(|state| emphasis(recording, state, weights)).collect() // [N, T, C]
    }
}

/// Prompts that were read, the negative one first if there is one.
pub(super) struct Read {
    /// For every tokenizer, the chunks of every prompt, as many of each.
    pub(super) chunks: Vec<Vec<Chunks>>,
    pub(super) wording: Wording,
    /// What the caller should be told.
    pub(super) warnings: Vec<String>,
}

/// Reads prompts, each with its name, with every tokenizer.
pub(super) fn read(
    prompts: &[(&str, &str)],
    tokenizers: &[&ClipTokenizer],
    syntax: PromptSyntax,
    clip_skip: usize,
) -> Result<Read> {
    let mut warnings = Vec::new();
    let mut chunks = vec![Vec::with_capacity(prompts.len()); tokenizers.len()];
    for &(name, text) in prompts {
        let named = |error| match error {
            Error::Option { problem, .. } => Error::option(name, problem),
            other => other,
        };
        let parsed = Parsed::read(text);
        if syntax == PromptSyntax::Plain && parsed.as_ref().is_ok_and(|parsed| parsed.is_explicit) {
            warnings.push(format!(
                "the {name} has weights or BREAK in it, which plain syntax takes for text: prompt syntax weighted \
                reads them"
            ));
        }
        let parts = if syntax == PromptSyntax::Plain { None } else { Some(parsed.map_err(named)?.parts) };
        for (place, tokenizer) in tokenizers.iter().enumerate() {
            chunks[place].push(match &parts {
                Some(parts) => tokenizer.encode_chunks(parts).map_err(named)?,
                None => {
                    let encoded = tokenizer.encode(text).map_err(named)?;
                    if place == 0 {
                        warnings.extend(too_long(name, encoded.truncated, tokenizer.max_length()));
                    }
                    Chunks { weights: vec![1.0; encoded.ids.len()], ids: encoded.ids, count: 1 }
                }
            });
        }
    }
    let most = chunks.iter().flatten().map(|chunks| chunks.count).max().unwrap_or(1);
    if most > MOST_CHUNKS {
        let problem = format!("fills {most} chunks of the text encoder, at most {MOST_CHUNKS} are possible");
        return Err(Error::option(prompts.last().map_or("prompt", |(name, _)| name), problem));
    }
    for (tokenizer, chunks) in tokenizers.iter().zip(&mut chunks) {
        chunks.iter_mut().for_each(|chunks| tokenizer.fill_up(chunks, most));
    }
    let is_weighted = chunks.iter().flatten().any(Chunks::is_weighted);
    let wording = Wording { copies: prompts.len(), chunks: most, is_weighted, clip_skip };
    Ok(Read { chunks, wording, warnings })
}

fn too_long(name: &str, cut: Option<String>, tokens: usize) -> Option<String> {
    let most = tokens - 2;
    cut.map(|cut| {
        format!(
            "the {name} is longer than {most} tokens; this part has no effect: \"{cut}\" (prompt syntax weighted reads \
            all of it)"
        )
    })
}

/// Refuses to skip more layers than there are below the usual one.
pub(super) fn check_clip_skip(clip_skip: usize, usual: usize) -> Result<()> {
    if clip_skip <= usual {
        return Ok(());
    }
    let problem = format!("expected 0 to {usual} for this model's text encoder, found {clip_skip}");
    Err(Error::option("clip skip", problem))
}
