//! PNDM: linear multi-step over earlier model outputs, optionally started by Runge-Kutta steps.
//!
//! Liu, Ren, Lin & Zhao 2022, <https://arxiv.org/abs/2202.09778>: the transfer from one noise level to another is
//! equation 9; the multi-step and Runge-Kutta steps are equations 12 and 13 and algorithm 2.
//!
//! Without Runge-Kutta steps (`skip_prk_steps`, as Stable Diffusion is run) the second timestep is visited twice:
//! the first visit tries the step, the second takes it again from the old sample with the mean of both outputs.
//!
//! | history | without Runge-Kutta | with |
//! |---|---|---|
//! | plane 0 | newest output kept | newest output kept |
//! | plane 1 | second newest; for the repeated step, the sample it starts from | second newest |
//! | plane 2 | third newest | third newest |
//! | plane 3 | | the sample that the Runge-Kutta step starts from |
//! | plane 4 | | the outputs of this Runge-Kutta step, weighted |

use super::config::{PredictionType, SchedulerConfig};
use super::noise_schedule::NoiseSchedule;
use super::options::SamplerOptions;
use super::prediction::Level;
use super::row::{OUTPUT, Row, SAMPLE};
use super::timesteps::{whole, whole_timesteps};
use super::trajectory::{Call, Trajectory};
use crate::error::{Error, Result};

/// Timesteps that Runge-Kutta steps go through, each but the last in two halves.
const RUNGE_KUTTA_TIMESTEPS: usize = 4;

/// Calls of the Runge-Kutta steps.
const RUNGE_KUTTA_CALLS: usize = 4 * (RUNGE_KUTTA_TIMESTEPS - 1);

pub(super) fn trajectory(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    begin: usize,
) -> Result<Trajectory> {
    let steps = options.steps;
    let prediction = config.prediction(options.kind)?;
    let spaced = whole_timesteps(config, options)?;
    let planner = Planner {
        schedule: NoiseSchedule::new(config, options.kind)?,
        prediction,
        history: if config.skip_prk_steps { 3 } else { 5 },
        stride: whole(config.train_timesteps.div_euclid(steps)),
    };
    if !config.skip_prk_steps && steps < RUNGE_KUTTA_TIMESTEPS {
        let problem = format!("pndm with \"skip_prk_steps\" false needs at least 4 steps, found {steps}");
        return Err(Error::option("steps", problem));
    }
    let timesteps = if config.skip_prk_steps { second_twice(&spaced) } else { planner.in_halves(&spaced) };
    let calls = if config.skip_prk_steps {
        planner.multi_step_only(&timesteps, begin)?
    } else {
        planner.with_runge_kutta(&timesteps, begin)?
    };
    let noise_levels = planner.schedule.noise_levels(&timesteps)?;
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    let history = planner.history;
    Ok(Trajectory { timesteps, sigmas: None, initial_sigma: 1.0, history, noise_levels, calls })
}

/// The timesteps without Runge-Kutta steps.
fn second_twice(spaced: &[i64]) -> Vec<i64> {
    let mut timesteps = spaced.to_vec();
    if let Some(&second) = spaced.get(1) {
        timesteps.insert(1, second);
    }
    timesteps
}

struct Planner {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    history: usize,
    /// Training timesteps per step.
    stride: i64,
}

impl Planner {
    /// What a call is follows from the number of calls before it, not from its timestep; so in a run that begins later
    /// the step that is taken again is that of the call after the first, as in diffusers.
    fn multi_step_only(&self, timesteps: &[i64], begin: usize) -> Result<Vec<Call>> {
        let (sample, output) = (Row::column(SAMPLE), Row::column(OUTPUT));
        let calls =
            timesteps.iter().enumerate().map(|(index, &timestep)| match index.saturating_sub(begin) {
                0 => {
                    let moved = self.transfer(timestep, timestep - self.stride, sample, output)?;
                    Ok(self.call(&[moved, output, sample]))
                }
                1 => {
                    let mean = Row::sum([(0.5, output), (0.5, Row::plane(0))]);
                    let moved = self.transfer(timestep + self.stride, timestep, Row::plane(1), mean)?;
                    Ok(self.call(&[moved, Row::plane(0)]))
                }
                before => self.multi_step(timestep, before - 1),
            });
        calls.collect()
    }

    /// The timesteps with Runge-Kutta steps: four visits for each of the first three steps.
    fn in_halves(&self, spaced: &[i64]) -> Vec<i64> {
        let half = self.stride.div_euclid(2);
        let starts = &spaced[..RUNGE_KUTTA_TIMESTEPS];
        let visits = starts.windows(2).flat_map(|pair| {
            let (start, end) = (pair[0], pair[1]);
            [start, end + half, end + half, end]
        });
        visits.chain(spaced[RUNGE_KUTTA_TIMESTEPS - 1..].iter().copied()).collect()
    }

    /// As [`multi_step_only`](Self::multi_step_only), the first calls of a run are the Runge-Kutta steps.
    fn with_runge_kutta(&self, timesteps: &[i64], begin: usize) -> Result<Vec<Call>> {
        let half = self.stride.div_euclid(2);
        let calls = timesteps.iter().enumerate().map(|(index, &timestep)| {
            let before = index.saturating_sub(begin);
            if before >= RUNGE_KUTTA_CALLS {
                return self.multi_step(timestep, 3);
            }
            let stage = before % 4;
            let target = if stage % 2 == 0 { timestep - half } else { timestep };
            self.runge_kutta_stage(stage, timesteps[before - stage], target)
        });
        calls.collect()
    }

    /// One of the four stages from `start`; the last takes the step with the weighted outputs of all.
    fn runge_kutta_stage(&self, stage: usize, start: i64, target: i64) -> Result<Call> {
        let output = Row::column(OUTPUT);
        let (saved, gathered) = (Row::plane(3), Row::plane(4));
        let [first, second, third] = if stage == 0 {
            [output, Row::plane(0), Row::plane(1)]
        } else {
            [Row::plane(0), Row::plane(1), Row::plane(2)]
        };
        let sample = if stage == 0 { Row::column(SAMPLE) } else { saved };
        let (used, gathered) = match stage {
            0 => (output, 1.0 / 6.0 * output),
            1 | 2 => (output, 1.0 / 3.0 * output + gathered),
            _ => (1.0 / 6.0 * output + gathered, Row::ZERO),
        };
        let moved = self.transfer(start, target, sample, used)?;
        Ok(self.call(&[moved, first, second, third, sample, gathered]))
    }

    /// A step with the newest output and up to three older ones (Adams-Bashforth weights).
    fn multi_step(&self, timestep: i64, older: usize) -> Result<Call> {
        let weights: &[f64] = match older {
            0 => &[1.0],
            1 => &[3.0 / 2.0, -1.0 / 2.0],
            2 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        let outputs = [Row::column(OUTPUT), Row::plane(0), Row::plane(1), Row::plane(2)];
        let used = weights.iter().zip(outputs).fold(Row::ZERO, |sum, (&weight, row)| sum + weight * row);
        let moved = self.transfer(timestep, timestep - self.stride, Row::column(SAMPLE), used)?;
        let mut rows = vec![moved];
        rows.extend(&outputs[..weights.len().min(3)]);
        Ok(self.call(&rows))
    }

    /// Moves `sample` from the noise level of one timestep to that of another along `output`.
    fn transfer(&self, from: i64, to: i64, sample: Row, output: Row) -> Result<Row> {
        let (alpha, target) = (self.schedule.alpha(from)?, self.schedule.alpha(to)?);
        let (beta, target_beta) = (1.0 - alpha, 1.0 - target);
        let step = (alpha - target) / (alpha * target_beta.sqrt() + (alpha * beta * target).sqrt());
        let level = Level::of_alpha(alpha);
        let residual = match self.prediction {
            PredictionType::Velocity => Row::sum([(level.noise, sample), (level.signal, output)]),
            PredictionType::Epsilon | PredictionType::Sample => output,
        };
        Ok(Row::sum([((target / alpha).sqrt(), sample), (step, residual)]))
    }

    fn call(&self, rows: &[Row]) -> Call {
        Call::from_rows(self.history, rows)
    }
}
