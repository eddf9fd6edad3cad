//! `UniPC`: a multi-step predictor, and a corrector that takes the last step again when its end is known, at no call more.
//!
//! Zhao, Bai, Rao, Zhou & Lu 2023, <https://arxiv.org/abs/2302.04867>: algorithm 1 (the corrector) and algorithm 2
//! (the predictor); its appendix has both for predictions of the clean sample. `B(h)` is `h` (`bh1`) or `e^h - 1`
//! (`bh2`).
//! Agrees with `UniPCMultistepScheduler` of diffusers. As there, dynamic thresholding needs `predict_x0`.
//!
//! History planes: the predictions of the last steps, newest first, as many as the order; then the corrected sample that
//! the last step started from.

use super::config::{PredictionType, SchedulerConfig};
use super::dpm_solver::order;
use super::levels::Levels;
use super::options::SamplerOptions;
use super::prediction::{Level, limited};
use super::row::{Row, SAMPLE};
use super::timesteps::{real, whole};
use super::trajectory::{Call, Limit, Prediction, Trajectory};
use crate::error::Result;

/// What `B(h)` is, by which the weights of the differences are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Length,
    Growth,
}

pub(super) fn trajectory(
    config: &SchedulerConfig,
    options: &SamplerOptions,
    begin: usize,
) -> Result<Trajectory> {
    let kind = options.kind;
    let keys = &config.solver;
    if keys.has_other_predictor {
        return config.refuse("solver_p", "another predictor is not supported: expected null");
    }
    // What other classes call their forms stands for the default.
    let forms = [
        ("bh2", Form::Growth),
        ("bh1", Form::Length),
        ("midpoint", Form::Growth),
        ("heun", Form::Growth),
        ("logrho", Form::Growth),
    ];
    let planner = Planner {
        form: config.choose(kind, "solver_type", keys.solver_type.as_deref(), &forms)?,
        of_clean: keys.predict_x0.unwrap_or(true),
        order: order(config, kind)?,
        prediction: config.prediction(kind)?,
        limit: config.limit(kind),
        levels: Levels::of_solvers(config, options)?,
    };
    if planner.form == Form::Length && planner.levels.sigmas.last() == Some(&0.0) {
        let problem = "\"bh1\" divides by zero in its last step: expected \"sigma_min\", found \"zero\"";
        return config.refuse("final_sigmas_type", problem);
    }
    let steps = planner.levels.timesteps.len();
    let lower_order_final = keys.lower_order_final.unwrap_or(true);
    let history = planner.order + 1;
    let start = Row::plane(planner.order);
    let mut calls = Vec::with_capacity(steps);
    let mut order_before = 0;
    for index in 0..steps {
        let (newest, prediction) = planner.converted(index);
        let mut known = vec![newest];
        known.extend((0..planner.order).map(Row::plane));

        let corrects = index > begin && !keys.disable_corrector.contains(&(whole(index) - 1));
        let sample = if corrects {
            let mut outputs = known[1..=order_before].to_vec();
            outputs.push(newest);
            planner.step(index - 1, order_before, start, &outputs)
        } else {
            Row::column(SAMPLE)
        };
        let order = if lower_order_final { planner.order.min(steps - index) } else { planner.order };
        let order = order.min(index.saturating_sub(begin) + 1);
        let moved = planner.step(index, order, sample, &known[..order]);

        let mut rows = vec![moved];
        rows.extend(&known[..planner.order]);
        rows.push(sample);
        calls.push(Call { prediction, ..Call::from_rows(history, &rows) });
        order_before = order;
    }
    let noise_levels = planner.levels.scaled();
    Ok(planner.levels.trajectory(history, noise_levels, calls))
}

struct Planner {
    form: Form,
    /// The clean sample is interpolated, instead of the noise.
    of_clean: bool,
    order: usize,
    prediction: PredictionType,
    limit: Option<Limit>,
    levels: Levels,
}

impl Planner {
    fn level(&self, index: usize) -> Level {
        Level::of_sigma(self.levels.sigmas[index])
    }

    fn converted(&self, index: usize) -> (Row, Option<Prediction>) {
        let level = self.level(index);
        if self.of_clean {
            limited(level.clean(self.prediction), self.limit)
        } else {
            (level.residual(self.prediction), None)
        }
    }

    /// The sample at level `index + 1` from that at level `index`, with the prediction there and older ones; with one
    /// prediction more than the order, the newest last, it is that of level `index + 1`, and the step a correction.
    fn step(&self, index: usize, order: usize, sample: Row, predictions: &[Row]) -> Row {
        let (from, to) = (self.level(index), self.level(index + 1));
        let h = to.lambda() - from.lambda();
        let (exponent, carried, scale) = if self.of_clean {
            (-h, to.noise / from.noise, -to.signal)
        } else {
            (h, to.signal / from.signal, -to.noise)
        };
        let growth = exponent.exp_m1();
        let first = predictions[0];
        let moved = Row::sum([(carried, sample), (scale * growth, first)]);

        // Where the other predictions lie, in steps from level `index`; 1 is the end of the step.
        let corrects = predictions.len() > order;
        let mut points: Vec<f64> =
            (1..order).map(|back| (self.level(index - back).lambda() - from.lambda()) / h).collect();
        if corrects {
            points.push(1.0);
        }
        if points.is_empty() {
            return moved;
        }
        let width = match self.form {
            Form::Length => exponent,
            Form::Growth => growth,
        };
        let shares = match (order, corrects) {
            // For these the paper and diffusers take a half, which is right to first order in h.
            (1, true) | (2, false) => vec![0.5],
            _ => {
                let targets = targets(exponent, points.len());
                solve_powers(&points, targets.into_iter().map(|target| target / width).collect())
            }
        };
        points.iter().zip(&predictions[1..]).zip(shares).fold(moved, |sum, ((point, prediction), share)| {
            sum + scale * width * share / point * (*prediction - first)
        })
    }
}

/// For each power from the first on, its factorial times the tail of the series of `e^x` from that power on,
/// divided by the power of `x`: what the powers of the points have to add up to.
fn targets(exponent: f64, count: usize) -> Vec<f64> {
    let mut tail = exponent.exp_m1() / exponent - 1.0;
    let mut factorial = 1.0;
    let mut targets = Vec::with_capacity(count);
    for power in 1..=count {
        targets.push(tail * factorial);
        factorial *= real(power + 1);
        tail = tail / exponent - factorial.recip();
    }
    targets
}

/// The weights with which the powers of the points, from the zeroth on, add up to the targets.
/// Björck & Pereyra 1970, *Solution of Vandermonde Systems of Equations*.
fn solve_powers(points: &[f64], mut targets: Vec<f64>) -> Vec<f64> {
    let count = points.len();
    for (pivot, point) in points.iter().enumerate() {
        for row in (pivot + 1..count).rev() {
            targets[row] -= point * targets[row - 1];
        }
    }
    for pivot in (0..count).rev() {
        for row in pivot + 1..count {
            targets[row] /= points[row] - points[row - pivot - 1];
        }
        for row in pivot..count.saturating_sub(1) {
            targets[row] -= targets[row + 1];
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::solve_powers;

    #[test]
    fn powers_of_the_points_add_up_to_the_targets() {
        for points in [&[2.0][..], &[-0.5, 1.0], &[-2.5, -1.25, 1.0], &[3.0, 0.5, -1.0, 2.0]] {
            let targets: Vec<f64> = (0..points.len()).map(|power| 0.3 - 0.7 * power as f64).collect();
            let weights = solve_powers(points, targets.clone());
            for (power, target) in targets.iter().enumerate() {
                let power = i32::try_from(power).unwrap();
                let sum: f64 =
                    points.iter().zip(&weights).map(|(point, weight)| weight * point.powi(power)).sum();
                assert!((sum - target).abs() < 1e-12, "{points:?}, power {power}: {sum}, target {target}");
            }
        }
    }
}
