//! The condition of SDXL: two text encoders read the prompt, and the second makes one vector of it besides.

use super::model::{Encoded, Inputs};
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::token_embedding::token_embedding;
use crate::models::clip::ClipTextModel;
use crate::tensor::{ElementType, Tensor};
use crate::tokenizer::ClipTokenizer;

/// A row that no table has: zeros come of it.
const NOWHERE: u32 = u32::MAX;

/// Both text encoders with their tokenizers.
#[derive(Debug)]
pub(super) struct TwoTexts {
    pub(super) tokenizers: [ClipTokenizer; 2],
    pub(super) encoders: [ClipTextModel; 2],
    /// Whether zeros stand for an empty negative prompt, instead of what the encoders make of it.
    pub(super) zeros_for_empty: bool,
}

/// The prompts of one context, the negative one first, if there is one.
pub(super) struct Prompts<'a> {
    pub(super) negative: Option<&'a str>,
    pub(super) prompt: &'a str,
}

impl TwoTexts {
    /// Tokens of one prompt.
    pub(super) fn tokens(&self) -> usize {
        self.tokenizers[0].max_length()
    }

    /// Memory for ids of both tokenizers, the end of every prompt, and the rows of the hidden states.
    pub(super) fn inputs(&self, copies: usize) -> Vec<Tensor> {
        let tokens = self.tokens();
        let shapes = [("ids", tokens), ("ids_2", tokens), ("ends", 1), ("rows", tokens)];
        shapes.map(|(name, width)| Tensor::external(name, [copies, width], ElementType::U32)).into()
    }

    /// The values of the inputs. The second part is what did not fit, by the first tokenizer, for every prompt.
    pub(super) fn ids(&self, prompts: &Prompts<'_>) -> Result<(Inputs, Vec<Option<String>>)> {
        let [mut first, mut second, mut ends, mut rows] = [const { Vec::new() }; 4];
        let mut cut = Vec::new();
        let mut row = 0;
        let negative = prompts.negative.map(|text| (text, self.zeros_for_empty && text.is_empty()));
        for (text, is_zero) in negative.into_iter().chain([(prompts.prompt, false)]) {
            let encoded = self.tokenizers[0].encode(text)?;
            cut.push(encoded.truncated);
            first.extend(encoded.ids);
            let ids = self.tokenizers[1].encode(text)?.ids;
            let end = u32::try_from(self.encoders[1].config().end_of(&ids)).unwrap_or(NOWHERE);
            ends.push(if is_zero { NOWHERE } else { row + end });
            for _ in 0..ids.len() {
                rows.push(if is_zero { NOWHERE } else { row });
                row += 1;
            }
            second.extend(ids);
        }
        Ok((vec![first, second, ends, rows], cut))
    }

    /// Records what the U-Net reads of the inputs.
    pub(super) fn record(&self, recording: &mut Recording, inputs: &[Tensor]) -> Result<Encoded> {
        let [first, second, ends, rows] = inputs else { unreachable!("inputs are those of this model") };
        let [encoder, encoder_2] = &self.encoders;
        let states = encoder.record_penultimate(&mut recording.scope("text_encoder"), first)?; // [N, T, C]
        let hidden_states = self.zeroed(recording, states, rows)?; // [N, T, C]
        let recording = &mut recording.scope("text_encoder_2");
        let states = encoder_2.record_states(recording, second)?; // [N, T, D]
        let pooled = encoder_2.record_pooled(recording, &states.last, ends)?; // [N, P]
        let second = self.zeroed(recording, states.penultimate, rows)?; // [N, T, D]
        Ok(Encoded { hidden_states, second: Some(second), pooled: Some(pooled) })
    }

    /// Hidden states with zeros for those prompts that have no rows.
    fn zeroed(&self, recording: &mut Recording, states: Tensor, rows: &Tensor) -> Result<Tensor> {
        if !self.zeros_for_empty {
            return Ok(states);
        }
        let table = states.reshape([states.shape().rows(), states.shape().channels()])?; // [N * T, C]
        token_embedding(&mut recording.scope("zeros_for_empty"), rows, &[table], None) // [N, T, C]
    }
}
