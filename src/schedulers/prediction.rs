//! What a model's output says about the sample: the clean sample, and the noise in it.
//!
//! A sample is `signal · clean + noise level · noise`. Which of the two the model predicts, or a mixture, is its
//! prediction type: Salimans & Ho 2022, <https://arxiv.org/abs/2202.00512>, section 4 and appendix D.

use super::config::{PredictionType, SchedulerConfig};
use super::kind::SchedulerKind;
use super::row::{OUTPUT, PREDICTION, Row, SAMPLE};
use super::trajectory::{Limit, NoiseLevel, Prediction};
use crate::error::Result;

/// How much signal and how much noise is in a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    pub(super) signal: f64,
    pub(super) noise: f64,
    /// The standard deviation of the noise over that of the signal.
    pub(super) sigma: f64,
}

impl Level {
    /// The level at which a share `alpha` of the variance is signal.
    pub(super) fn of_alpha(alpha: f64) -> Self {
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        Self { signal, noise, sigma: noise / signal }
    }

    /// The level of a sigma, both parts together having a variance of 1.
    pub(super) fn of_sigma(sigma: f64) -> Self {
        let signal = sigma.hypot(1.0).recip();
        Self { signal, noise: sigma * signal, sigma }
    }

    /// The two parts, as they stand in a sample whose variance is 1.
    pub(super) fn in_sample(self) -> NoiseLevel {
        NoiseLevel { signal: self.signal, noise: self.noise }
    }

    /// Half the logarithm of the ratio of signal to noise, in variances; infinite where there is no noise.
    pub(super) fn lambda(self) -> f64 {
        -self.sigma.ln()
    }

    /// The clean sample that an output means.
    pub(super) fn clean(self, kind: PredictionType) -> Row {
        let (sample, output) = (Row::column(SAMPLE), Row::column(OUTPUT));
        match kind {
            PredictionType::Epsilon => {
                Row::sum([(self.signal.recip(), sample), (-self.noise / self.signal, output)])
            }
            PredictionType::Velocity => Row::sum([(self.signal, sample), (-self.noise, output)]),
            PredictionType::Sample => output,
        }
    }

    /// The noise that an output means.
    pub(super) fn residual(self, kind: PredictionType) -> Row {
        let (sample, output) = (Row::column(SAMPLE), Row::column(OUTPUT));
        match kind {
            PredictionType::Epsilon => output,
            PredictionType::Velocity => Row::sum([(self.noise, sample), (self.signal, output)]),
            PredictionType::Sample => self.residual_of(output),
        }
    }

    /// The noise that is left if the clean sample is this.
    pub(super) fn residual_of(self, clean: Row) -> Row {
        Row::sum([(self.noise.recip(), Row::column(SAMPLE)), (-self.signal / self.noise, clean)])
    }

    /// As [`clean`](Self::clean) for a sample that is not scaled down: `clean + sigma · noise`.
    pub(super) fn clean_unscaled(self, kind: PredictionType) -> Row {
        // The model sees `signal · sample`.
        self.clean(kind).with_column_scaled(SAMPLE, self.signal)
    }
}

impl SchedulerConfig {
    /// The weights of the sample and of the model's output in the clean sample that the output means, where a noised
    /// sample is made so. They are not finite where the sample has no signal and the output tells of noise only.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the sampler cannot work with what the model predicts.
    pub fn clean_weights(&self, kind: SchedulerKind, made: NoiseLevel) -> Result<[f64; 2]> {
        // The model sees a sample of unit variance.
        let scale = made.signal.hypot(made.noise).recip();
        let level =
            Level { signal: made.signal * scale, noise: made.noise * scale, sigma: made.noise / made.signal };
        let clean = level.clean(self.prediction(kind)?).with_column_scaled(SAMPLE, scale);
        Ok([clean.weight(SAMPLE), clean.weight(OUTPUT)])
    }
}

/// A predicted clean sample as it enters the update: by itself, or, where it is limited, as a column of its own.
pub(super) fn limited(clean: Row, limit: Option<Limit>) -> (Row, Option<Prediction>) {
    let Some(limit) = limit else { return (clean, None) };
    let prediction =
        Prediction { sample_weight: clean.weight(SAMPLE), output_weight: clean.weight(OUTPUT), limit };
    (Row::column(PREDICTION), Some(prediction))
}
