//! Normal noise as other programs draw it, so that a seed means the same picture here and there.

mod philox;
mod torch;

use std::fmt;
use std::str::FromStr;

pub use philox::PhiloxGenerator;
pub use torch::TorchGenerator;

use crate::error::{Error, Result};

/// Whose random numbers a seed stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Generator {
    /// PyTorch's on the CPU, the default of diffusers' examples: [`TorchGenerator`].
    #[default]
    Torch,
    /// CUDA's, the default of AUTOMATIC1111 and stable-diffusion.cpp: [`PhiloxGenerator`].
    Philox,
}

impl Generator {
    /// A source at the start of the sequence of a seed.
    #[must_use]
    pub fn seeded(self, seed: u64) -> NoiseSource {
        NoiseSource(match self {
            Self::Torch => Source::Torch(Box::new(TorchGenerator::new(seed))),
            Self::Philox => Source::Philox(PhiloxGenerator::new(seed)),
        })
    }
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torch => "torch",
            Self::Philox => "philox",
        })
    }
}

impl FromStr for Generator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "torch" => Ok(Self::Torch),
            "philox" => Ok(Self::Philox),
            other => Err(Error::option("rng", format!("expected torch or philox, found \"{other}\""))),
        }
    }
}

/// A sequence of normal numbers.
#[derive(Clone, Debug)]
pub struct NoiseSource(Source);

#[derive(Clone, Debug)]
enum Source {
    Torch(Box<TorchGenerator>),
    Philox(PhiloxGenerator),
}

impl NoiseSource {
    /// One draw of `count` numbers of mean 0 and variance 1. The size of a draw matters: several small draws are
    /// not one large one.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        match &mut self.0 {
            Source::Torch(generator) => generator.normal(count),
            Source::Philox(generator) => generator.normal(count),
        }
    }
}
