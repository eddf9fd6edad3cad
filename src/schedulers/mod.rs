//! Schedulers: which timesteps the U-Net is asked for, and how its answers move the sample.
//!
//! A run is planned up front.
//! Every step of every sampler here is a linear map, the same for each element of the planes:
//!
//! ```text
//! [sample'; history'] = matrix · [sample; model output; noise; clipped prediction; history]
//! ```
//!
//! so that one small kernel with one small matrix per call serves them all, and the numbers are made here, in
//! f64, without a tensor in sight.
//!
//! ```
//! use deepcache::schedulers::{SchedulerConfig, SchedulerKind};
//!
//! let text = r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
//!                "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1}"#;
//! let config = SchedulerConfig::from_json("scheduler_config.json", text)?;
//! let trajectory = config.trajectory(SchedulerKind::Ddim, 4, 0.0)?;
//! assert_eq!(trajectory.timesteps, [751.0, 501.0, 251.0, 1.0]);
//! # Ok::<(), deepcache::Error>(())
//! ```

#![warn(clippy::integer_division)]

mod config;
mod ddim;
mod noise_schedule;
mod pndm;

use std::fmt;
use std::str::FromStr;

pub use config::SchedulerConfig;

use crate::error::{Error, Result};

/// The samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SchedulerKind {
    /// Denoising diffusion implicit models: Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>,
    /// as `DDIMScheduler` of diffusers.
    Ddim,
    /// Pseudo numerical methods: Liu, Ren, Lin & Zhao 2022, <https://arxiv.org/abs/2202.09778>,
    /// as `PNDMScheduler` of diffusers; with `skip_prk_steps` it is the PLMS sampler of Stable Diffusion.
    Pndm,
}

impl SchedulerKind {
    /// Every sampler, in the order in which they are listed to people.
    pub const ALL: [Self; 2] = [Self::Ddim, Self::Pndm];

    /// The sampler's short name: `ddim`, `pndm`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
        }
    }

    /// The name of the class in diffusers, as it stands in `scheduler_config.json` and `model_index.json`.
    #[must_use]
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
        }
    }

    /// The sampler of a diffusers class; `None` for a class that is not here.
    #[must_use]
    pub fn from_class_name(class_name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.class_name() == class_name)
    }
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

/// The plan of a whole run: one entry per U-Net call.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// The timestep that each U-Net call is given, in training steps.
    pub timesteps: Vec<f64>,
    /// The standard deviation of the sample that the run starts from, in the space of the latents.
    pub initial_sigma: f64,
    /// Planes of the sample's size that are kept from call to call. They start as zeros.
    pub history: usize,
    /// What happens around each call; as many as there are timesteps.
    pub calls: Vec<Call>,
}

/// One U-Net call and the update that follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The U-Net is given `input_scale · sample`.
    pub input_scale: f64,
    /// How the clipped prediction is made; `None` where nothing is clipped, and its column is then zero.
    pub prediction: Option<ClippedPrediction>,
    /// The update, row-major: `rows · columns` weights.
    /// Rows: the new sample, then each new history plane.
    /// Columns: sample, model output, noise, clipped prediction, then each old history plane.
    pub matrix: Vec<f64>,
    /// `1 + history`.
    pub rows: usize,
    /// `4 + history`.
    pub columns: usize,
    /// Whether this call takes a draw from the random generator, also where its weight is zero.
    pub uses_noise: bool,
}

/// The predicted clean sample: `sample_weight · sample + output_weight · model output`, clamped to
/// `-range ..= range`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClippedPrediction {
    /// The weight of the sample.
    pub sample_weight: f64,
    /// The weight of the model's output.
    pub output_weight: f64,
    /// The largest magnitude that is kept.
    pub range: f64,
}

impl SchedulerConfig {
    /// Plans a run of `steps` steps; `eta` is the share of noise that DDIM adds, from 0 (none) to 1 (as DDPM).
    ///
    /// PNDM makes more calls than steps: one more without Runge-Kutta steps, nine more with them.
    ///
    /// # Errors
    /// [`Error::Option`] if `steps` or `eta` is out of range for this sampler, [`Error::Config`] if the file asks
    /// for something that this sampler cannot do.
    pub fn trajectory(&self, kind: SchedulerKind, steps: usize, eta: f64) -> Result<Trajectory> {
        if !(1..=self.train_timesteps).contains(&steps) {
            let problem = format!("expected 1 to {} steps, found {steps}", self.train_timesteps);
            return Err(Error::option("steps", problem));
        }
        let trajectory = match kind {
            SchedulerKind::Ddim => ddim::trajectory(self, steps, eta)?,
            SchedulerKind::Pndm => pndm::trajectory(self, steps, eta)?,
        };
        let unusable = |call: &Call| {
            let prediction = call.prediction.map_or(0.0, |mean| mean.sample_weight + mean.output_weight);
            !prediction.is_finite() || call.matrix.iter().any(|weight| !weight.is_finite())
        };
        if let Some(index) = trajectory.calls.iter().position(unusable) {
            let timestep = trajectory.timesteps[index];
            let problem =
                format!("divides by zero at timestep {timestep}, where no signal or no noise is left");
            return Err(Error::config(&self.file, "prediction_type", problem));
        }
        Ok(trajectory)
    }
}

impl Trajectory {
    /// The planes that a run starts with: the scaled noise as the sample, then the history.
    #[must_use]
    pub fn start(&self, unit_noise: &[f64]) -> Vec<Vec<f64>> {
        let mut planes = vec![vec![0.0; unit_noise.len()]; 1 + self.history];
        planes[0] = unit_noise.iter().map(|noise| self.initial_sigma * noise).collect();
        planes
    }

    /// Applies the update of one call to the planes: the sample, then the history.
    /// This is the reference that the kernel is compared with.
    ///
    /// `noise` is read only where the call [uses noise](Call::uses_noise), and may be empty elsewhere.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such call, a plane is missing, or the planes differ in size.
    pub fn apply(
        &self,
        call: usize,
        planes: &mut [Vec<f64>],
        model_output: &[f64],
        noise: &[f64],
    ) -> Result<()> {
        let shape = |tensor: &str, expected: usize, found: usize| {
            let (expected, found) = (format!("{expected}"), format!("{found}"));
            Err(Error::Shape { operation: "scheduler step", tensor: tensor.into(), expected, found })
        };
        let Some(update) = self.calls.get(call) else {
            return shape("number of calls", self.calls.len(), call);
        };
        if planes.len() != update.rows {
            return shape("number of planes", update.rows, planes.len());
        }
        let size = model_output.len();
        if let Some(plane) = planes.iter().find(|plane| plane.len() != size) {
            return shape("plane", size, plane.len());
        }
        if update.uses_noise && noise.len() != size {
            return shape("noise", size, noise.len());
        }

        let mut column = vec![0.0; update.columns];
        for element in 0..size {
            let sample = planes[0][element];
            column[SAMPLE] = sample;
            column[OUTPUT] = model_output[element];
            column[NOISE] = if update.uses_noise { noise[element] } else { 0.0 };
            column[PREDICTION] = update.prediction.map_or(0.0, |prediction| {
                let mean =
                    prediction.sample_weight * sample + prediction.output_weight * model_output[element];
                mean.clamp(-prediction.range, prediction.range)
            });
            for (value, plane) in column[HISTORY..].iter_mut().zip(&planes[1..]) {
                *value = plane[element];
            }
            for (row, plane) in update.matrix.chunks_exact(update.columns).zip(planes.iter_mut()) {
                plane[element] = row.iter().zip(&column).map(|(weight, value)| weight * value).sum();
            }
        }
        Ok(())
    }
}

/// The columns of [`Call::matrix`].
const SAMPLE: usize = 0;
const OUTPUT: usize = 1;
const NOISE: usize = 2;
const PREDICTION: usize = 3;
const HISTORY: usize = 4;

impl Call {
    /// A call without clipping or noise whose matrix is made of rows; the planes that have no row stay zero.
    fn from_rows(history: usize, rows: &[Vec<f64>]) -> Self {
        let (height, columns) = (1 + history, HISTORY + history);
        let mut matrix = vec![0.0; height * columns];
        for (place, row) in matrix.chunks_exact_mut(columns).zip(rows) {
            place.copy_from_slice(row);
        }
        Self { input_scale: 1.0, prediction: None, matrix, rows: height, columns, uses_noise: false }
    }
}
