//! The condition of SDXL: two text encoders read the prompt, and the second makes one vector of it besides.

use super::model::{Encoded, Inputs};
use super::wording::{NOWHERE, TextEncoder, Wording, check_clip_skip, read};
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::models::clip::ClipTextModel;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::PromptSyntax;

/// Both text encoders with their tokenizers, which make as many tokens.
#[derive(Debug)]
pub(super) struct TwoTexts {
    pub(super) encoders: [TextEncoder; 2],
    /// Whether zeros stand for an empty negative prompt, instead of what the encoders make of it.
    pub(super) zeros_for_empty: bool,
}

impl TwoTexts {
    /// Tokens of one chunk.
    pub(super) fn tokens(&self) -> usize {
        self.encoders[0].tokenizer.max_length()
    }

    /// Memory for ids of both tokenizers, their weights, the end of every prompt, and the rows of the hidden states.
    pub(super) fn inputs(&self, wording: &Wording) -> Vec<Tensor> {
        let mut inputs = self.encoders[0].inputs(["ids", "weights"], wording);
        inputs.extend(self.encoders[1].inputs(["ids_2", "weights_2"], wording));
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
        let layers = self.encoders.iter().map(|encoder| before_last(&encoder.model));
        check_clip_skip(clip_skip, layers.min().unwrap_or(0))?;
        let tokenizers = self.encoders.each_ref().map(|encoder| &encoder.tokenizer);
        let read = read(prompts, &tokenizers, syntax, clip_skip)?;
        let wording = read.wording;
        let mut values = Vec::new();
        for (encoder, chunks) in self.encoders.iter().zip(&read.chunks) {
            values.extend(encoder.values(chunks, &wording)?);
        }
        let is_zero =
            |copy: usize| self.zeros_for_empty && wording.copies == 2 && copy == 0 && prompts[0].1.is_empty();
        // The prompt as one vector is that of its first chunk.
        let config = self.encoders[1].model.config();
        let end = |copy: usize| {
            let row = copy * wording.chunks * self.tokens()
                + config.end_of(&read.chunks[1][copy].ids[..self.tokens()]);
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
        let [first, second] = [(); 2].map(|()| {
            let ids = inputs.next().expect("ids are among the inputs");
            (ids, if wording.is_weighted { inputs.next() } else { None })
        });
        let ends = inputs.next().expect("ends are among the inputs");
        let rows = inputs.next();

        let [encoder, encoder_2] = self.encoders.each_ref().map(|encoder| &encoder.model);
        let hidden_states = {
            let (ids, weights) = first;
            let scope = &mut recording.scope("text_encoder");
            let layers = wording.layers(before_last(encoder));
            let states = encoder.record_layers(scope, ids, &layers)?; // [N * K, T, C] each
            let states = TextEncoder::record_weights(scope, states, weights)?; // [N * K, T, C] each
            wording.record_context(scope, &states, rows)? // [N, K * T, C]
        };

        let (ids, weights) = second;
        let scope = &mut recording.scope("text_encoder_2");
        let mut layers = wording.layers(before_last(encoder_2));
        layers.push(encoder_2.layers());
        let mut states = encoder_2.record_layers(scope, ids, &layers)?; // [N * K, T, D] each
        let last = states.pop().expect("as many states as layers"); // [N * K, T, D]
        let last = encoder_2.record_final_norm(scope, &last)?; // [N * K, T, D]
        let pooled = encoder_2.record_pooled(scope, &last, ends)?; // [N, P]
        let states = TextEncoder::record_weights(scope, states, weights)?; // [N * K, T, D] each
        let second = wording.record_context(scope, &states, rows)?; // [N, K * T, D]
        Ok(Encoded { hidden_states, second: Some(second), pooled: Some(pooled) })
    }
}

/// The number of the hidden states that enter the last layer.
fn before_last(model: &ClipTextModel) -> usize {
    model.layers().saturating_sub(1)
}
