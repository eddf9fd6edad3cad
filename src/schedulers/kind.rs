//! The samplers by name, and what each of diffusers' classes knows and takes as default.

use std::fmt;
use std::str::FromStr;

use super::config::{BetaSchedule, PredictionType};
use super::options::TimestepSpacing;
use crate::error::{Error, Result};

/// The samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerKind {
    /// Denoising diffusion probabilistic models: Ho, Jain & Abbeel 2020, <https://arxiv.org/abs/2006.11239>,
    /// as `DDPMScheduler` of diffusers. Adds noise in every step.
    Ddpm,
    /// Denoising diffusion implicit models: Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>,
    /// as `DDIMScheduler` of diffusers.
    Ddim,
    /// Pseudo numerical methods: Liu, Ren, Lin & Zhao 2022, <https://arxiv.org/abs/2202.09778>,
    /// as `PNDMScheduler` of diffusers; with `skip_prk_steps` it is the PLMS sampler of Stable Diffusion.
    Pndm,
    /// Euler's method over sigma: Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>,
    /// as `EulerDiscreteScheduler` of diffusers.
    Euler,
    /// Euler's method to less noise than asked for, which new noise makes up for: the ancestral sampler of
    /// k-diffusion, as `EulerAncestralDiscreteScheduler` of diffusers. Adds noise in every step.
    EulerAncestral,
    /// Heun's method over sigma: Karras, Aittala, Aila & Laine 2022, <https://arxiv.org/abs/2206.00364>,
    /// as `HeunDiscreteScheduler` of diffusers. Two calls per step but for the last.
    Heun,
    /// The midpoint method over sigma, its middle in the logarithm: DPM2 of k-diffusion,
    /// as `KDPM2DiscreteScheduler` of diffusers. Two calls per step but for the last.
    Dpm2,
    /// Linear multi-step over sigma: LMS of k-diffusion, as `LMSDiscreteScheduler` of diffusers.
    Lms,
    /// DPM-Solver++(2M): Lu, Zhou, Bao, Chen, Li & Zhu 2022, <https://arxiv.org/abs/2211.01095>,
    /// as `DPMSolverMultistepScheduler` of diffusers.
    DpmPlusPlus2m,
    /// SDE-DPM-Solver++(2M), of the same paper and class. Adds noise in every step.
    DpmPlusPlus2mSde,
    /// DPM-Solver++ with three outputs per step, of the same paper and class.
    DpmPlusPlus3m,
    /// DPM-Solver++(2S), of the same paper, as `DPMSolverSinglestepScheduler` of diffusers.
    DpmPlusPlus2s,
    /// Unified predictor-corrector: Zhao, Bai, Rao, Zhou & Lu 2023, <https://arxiv.org/abs/2302.04867>,
    /// as `UniPCMultistepScheduler` of diffusers.
    UniPc,
    /// Diffusion exponential integrator sampler: Zhang & Chen 2022, <https://arxiv.org/abs/2204.13902>,
    /// as `DEISMultistepScheduler` of diffusers.
    Deis,
    /// Latent consistency models: Luo, Tan, Huang, Li & Zhao 2023, <https://arxiv.org/abs/2310.04378>,
    /// as `LCMScheduler` of diffusers. Adds noise between steps.
    Lcm,
}

impl SchedulerKind {
    /// Every sampler, in the order in which they are listed to people.
    pub const ALL: [Self; 15] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Lms,
        Self::DpmPlusPlus2m,
        Self::DpmPlusPlus2mSde,
        Self::DpmPlusPlus3m,
        Self::DpmPlusPlus2s,
        Self::UniPc,
        Self::Deis,
        Self::Lcm,
    ];

    /// The sampler's short name: `ddim`, `euler-ancestral`, `dpmpp-2m`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::Heun => "heun",
            Self::Dpm2 => "dpm2",
            Self::Lms => "lms",
            Self::DpmPlusPlus2m => "dpmpp-2m",
            Self::DpmPlusPlus2mSde => "dpmpp-2m-sde",
            Self::DpmPlusPlus3m => "dpmpp-3m",
            Self::DpmPlusPlus2s => "dpmpp-2s",
            Self::UniPc => "unipc",
            Self::Deis => "deis",
            Self::Lcm => "lcm",
        }
    }

    /// The name of the class in diffusers, as it stands in `scheduler_config.json` and `model_index.json`.
    /// Three samplers share `DPMSolverMultistepScheduler`.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Dpm2 => "KDPM2DiscreteScheduler",
            Self::Lms => "LMSDiscreteScheduler",
            Self::DpmPlusPlus2m | Self::DpmPlusPlus2mSde | Self::DpmPlusPlus3m => {
                "DPMSolverMultistepScheduler"
            }
            Self::DpmPlusPlus2s => "DPMSolverSinglestepScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Deis => "DEISMultistepScheduler",
            Self::Lcm => "LCMScheduler",
        }
    }

    /// The sampler of a diffusers class, as its defaults make it; `None` for a class that is not here.
    #[must_use]
    pub fn from_class_name(class_name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.class_name() == class_name)
    }

    /// Whether a run adds noise on its way, so that more steps do not lead to the same picture.
    ///
    /// This is the sampler as its name says.
    /// A file can make a solver of `DPMSolverSinglestepScheduler` stochastic too:
    /// [`Trajectory::draws_noise`](super::Trajectory::draws_noise) knows of one run for certain.
    #[must_use]
    pub fn is_stochastic(self, eta: f64) -> bool {
        match self {
            Self::Ddpm | Self::EulerAncestral | Self::DpmPlusPlus2mSde | Self::Lcm => true,
            Self::Ddim => eta > 0.0,
            _ => false,
        }
    }

    /// The calls that a step takes, `order` of the class in diffusers; the last step of a run takes one.
    #[must_use]
    pub fn calls_per_step(self) -> usize {
        match self {
            Self::Heun | Self::Dpm2 => 2,
            _ => 1,
        }
    }

    pub(super) fn class(self) -> Class {
        use TimestepSpacing::{Leading, Linspace, Quadratic, Trailing, Uniform};
        use ZeroTerminalSignal::{Tiny, Unknown, Zero};
        const NO_SAMPLE: &[PredictionType] = &[PredictionType::Epsilon, PredictionType::Velocity];
        // The classes that work with sigmas, and those that work with the share of signal.
        const SIGMAS: Class = Class {
            beta_start: 0.0001,
            beta_end: 0.02,
            beta_schedule: BetaSchedule::Linear,
            further_beta_schedules: &[],
            predictions: &[PredictionType::Epsilon, PredictionType::Velocity, PredictionType::Sample],
            spacings: &[Linspace, Leading, Trailing],
            sigma_spacings: true,
            zero_terminal_signal: Unknown,
            thresholding: false,
            clip_sample: None,
        };
        const ALPHAS: Class = Class {
            spacings: &[Leading, Linspace, Trailing, Uniform, Quadratic],
            sigma_spacings: false,
            zero_terminal_signal: Zero,
            thresholding: true,
            clip_sample: Some(true),
            ..SIGMAS
        };
        match self {
            Self::Ddpm => {
                Class { further_beta_schedules: &[BetaSchedule::Sigmoid, BetaSchedule::Laplace], ..ALPHAS }
            }
            Self::Ddim => ALPHAS,
            Self::Pndm => Class {
                predictions: NO_SAMPLE,
                spacings: &[Leading, Linspace, Trailing],
                zero_terminal_signal: Unknown,
                thresholding: false,
                clip_sample: None,
                ..ALPHAS
            },
            Self::Lcm => Class {
                beta_start: 0.00085,
                beta_end: 0.012,
                beta_schedule: BetaSchedule::ScaledLinear,
                spacings: &[],
                clip_sample: Some(false),
                ..ALPHAS
            },
            Self::Euler => Class { zero_terminal_signal: Tiny, ..SIGMAS },
            Self::EulerAncestral => {
                Class { predictions: NO_SAMPLE, sigma_spacings: false, zero_terminal_signal: Tiny, ..SIGMAS }
            }
            Self::Heun => Class {
                beta_start: 0.00085,
                beta_end: 0.012,
                further_beta_schedules: &[BetaSchedule::Exponential],
                clip_sample: Some(false),
                ..SIGMAS
            },
            Self::Dpm2 => Class { beta_start: 0.00085, beta_end: 0.012, predictions: NO_SAMPLE, ..SIGMAS },
            Self::Lms => SIGMAS,
            Self::DpmPlusPlus2m | Self::DpmPlusPlus2mSde | Self::DpmPlusPlus3m | Self::UniPc => {
                Class { zero_terminal_signal: Tiny, thresholding: true, ..SIGMAS }
            }
            Self::DpmPlusPlus2s => Class { spacings: &[Linspace], thresholding: true, ..SIGMAS },
            Self::Deis => Class { thresholding: true, ..SIGMAS },
        }
    }
}

/// What a class of diffusers 0.42 knows, and its defaults.
pub(super) struct Class {
    pub(super) beta_start: f64,
    pub(super) beta_end: f64,
    pub(super) beta_schedule: BetaSchedule,
    /// Schedules beside `linear`, `scaled_linear` and `squaredcos_cap_v2`, which every class has.
    pub(super) further_beta_schedules: &'static [BetaSchedule],
    pub(super) predictions: &'static [PredictionType],
    /// The timestep spacings that it can be asked for, its default first; none where it has a rule of its own.
    pub(super) spacings: &'static [TimestepSpacing],
    /// Whether it can be asked for Karras, exponential and beta sigmas.
    pub(super) sigma_spacings: bool,
    pub(super) zero_terminal_signal: ZeroTerminalSignal,
    pub(super) thresholding: bool,
    /// The default of `clip_sample`; `None` where there is no such key.
    pub(super) clip_sample: Option<bool>,
}

/// What a class makes of `rescale_betas_zero_snr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroTerminalSignal {
    /// It does not know the key.
    Unknown,
    /// No signal is left at the last timestep.
    Zero,
    /// A share of 2⁻²⁴ is left, so that sigma stays finite.
    Tiny,
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::option("scheduler", format!("expected one of {names}; found \"{name}\""))
        })
    }
}
