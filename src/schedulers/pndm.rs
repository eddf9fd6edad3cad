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
use super::noise_schedule::{NoiseSchedule, spaced_timesteps, whole};
use super::{Call, HISTORY, OUTPUT, SAMPLE, Trajectory};
use crate::error::{Error, Result};

/// Timesteps that Runge-Kutta steps go through, each but the last in two halves.
const RUNGE_KUTTA_TIMESTEPS: usize = 4;

pub(super) fn trajectory(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Trajectory> {
    if eta != 0.0 {
        return Err(Error::option("eta", format!("pndm adds no noise: expected 0, found {eta}")));
    }
    if config.prediction_type == PredictionType::Sample {
        let problem = "pndm supports \"epsilon\" and \"v_prediction\", found \"sample\"";
        return Err(Error::config(&config.file, "prediction_type", problem));
    }
    let spaced = spaced_timesteps(config, steps)?;
    let planner = Planner {
        schedule: noise_schedule(config),
        velocity: config.prediction_type == PredictionType::Velocity,
        history: if config.skip_prk_steps { 3 } else { 5 },
        stride: whole(config.train_timesteps.div_euclid(steps)),
    };
    let plan = if config.skip_prk_steps {
        planner.multi_step_only(&spaced)?
    } else if steps < RUNGE_KUTTA_TIMESTEPS {
        let problem = format!("pndm with \"skip_prk_steps\" false needs at least 4 steps, found {steps}");
        return Err(Error::option("steps", problem));
    } else {
        planner.with_runge_kutta(&spaced)?
    };
    let (timesteps, calls): (Vec<i64>, Vec<Call>) = plan.into_iter().unzip();
    let timesteps = timesteps.into_iter().map(|timestep| timestep as f64).collect();
    Ok(Trajectory { timesteps, initial_sigma: 1.0, history: planner.history, calls })
}

pub(super) fn noise_schedule(config: &SchedulerConfig) -> NoiseSchedule {
    NoiseSchedule::new(config, config.set_alpha_to_one.unwrap_or(false), false)
}

/// Weights of the columns of a [`Call::matrix`].
type Row = Vec<f64>;

struct Planner {
    schedule: NoiseSchedule,
    velocity: bool,
    history: usize,
    /// Training timesteps per step.
    stride: i64,
}

impl Planner {
    fn multi_step_only(&self, spaced: &[i64]) -> Result<Vec<(i64, Call)>> {
        let mut plan = Vec::with_capacity(spaced.len() + 1);
        for (step, &timestep) in spaced.iter().enumerate() {
            if step == 0 {
                let sample = self.column(SAMPLE);
                let moved = self.transfer(timestep, timestep - self.stride, &sample, &self.column(OUTPUT))?;
                plan.push((timestep, self.call(&[moved, self.column(OUTPUT), sample])));
                continue;
            }
            if step == 1 {
                let mean = self.sum(&[(0.5, OUTPUT), (0.5, HISTORY)]);
                let old_sample = self.column(HISTORY + 1);
                let moved = self.transfer(timestep + self.stride, timestep, &old_sample, &mean)?;
                plan.push((timestep, self.call(&[moved, self.column(HISTORY)])));
            }
            plan.push((timestep, self.multi_step(timestep, step)?));
        }
        Ok(plan)
    }

    fn with_runge_kutta(&self, spaced: &[i64]) -> Result<Vec<(i64, Call)>> {
        let half = self.stride.div_euclid(2);
        let starts = &spaced[..RUNGE_KUTTA_TIMESTEPS];
        let mut plan = Vec::with_capacity(spaced.len() + 9);
        for pair in starts.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            let middle = end + half;
            let timesteps = [start, middle, middle, end];
            for (stage, timestep) in timesteps.into_iter().enumerate() {
                let target = if stage % 2 == 0 { timestep - half } else { timestep };
                plan.push((timestep, self.runge_kutta_stage(stage, start, target)?));
            }
        }
        for &timestep in &spaced[RUNGE_KUTTA_TIMESTEPS - 1..] {
            plan.push((timestep, self.multi_step(timestep, 3)?));
        }
        Ok(plan)
    }

    /// One of the four stages from `start`; the last takes the step with the weighted outputs of all.
    fn runge_kutta_stage(&self, stage: usize, start: i64, target: i64) -> Result<Call> {
        const SAVED: usize = HISTORY + 3;
        const GATHERED: usize = HISTORY + 4;
        let output = self.column(OUTPUT);
        let outputs =
            |newest: usize, older: usize| [newest, older, older + 1].map(|place| self.column(place));
        let [first, second, third] =
            if stage == 0 { outputs(OUTPUT, HISTORY) } else { outputs(HISTORY, HISTORY + 1) };
        let sample = self.column(if stage == 0 { SAMPLE } else { SAVED });
        let (used, gathered) = match stage {
            0 => (output, self.sum(&[(1.0 / 6.0, OUTPUT)])),
            1 | 2 => (output, self.sum(&[(1.0 / 3.0, OUTPUT), (1.0, GATHERED)])),
            _ => (self.sum(&[(1.0 / 6.0, OUTPUT), (1.0, GATHERED)]), self.sum(&[])),
        };
        let moved = self.transfer(start, target, &sample, &used)?;
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
        let places = [OUTPUT, HISTORY, HISTORY + 1, HISTORY + 2];
        let terms: Vec<(f64, usize)> = weights.iter().copied().zip(places).collect();
        let moved =
            self.transfer(timestep, timestep - self.stride, &self.column(SAMPLE), &self.sum(&terms))?;
        let mut rows = vec![moved];
        rows.extend(places[..3].iter().take(weights.len().min(3)).map(|&place| self.column(place)));
        Ok(self.call(&rows))
    }

    /// Moves `sample` from the noise level of one timestep to that of another along `output`.
    fn transfer(&self, from: i64, to: i64, sample: &Row, output: &Row) -> Result<Row> {
        let (alpha, target) = (self.schedule.alpha(from)?, self.schedule.alpha(to)?);
        let (beta, target_beta) = (1.0 - alpha, 1.0 - target);
        let scale = (target / alpha).sqrt();
        let step = (alpha - target) / (alpha * target_beta.sqrt() + (alpha * beta * target).sqrt());
        let (sample_weight, output_weight) =
            if self.velocity { (scale + step * beta.sqrt(), step * alpha.sqrt()) } else { (scale, step) };
        let weigh = |(sample, output): (&f64, &f64)| sample_weight * sample + output_weight * output;
        Ok(sample.iter().zip(output).map(weigh).collect())
    }

    fn column(&self, place: usize) -> Row {
        self.sum(&[(1.0, place)])
    }

    fn sum(&self, terms: &[(f64, usize)]) -> Row {
        let mut row = vec![0.0; HISTORY + self.history];
        for &(weight, place) in terms {
            row[place] += weight;
        }
        row
    }

    fn call(&self, rows: &[Row]) -> Call {
        Call::from_rows(self.history, rows)
    }
}
