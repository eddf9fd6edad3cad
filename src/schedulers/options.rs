//! What a caller may choose about the steps of a run.

use std::fmt;
use std::str::FromStr;

use super::kind::SchedulerKind;
use crate::error::{Error, Result};

/// What a caller may choose about a run's steps.
///
/// `None` leaves a choice to the model's file, or else to the default of the sampler's class.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// The sampler.
    pub kind: SchedulerKind,
    /// The number of steps, from 1 to the model's number of training timesteps.
    /// Some samplers make more calls than steps.
    pub steps: usize,
    /// The share of noise that DDIM adds in every step, from 0 (none) to 1 (as DDPM); 0 for all other samplers.
    pub eta: f64,
    /// How the noise levels between the first and the last are spaced.
    /// DDPM, DDIM, PNDM, Euler ancestral and LCM cannot be asked for this.
    pub sigmas: Option<SigmaSpacing>,
    /// Which training timesteps a run visits.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// The share of the distillation's timesteps, counted from the one with the least noise, that LCM picks its own
    /// from: `strength` of `LCMScheduler.set_timesteps`. Above 0 and at most 1; 1 for all other samplers.
    pub distillation_share: f64,
}

impl SamplerOptions {
    /// A run of so many steps of a sampler, everything else as the model's file says.
    #[must_use]
    pub fn new(kind: SchedulerKind, steps: usize) -> Self {
        Self { kind, steps, eta: 0.0, sigmas: None, timestep_spacing: None, distillation_share: 1.0 }
    }
}

/// How the noise levels (sigma, the standard deviation of the noise over that of the signal) between the first and
/// the last of a run are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SigmaSpacing {
    /// Evenly in the seventh root: Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>,
    /// equation 5.
    Karras,
    /// Evenly in the logarithm.
    Exponential,
    /// By quantiles of the beta distribution with both parameters 0.6, so densely at both ends:
    /// *Beta Sampling is All You Need*, 2024, <https://arxiv.org/abs/2407.12173>.
    Beta,
}

impl SigmaSpacing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Karras, Self::Exponential, Self::Beta];

    /// The name: `karras`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
        }
    }
}

impl fmt::Display for SigmaSpacing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SigmaSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::option("sigmas", format!("expected one of {names}; found \"{name}\""))
        })
    }
}

/// Which training timesteps a run visits.
///
/// The first three are those of diffusers: Lin, Liu, Li & Yang 2023, <https://arxiv.org/abs/2305.08891>, table 2.
/// The other two are those of the code that came with DDIM and with latent diffusion; only DDPM and DDIM know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TimestepSpacing {
    /// Whole strides from the first timestep, or from the offset of the file.
    Leading,
    /// Evenly from the last timestep to the first.
    Linspace,
    /// Even strides from the last timestep.
    Trailing,
    /// Whole strides from the first timestep, or from the offset of the file, as far as the training timesteps go:
    /// more calls than steps where the number of steps does not divide the number of training timesteps.
    Uniform,
    /// Squares of evenly spaced numbers, up to four fifths of the training timesteps.
    /// With many steps the smallest timesteps repeat.
    Quadratic,
}

impl TimestepSpacing {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Leading, Self::Linspace, Self::Trailing, Self::Uniform, Self::Quadratic];

    /// The name: `leading`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
            Self::Uniform => "uniform",
            Self::Quadratic => "quadratic",
        }
    }
}

impl fmt::Display for TimestepSpacing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for TimestepSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|spacing| spacing.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::option("timestep spacing", format!("expected one of {names}; found \"{name}\""))
        })
    }
}
