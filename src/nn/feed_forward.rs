//! The wide layers behind attention.

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::tensor::{ElementType, Tensor};
use crate::weights::{Loader, Weights};

/// So many rows of values of 16 bits, of whatever width, take a multiple of the 256 bytes that bindings begin at.
const GROUP: usize = 128;

/// diffusers' `FeedForward` with GEGLU: `C` to `8C`, gated to `4C`, back to `C`.
#[derive(Clone, Debug)]
pub struct GegluFeedForward {
    name: String,
    widen: Linear,
    narrow: Linear,
}

impl GegluFeedForward {
    /// The layer called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(weights: &Weights<'_>, loader: &mut Loader, name: &str, channels: usize) -> Result<Self> {
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            widen: Linear::load(&at, loader, "net.0.proj", channels, 8 * channels)?,
            narrow: Linear::load(&at, loader, "net.2", 4 * channels, channels)?,
        })
    }

    /// Records `residual + feed_forward(input)`; both `[N, T, C]`.
    ///
    /// Where the device could not bind the wide tensor, it goes over some tokens after the other.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let rows = input.shape().rows();
        let most = self.most_rows(recording, input.element());
        if most < rows {
            let output = recording.transient(input.shape().clone(), input.element()); // [N, T, C]
            for first in (0..rows).step_by(most) {
                let count = most.min(rows - first);
                let part = |tensor: &Tensor| tensor.rows(first, count); // [M, C]
                let gated = self.widen.record_gated(recording, &part(input))?; // [M, 4C]
                self.narrow.record_into(recording, &gated, &part(residual), &part(&output))?; // [M, C]
            }
            return Ok(output);
        }
        let gated = self.widen.record_gated(recording, input)?; // [N, T, 4C]
        self.narrow.record_fused(recording, &gated, Activation::None, Some(residual)) // [N, T, C]
    }

    /// Tokens whose wide tensor can be bound; if not all, in groups that begin where memory can be bound.
    fn most_rows(&self, recording: &Recording, element: ElementType) -> usize {
        let most =
            recording.choices().facts.binding_limit / self.widen.gated_row_bytes(recording, element).max(1);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        (most / GROUP * GROUP).max(GROUP)
    }
}

/// transformers' `CLIPMLP`.
#[derive(Clone, Debug)]
pub struct Mlp {
    name: String,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl Mlp {
    /// The layer called `name`.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if its tensors are missing or have other shapes.
    pub fn load(
        weights: &Weights<'_>,
        loader: &mut Loader,
        name: &str,
        [channels, inner]: [usize; 2],
        activation: Activation,
    ) -> Result<Self> {
        let at = weights.child(name);
        Ok(Self {
            name: name.to_owned(),
            widen: Linear::load(&at, loader, "fc1", channels, inner)?,
            narrow: Linear::load(&at, loader, "fc2", inner, channels)?,
            activation,
        })
    }

    /// Records `residual + mlp(input)`; both `[N, T, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit.
    pub fn record(&self, recording: &mut Recording, input: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let recording = &mut recording.scope(&self.name);
        let wide = self.widen.record_fused(recording, input, self.activation, None)?; // [N, T, inner]
        self.narrow.record_fused(recording, &wide, Activation::None, Some(residual)) // [N, T, C]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::gpu::choices::{Choices, DeviceFacts, Family};
    use crate::reference::{self, Memory};
    use crate::weights::Checkpoint;

    /// Dispatches and values of a layer over 300 tokens where `limit` bytes can be bound.
    fn run(family: Family, limit: u64) -> (usize, Vec<f64>) {
        let mut loader = Loader::new("test", ElementType::F32);
        let layer = GegluFeedForward::load(&Checkpoint::assumed().root(), &mut loader, "ff", 4).unwrap();
        let tokens = |name| Tensor::external(name, [2, 150, 4], ElementType::F32);
        let [input, residual, result] = ["input", "residual", "result"].map(tokens);
        let facts = DeviceFacts { binding_limit: limit, ..DeviceFacts::default() };
        let choices = Choices { facts, ..Choices::from(family) };
        let mut recording = Recording::new("test").with_choices(Arc::new(choices));
        let output = layer.record(&mut recording, &input, &residual).unwrap();
        recording.place(&output, &result);

        let mut memory = Memory::default();
        let weights = loader.pending().iter().map(|pending| &pending.tensor);
        for (number, tensor) in weights.chain([&input, &residual]).enumerate() {
            let value = |index: usize| ((index * (number + 3)) as f64).sin();
            memory.set(tensor, (0..tensor.shape().count()).map(value).collect());
        }
        reference::play(&recording, &mut memory);
        (recording.commands().len(), memory.get(&result).to_vec())
    }

    #[test]
    fn some_tokens_after_the_others_give_what_all_give_at_once() {
        for family in [Family::Tiled, Family::Broadcast] {
            let (once, whole) = run(family, 1 << 20);
            // 300 tokens are two groups of 128 and one of 44.
            let (often, parts) = run(family, 128 * 8 * 4 * 4);
            let (least, smallest) = run(family, 1);
            assert!(often > once, "{often} dispatches instead of {once}");
            assert_eq!(least, 3 * once, "{family}: three groups");
            assert_eq!(parts, whole, "{family}");
            assert_eq!(smallest, whole, "{family}");
        }
    }
}
