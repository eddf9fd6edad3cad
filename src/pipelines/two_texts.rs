//! The condition of SDXL: two text encoders read the prompt, and the second makes one vector of it besides. A refiner has
//! the second alone.

use super::model::{Encoded, Inputs};
use super::wording::{NOWHERE, TextEncoder, Wording, check_clip_skip, read};
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::models::clip::ClipTextModel;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::PromptSyntax;

/// Both text encoders with their tokenizers, which make as many tokens; or the second alone.
#[derive(Debug)]
pub(super) struct TwoTexts {
    /// What a refiner does not have.
    pub(super) first: Option<TextEncoder>,
    pub(super) second: TextEncoder,
    /// Whether zeros stand for an empty negative prompt, instead of what the encoders make of it.
    pub(super) zeros_for_empty: bool,
}

impl TwoTexts {
    /// Tokens of one chunk.
    pub(super) fn tokens(&self) -> usize {
        self.second.tokenizer.max_length()
    }

    fn encoders(&self) -> impl Iterator<Item = &TextEncoder> {
        self.first.iter().chain([&self.second])
    }

    /// Memory for ids of both tokenizers, their weights, the end of every prompt, and the rows of the hidden states.
    pub(super) fn inputs(&self, wording: &Wording) -> Vec<Tensor> {
        let first = self.first.iter().flat_map(|encoder| encoder.inputs(["ids", "weights"], wording));
        let mut inputs: Vec<Tensor> = first.collect();
        inputs.extend(self.second.inputs(["ids_2", "weights_2"], wording));
        inputs.push(Tensor::external("ends", [wording.copies, 1], ElementType::U32));
        if wording.has_rows(self.zeros_for_empty) {
            let tokens = wording.chunks * self.tokens();
            inputs.push(Tensor::external("rows", [wording.copies, tokens], ElementType::U32));
        }
        inputs
    }

    /// The values of the inputs, and what the caller should be told.
    pub(super) fn read(
        &self,
        prompts: &[(&str, &str)],
        syntax: PromptSyntax,
        clip_skip: usize,
    ) -> Result<(Inputs, Wording, Vec<String>)> {
        let layers = self.encoders().map(|encoder| before_last(&encoder.model));
        check_clip_skip(clip_skip, layers.min().unwrap_or(0))?;
        let tokenizers: Vec<_> = self.encoders().map(|encoder| &encoder.tokenizer).collect();
        let read = read(prompts, &tokenizers, syntax, clip_skip)?;
        let wording = read.wording;
        let mut values = Vec::new();
        for (encoder, chunks) in self.encoders().zip(&read.chunks) {
            values.extend(encoder.values(chunks, &wording)?);
        }
        let is_zero =
            |copy: usize| self.zeros_for_empty && wording.copies == 2 && copy == 0 && prompts[0].1.is_empty();
        // The prompt as one vector is that of its first chunk.
        let config = self.second.model.config();
        let chunks = read.chunks.last().expect("chunks of every encoder");
        let end = |copy: usize| {
            let row =
                copy * wording.chunks * self.tokens() + config.end_of(&chunks[copy].ids[..self.tokens()]);
            if is_zero(copy) { NOWHERE } else { u32::try_from(row).unwrap_or(NOWHERE) }
        };
        values.push((0..wording.copies).map(end).collect());
        if wording.has_rows(self.zeros_for_empty) {
            values.push(wording.rows(self.tokens(), is_zero(0)));
        }
        Ok((values, wording, read.warnings))
    }

    /// Records what the U-Net reads of the inputs.
    pub(super) fn record(
        &self,
        recording: &mut Recording,
        inputs: &[Tensor],
        wording: &Wording,
    ) -> Result<Encoded> {
        let mut inputs = inputs.iter();
        let mut of_encoder = || {
            let ids = inputs.next().expect("ids are among the inputs");
            (ids, if wording.is_weighted { inputs.next() } else { None })
        };
        let first = self.first.as_ref().map(|encoder| (&encoder.model, of_encoder()));
        let second = of_encoder();
        let ends = inputs.next().expect("ends are among the inputs");
        let rows = inputs.next();

        let hidden_states = match first {
            Some((encoder, (ids, weights))) => {
                let scope = &mut recording.scope("text_encoder");
                let layers = wording.layers(before_last(encoder));
                let states = encoder.record_layers(scope, ids, &layers)?; // [N * K, T, C] each
                let states = TextEncoder::record_weights(scope, states, weights)?; // [N * K, T, C] each
                Some(wording.record_context(scope, &states, rows)?) // [N, K * T, C]
            }
            None => None,
        };

        let (ids, weights) = second;
        let encoder_2 = &self.second.model;
        let scope = &mut recording.scope("text_encoder_2");
        let mut layers = wording.layers(before_last(encoder_2));
        layers.push(encoder_2.layers());
        let mut states = encoder_2.record_layers(scope, ids, &layers)?; // [N * K, T, D] each
        let last = states.pop().expect("as many states as layers"); // [N * K, T, D]
        let last = encoder_2.record_final_norm(scope, &last)?; // [N * K, T, D]
        let pooled = encoder_2.record_pooled(scope, &last, ends)?; // [N, P]
        let states = TextEncoder::record_weights(scope, states, weights)?; // [N * K, T, D] each
        let second = wording.record_context(scope, &states, rows)?; // [N, K * T, D]
        Ok(match hidden_states {
            Some(hidden_states) => Encoded { hidden_states, second: Some(second), pooled: Some(pooled) },
            None => Encoded { hidden_states: second, second: None, pooled: Some(pooled) },
        })
    }
}

/// The number of the hidden states that enter the last layer.
fn before_last(model: &ClipTextModel) -> usize {
    model.layers().saturating_sub(1)
}
