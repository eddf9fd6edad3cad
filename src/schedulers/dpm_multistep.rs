//! DPM-Solver over several steps: a polynomial through the newest prediction and one or two older ones.
//!
//! Lu, Zhou, Bao, Chen, Li & Zhu 2022, <https://arxiv.org/abs/2211.01095>, algorithm 2 (DPM-Solver++(2M)), its third
//! order and its stochastic form; and the same for <https://arxiv.org/abs/2206.00927>.
//! Agrees with `DPMSolverMultistepScheduler` of diffusers.
//!
//! History planes: the predictions of the last steps, newest first, one fewer than the order.

use super::config::SchedulerConfig;
use super::dpm_solver::{Form, Solver};
use super::levels::Levels;
use super::options::SamplerOptions;
use super::prediction::Level;
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

/// With fewer steps than this, the last two are of lower order.
pub(super) const FEW_STEPS: usize = 15;

pub(super) fn trajectory(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    begin: usize,
) -> Result<Trajectory> {
    let solver = Solver::new(config, options.kind)?;
    let levels = Levels::of_solvers(config, options)?;
    let history = solver.order - 1;
    let steps = levels.timesteps.len();
    let lower_order_final = config.solver.lower_order_final.unwrap_or(true) && steps < FEW_STEPS;
    let ends_without_noise = levels.sigmas.last() == Some(&0.0);
    let mut calls = Vec::with_capacity(steps);
    for index in 0..steps {
        let level = |back: usize| Level::of_sigma(levels.sigmas[index - back]);
        let target = Level::of_sigma(levels.sigmas[index + 1]);
        let (newest, prediction) = solver.converted(level(0));
        let ends_simply = lower_order_final || config.solver.euler_at_final || ends_without_noise;
        let order = match steps - index {
            1 if ends_simply => 1,
            2 if lower_order_final => 2,
            _ => 3,
        };
        let order = order.min(solver.order).min(index.saturating_sub(begin) + 1);
        let h = target.lambda() - level(0).lambda();
        let difference = |back: usize, newer: Row, older: Row| {
            // A slope in units of the step.
            h / (level(back).lambda() - level(back + 1).lambda()) * (newer - older)
        };
        let (form, derivatives) = match order {
            1 => (solver.form, vec![newest]),
            2 => (solver.form, vec![newest, difference(0, newest, Row::plane(0))]),
            _ => {
                let first = difference(0, newest, Row::plane(0));
                let before = difference(1, Row::plane(0), Row::plane(1));
                let r0 = (level(0).lambda() - level(1).lambda()) / h;
                let r1 = (level(1).lambda() - level(2).lambda()) / h;
                let slope = first + r0 / (r0 + r1) * (first - before);
                (Form::Exact, vec![newest, slope, (r0 + r1).recip() * (first - before)])
            }
        };
        let moved = solver.step(level(0), target, form, Row::column(SAMPLE), &derivatives);
        let rows = [moved, newest, Row::plane(0)];
        let call = Call::from_rows(history, &rows[..1 + history]);
        calls.push(Call { prediction, uses_noise: solver.algorithm.stochastic, ..call });
    }
    let noise_levels = levels.scaled();
    Ok(levels.trajectory(history, noise_levels, calls))
}
