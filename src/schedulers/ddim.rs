//! DDIM: jump from the predicted clean sample back to the noise level of the next timestep.
//!
//! Song, Meng & Ermon 2020, <https://arxiv.org/abs/2010.02502>, equations 12 and 16.

use super::config::{PredictionType, SchedulerConfig};
use super::noise_schedule::{NoiseSchedule, spaced_timesteps, whole};
use super::{Call, ClippedPrediction, HISTORY, NOISE, OUTPUT, PREDICTION, SAMPLE, Trajectory};
use crate::error::{Error, Result};

pub(super) fn trajectory(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Trajectory> {
    if !(0.0..=1.0).contains(&eta) {
        return Err(Error::option("eta", format!("expected 0 to 1, found {eta}")));
    }
    if config.thresholding {
        let problem = "dynamic thresholding is not supported: expected false, found true";
        return Err(Error::config(&config.file, "thresholding", problem));
    }
    let clip = config.clip_sample.unwrap_or(true).then_some(config.clip_sample_range);
    let schedule = noise_schedule(config);
    let timesteps = spaced_timesteps(config, steps)?;
    let stride = whole(config.train_timesteps.div_euclid(steps));
    let calls = timesteps
        .iter()
        .map(|&timestep| {
            let (alpha, next_alpha) = (schedule.alpha(timestep)?, schedule.alpha(timestep - stride)?);
            Ok(call(config.prediction_type, alpha, next_alpha, eta, clip))
        })
        .collect::<Result<_>>()?;
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    Ok(Trajectory { timesteps, initial_sigma: 1.0, history: 0, calls })
}

pub(super) fn noise_schedule(config: &SchedulerConfig) -> NoiseSchedule {
    NoiseSchedule::new(config, config.set_alpha_to_one.unwrap_or(true), config.rescale_betas_zero_snr)
}

/// One step from the signal share `alpha` to `next_alpha`.
fn call(kind: PredictionType, alpha: f64, next_alpha: f64, eta: f64, clip: Option<f64>) -> Call {
    let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
    // The clean sample and the noise that the model sees in the sample, as weights of (sample, output).
    let (clean, residual) = match kind {
        PredictionType::Epsilon => ((signal.recip(), -noise / signal), (0.0, 1.0)),
        PredictionType::Sample => ((0.0, 1.0), (noise.recip(), -signal / noise)),
        PredictionType::Velocity => ((signal, -noise), (noise, signal)),
    };
    let variance = (1.0 - next_alpha) / (1.0 - alpha) * (1.0 - alpha / next_alpha);
    let deviation = eta * variance.max(0.0).sqrt();
    let direction = (1.0 - next_alpha - deviation * deviation).max(0.0).sqrt();
    let next_signal = next_alpha.sqrt();

    let mut row = vec![0.0; HISTORY];
    row[SAMPLE] = direction * residual.0;
    row[OUTPUT] = direction * residual.1;
    row[NOISE] = deviation;
    let prediction =
        clip.map(|range| ClippedPrediction { sample_weight: clean.0, output_weight: clean.1, range });
    if prediction.is_some() {
        row[PREDICTION] = next_signal;
    } else {
        row[SAMPLE] += next_signal * clean.0;
        row[OUTPUT] += next_signal * clean.1;
    }
    Call { prediction, uses_noise: eta > 0.0, ..Call::from_rows(0, &[row]) }
}
