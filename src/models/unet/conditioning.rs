//! What a run of the U-Net computes once.

use crate::tensor::Tensor;

/// What a run computes once, in memory that outlives recordings.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// Keys and values of the prompt for every cross-attention: `[N, T, 2C]`.
    pub(super) keys_values: Vec<Tensor>,
    /// Projections of every step's time embedding for every ResNet block: `[S, C]`.
    pub(super) times: Vec<Tensor>,
    /// The row of the tables that belongs to the current step: `[1]`, u32.
    pub(super) step: Tensor,
    /// Timesteps: `[S]`, f32.
    pub(super) timesteps: Tensor,
    /// Frequencies of the sinusoids: `[C/2]`, f32.
    pub(super) frequencies: Tensor,
}

impl Conditioning {
    pub(super) fn time(&self) -> (&[Tensor], &Tensor) {
        (&self.times, &self.step)
    }

    /// The row of the tables that belongs to the current step: `[1]`, u32. Written before each play.
    #[must_use]
    pub fn step(&self) -> &Tensor {
        &self.step
    }

    /// Timesteps of all calls: `[S]`, f32. Written once.
    #[must_use]
    pub fn timesteps(&self) -> &Tensor {
        &self.timesteps
    }

    /// Frequencies of the sinusoids: `[C/2]`, f32. Written once with [`UNet::frequencies`](super::UNet::frequencies).
    #[must_use]
    pub fn frequencies(&self) -> &Tensor {
        &self.frequencies
    }

    /// All tensors, to be allocated.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.keys_values.iter().chain(&self.times).chain([&self.step, &self.timesteps, &self.frequencies])
    }
}
