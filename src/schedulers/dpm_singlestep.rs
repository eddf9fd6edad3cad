//! DPM-Solver over single steps: groups of calls, of which the last takes one step of high order from the first's
//! sample, and the others steps of lower order within it.
//!
//! Lu, Zhou, Bao, Chen, Li & Zhu 2022, <https://arxiv.org/abs/2211.01095>, algorithm 1 (DPM-Solver++(2S)), and
//! <https://arxiv.org/abs/2206.00927>, algorithms 1 and 2; the groups are those of its DPM-Solver-fast.
//! Agrees with `DPMSolverSinglestepScheduler` of diffusers. There, the algorithm `dpmsolver` with dynamic thresholding
//! fails; here it is done as `DPMSolverMultistepScheduler` does it.
//!
//! | history | order 1 | 2 | 3 |
//! |---|---|---|---|
//! | plane 0 | | the prediction before | the prediction before |
//! | plane 1 | | the sample that the group starts from | the prediction before that |
//! | plane 2 | | | the sample that the group starts from |

use super::config::SchedulerConfig;
use super::dpm_solver::{Form, Solver};
use super::levels::Levels;
use super::options::SamplerOptions;
use super::prediction::Level;
use super::row::{Row, SAMPLE};
use super::trajectory::{Call, Trajectory};
use crate::error::Result;

pub(super) fn trajectory(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    begin: usize,
) -> Result<Trajectory> {
    let solver = Solver::new(config, options.kind)?;
    let levels = Levels::of_solvers(config, options)?;
    let history = if solver.order == 1 { 0 } else { solver.order };
    let steps = levels.timesteps.len();
    let ends_without_noise = levels.sigmas.last() == Some(&0.0);
    let lower_order_final = config.solver.lower_order_final.unwrap_or(false);
    let orders = orders(steps, solver.order, lower_order_final, ends_without_noise);
    let mut calls = Vec::with_capacity(steps);
    for (index, order) in orders.into_iter().enumerate() {
        // Where a run begins within a group, there is no older prediction.
        let order = order.min(index.saturating_sub(begin) + 1);
        let level = |back: usize| Level::of_sigma(levels.sigmas[index - back]);
        let target = Level::of_sigma(levels.sigmas[index + 1]);
        let (newest, prediction) = solver.converted(level(0));
        let start = if order == 1 { Row::column(SAMPLE) } else { Row::plane(history - 1) };
        let from = level(order - 1);
        let h = target.lambda() - from.lambda();
        // The part of the step that lies before the level so many calls back.
        let part = |back: usize| (level(back).lambda() - from.lambda()) / h;
        let (form, derivatives) = match order {
            1 => (solver.form, vec![newest]),
            2 => {
                let first = Row::plane(0);
                (solver.form, vec![first, part(0).recip() * (newest - first)])
            }
            _ => {
                let (middle, first) = (Row::plane(0), Row::plane(1));
                let (r0, r1) = (part(0), part(1));
                let (near, far) = (r1.recip() * (middle - first), r0.recip() * (newest - first));
                match solver.form {
                    Form::Midpoint => (Form::Exact, vec![first, far]),
                    Form::Exact => {
                        let slope = (r0 - r1).recip() * (r0 * near - r1 * far);
                        (Form::Exact, vec![first, slope, 2.0 / (r0 - r1) * (far - near)])
                    }
                }
            }
        };
        let moved = solver.step(from, target, form, start, &derivatives);
        let mut rows = vec![moved, newest];
        if history == 3 {
            rows.push(Row::plane(0));
        }
        rows.push(start);
        let call = Call::from_rows(history, &rows[..1 + history]);
        calls.push(Call { prediction, uses_noise: solver.algorithm.stochastic, ..call });
    }
    let noise_levels = levels.scaled();
    Ok(levels.trajectory(history, noise_levels, calls))
}

/// The order of each call: groups that count up to the full order, and in the end what fits.
/// The last call is of first order where the run ends without noise, and, if so wanted, where it ends a full group.
fn orders(steps: usize, order: usize, lower_order_final: bool, ends_without_noise: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|index| index % order + 1).collect();
    let ends_a_group = orders.last() == Some(&order);
    if ends_without_noise || (lower_order_final && ends_a_group) {
        orders.pop();
        orders.push(1);
    }
    orders
}
