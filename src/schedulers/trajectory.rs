//! A planned run: one small matrix per U-Net call, and the reference that applies it.

use std::ops::Range;

use super::row::{HISTORY, NOISE, OUTPUT, PREDICTION, Row, SAMPLE};
use crate::error::{Error, Result};

/// The plan of a whole run: one entry per U-Net call.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// The timestep that each U-Net call is given, in training steps; fractional for some samplers.
    pub timesteps: Vec<f64>,
    /// The noise levels of the samplers that work with them: one per step of the whole run and the one that it ends at,
    /// falling.
    /// Sigma is the standard deviation of the noise over that of the signal, unitless.
    pub sigmas: Option<Vec<f64>>,
    /// The standard deviation of the sample that the run starts from, in the space of the latents.
    pub initial_sigma: f64,
    /// Planes of the sample's size that are kept from call to call, at most 8. They start as zeros.
    pub history: usize,
    /// What a noised sample is made of where each call begins; as many as there are timesteps.
    pub noise_levels: Vec<NoiseLevel>,
    /// What happens around each call; as many as there are timesteps.
    pub calls: Vec<Call>,
}

/// How much of a sample is the clean one, and how much is noise: `signal · clean + noise · unit noise`.
/// As `add_noise` of the sampler's class in diffusers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// The weight of the clean sample; 1 for the samplers whose sample is not scaled down.
    pub signal: f64,
    /// The standard deviation of the noise, in the space of the latents.
    pub noise: f64,
}

impl NoiseLevel {
    /// A clean sample with noise.
    #[must_use]
    pub fn add_noise(&self, clean: &[f64], unit_noise: &[f64]) -> Vec<f64> {
        clean.iter().zip(unit_noise).map(|(clean, noise)| self.signal * clean + self.noise * noise).collect()
    }
}

/// One U-Net call and the update that follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The U-Net is given `input_scale · sample`.
    pub input_scale: f64,
    /// How the limited prediction is made; `None` where nothing is limited, and its column is then zero.
    pub prediction: Option<Prediction>,
    /// The update, row-major: `rows · columns` weights.
    /// Rows: the new sample, then each new history plane.
    /// Columns: sample, model output, noise, limited prediction, then each old history plane.
    pub matrix: Vec<f64>,
    /// `1 + history`.
    pub rows: usize,
    /// `4 + history`.
    pub columns: usize,
    /// Whether this call takes a draw from the random generator, also where its weight is zero.
    pub uses_noise: bool,
}

/// The predicted clean sample, `sample_weight · sample + output_weight · model output`, kept within limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The weight of the sample.
    pub sample_weight: f64,
    /// The weight of the model's output.
    pub output_weight: f64,
    /// What is done with values that are too large.
    pub limit: Limit,
}

/// How a predicted clean sample is kept within limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// Every value is clamped to `-range ..= range`.
    Clamp {
        /// The largest magnitude that is kept.
        range: f64,
    },
    /// Dynamic thresholding: the values of one image are clamped to `-s ..= s` and divided by `s`, which is the
    /// quantile of their magnitudes, but at least 1 and at most `most`.
    /// Saharia et al. 2022, <https://arxiv.org/abs/2205.11487>, section 2.3.
    Quantile {
        /// Which quantile, from 0 to 1; between two values, linearly.
        ratio: f64,
        /// The largest `s`.
        most: f64,
    },
}

impl Trajectory {
    /// The planes that a run starts with: the scaled noise as the sample, then the history.
    #[must_use]
    pub fn start(&self, unit_noise: &[f64]) -> Vec<Vec<f64>> {
        let mut planes = vec![vec![0.0; unit_noise.len()]; 1 + self.history];
        planes[0] = unit_noise.iter().map(|noise| self.initial_sigma * noise).collect();
        planes
    }

    /// The planes that a run from a clean sample starts with: the sample with noise of the first call's level, then
    /// the history.
    /// No plane at all where there is no call.
    #[must_use]
    pub fn start_from(&self, clean: &[f64], unit_noise: &[f64]) -> Vec<Vec<f64>> {
        let Some(level) = self.noise_levels.first() else { return Vec::new() };
        let mut planes = vec![vec![0.0; clean.len()]; 1 + self.history];
        planes[0] = level.add_noise(clean, unit_noise);
        planes
    }

    /// Only these calls.
    pub(super) fn only(mut self, calls: Range<usize>) -> Self {
        self.timesteps = self.timesteps[calls.clone()].to_vec();
        self.noise_levels = self.noise_levels[calls.clone()].to_vec();
        self.calls = self.calls[calls].to_vec();
        self
    }

    /// Whether any call of this run takes a draw from the random generator after the start.
    #[must_use]
    pub fn draws_noise(&self) -> bool {
        self.calls.iter().any(|call| call.uses_noise)
    }

    /// Applies the update of one call to the planes: the sample, then the history.
    /// This is the reference that the kernel is compared with.
    ///
    /// `noise` is read only where the call [uses noise](Call::uses_noise), and may be empty elsewhere.
    /// The planes hold `images` images, one after the other: dynamic thresholding limits each by itself.
    ///
    /// # Errors
    /// [`Error::Shape`] if there is no such call, a plane is missing, the planes differ in size, or their size is
    /// no multiple of the number of images.
    pub fn apply(
        &self,
        call: usize,
        planes: &mut [Vec<f64>],
        model_output: &[f64],
        noise: &[f64],
        images: usize,
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
        if images == 0 || !size.is_multiple_of(images) {
            return shape("values of all images", images * size.div_ceil(images.max(1)), size);
        }

        let prediction = update.prediction.map(|prediction| {
            let size = size.div_euclid(images).max(1);
            let images = planes[0].chunks(size).zip(model_output.chunks(size));
            images.flat_map(|(sample, output)| prediction.of_image(sample, output)).collect::<Vec<f64>>()
        });
        let mut column = vec![0.0; update.columns];
        for element in 0..size {
            column[SAMPLE] = planes[0][element];
            column[OUTPUT] = model_output[element];
            column[NOISE] = if update.uses_noise { noise[element] } else { 0.0 };
            column[PREDICTION] = prediction.as_ref().map_or(0.0, |prediction| prediction[element]);
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

impl Prediction {
    /// The limited prediction for the values of one image.
    fn of_image(&self, sample: &[f64], output: &[f64]) -> Vec<f64> {
        let weigh =
            |(sample, output): (&f64, &f64)| self.sample_weight * sample + self.output_weight * output;
        let mut values: Vec<f64> = sample.iter().zip(output).map(weigh).collect();
        let (bound, divisor) = match self.limit {
            Limit::Clamp { range } => (range, 1.0),
            Limit::Quantile { ratio, most } => {
                let bound = quantile_of_magnitudes(&values, ratio).max(1.0).min(most);
                (bound, bound)
            }
        };
        values.iter_mut().for_each(|value| *value = value.max(-bound).min(bound) / divisor);
        values
    }

    fn is_finite(&self) -> bool {
        self.sample_weight.is_finite() && self.output_weight.is_finite()
    }
}

/// The quantile of the magnitudes, linear between two of them; 0 of no values.
fn quantile_of_magnitudes(values: &[f64], ratio: f64) -> f64 {
    let mut magnitudes: Vec<f64> = values.iter().map(|value| value.abs()).collect();
    magnitudes.sort_by(f64::total_cmp);
    let Some(last) = magnitudes.len().checked_sub(1) else { return 0.0 };
    let rank = ratio * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a position")]
    let below = (rank as usize).min(last);
    let above = (below + 1).min(last);
    magnitudes[below] + (rank - below as f64) * (magnitudes[above] - magnitudes[below])
}

impl Call {
    /// A call without prediction or noise whose matrix is made of rows; the planes that have no row become zero.
    pub(super) fn from_rows(history: usize, rows: &[Row]) -> Self {
        let (height, columns) = (1 + history, HISTORY + history);
        let mut matrix = vec![0.0; height * columns];
        for (place, row) in matrix.chunks_exact_mut(columns).zip(rows) {
            place.copy_from_slice(row.weights(columns));
        }
        Self { input_scale: 1.0, prediction: None, matrix, rows: height, columns, uses_noise: false }
    }

    /// Whether every weight is a number.
    pub(super) fn is_finite(&self) -> bool {
        self.input_scale.is_finite()
            && self.prediction.is_none_or(|prediction| prediction.is_finite())
            && self.matrix.iter().all(|weight| weight.is_finite())
    }
}
