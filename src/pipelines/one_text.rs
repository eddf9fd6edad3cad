//! The condition of Stable Diffusion 1 and 2: one text encoder reads the prompt.

use super::model::{Encoded, Inputs};
use super::wording::{TextEncoder, Wording, check_clip_skip, read};
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::PromptSyntax;

/// The text encoder.
#[derive(Debug)]
pub(super) struct OneText(pub(super) TextEncoder);

impl OneText {
    /// Memory for ids, weights, and rows of the hidden states.
    pub(super) fn inputs(&self, wording: &Wording) -> Vec<Tensor> {
        let mut inputs = self.0.inputs(["ids", "weights"], wording);
        if wording.has_rows(false) {
            let tokens = wording.chunks * self.0.tokenizer.max_length();
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
        let TextEncoder { tokenizer, model } = &self.0;
        check_clip_skip(clip_skip, model.layers())?;
        let read = read(prompts, &[tokenizer], syntax, clip_skip)?;
        let mut values = self.0.values(&read.chunks[0], &read.wording)?;
        if read.wording.has_rows(false) {
            values.push(read.wording.rows(tokenizer.max_length(), false));
        }
        Ok((values, read.wording, read.warnings))
    }

    /// Records what the U-Net reads of the inputs.
    pub(super) fn record(
        &self,
        recording: &mut Recording,
        inputs: &[Tensor],
        wording: &Wording,
    ) -> Result<Encoded> {
        let model = &self.0.model;
        let mut inputs = inputs.iter();
        let ids = inputs.next().expect("ids are among the inputs");
        let weights = if wording.is_weighted { inputs.next() } else { None };
        let recording = &mut recording.scope("text_encoder");
        let layers = wording.layers(model.layers());
        let mut states = model.record_layers(recording, ids, &layers)?; // [N * K, T, C] each
        for state in &mut states {
            *state = model.record_final_norm(recording, state)?; // [N * K, T, C]
        }
        let states = TextEncoder::record_weights(recording, states, weights)?; // [N * K, T, C] each
        let context = wording.record_context(recording, &states, inputs.next())?; // [N, K * T, C]
        Ok(Encoded::new(context))
    }
}
