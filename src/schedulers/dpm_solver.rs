//! What the two forms of DPM-Solver have in common: the weights of one step.
//!
//! Lu, Zhou, Bao, Chen, Li & Zhu 2022, <https://arxiv.org/abs/2206.00927> (DPM-Solver, which interpolates the predicted
//! noise) and <https://arxiv.org/abs/2211.01095> (DPM-Solver++, which interpolates the predicted clean sample, and its
//! stochastic form). In `lambda`, half the logarithm of the ratio of signal to noise, the equation of the sample is
//! linear but for the prediction; a step of length `h` integrates a polynomial through predictions exactly.
//! The weights are those of `DPMSolverMultistepScheduler` and `DPMSolverSinglestepScheduler` of diffusers.

use super::config::{PredictionType, SchedulerConfig};
use super::kind::SchedulerKind;
use super::prediction::{Level, limited};
use super::row::{NOISE, Row};
use super::trajectory::{Limit, Prediction};
use crate::error::Result;

/// What a solver interpolates, and whether it adds noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Algorithm {
    /// The clean sample (DPM-Solver++) instead of the noise (DPM-Solver).
    pub(super) of_clean: bool,
    pub(super) stochastic: bool,
}

/// How a second order step weighs the slope of the prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As if the prediction were that of the middle of the step.
    Midpoint,
    /// By the integral of a prediction that grows evenly with `lambda`.
    Exact,
}

/// What the file and the sampler's name make of a solver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Solver {
    pub(super) algorithm: Algorithm,
    pub(super) form: Form,
    /// From 1 to 3.
    pub(super) order: usize,
    prediction: PredictionType,
    limit: Option<Limit>,
}

const PLUS_PLUS: Algorithm = Algorithm { of_clean: true, stochastic: false };
const SDE_PLUS_PLUS: Algorithm = Algorithm { of_clean: true, stochastic: true };
const PLAIN: Algorithm = Algorithm { of_clean: false, stochastic: false };
const SDE_PLAIN: Algorithm = Algorithm { of_clean: false, stochastic: true };

impl Solver {
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the key that the sampler's class refuses.
    pub(super) fn new(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        let keys = &config.solver;
        let own = config.kind() == Some(kind);
        let (algorithm, order) = if own {
            let known = [
                ("dpmsolver++", PLUS_PLUS),
                ("dpmsolver", PLAIN),
                ("sde-dpmsolver++", SDE_PLUS_PLUS),
                ("deis", PLUS_PLUS),
                ("sde-dpmsolver", SDE_PLAIN),
            ];
            // The last is for several steps only.
            let known = if kind == SchedulerKind::DpmPlusPlus2s { &known[..4] } else { &known[..] };
            let algorithm = config.choose(kind, "algorithm_type", keys.algorithm_type.as_deref(), known)?;
            (algorithm, order(config, kind)?)
        } else {
            match kind {
                SchedulerKind::DpmPlusPlus2mSde => (SDE_PLUS_PLUS, 2),
                SchedulerKind::DpmPlusPlus3m => (PLUS_PLUS, 3),
                _ => (PLUS_PLUS, 2),
            }
        };
        let forms = [
            ("midpoint", Form::Midpoint),
            ("heun", Form::Exact),
            // What other classes call their forms; here it stands for the default.
            ("logrho", Form::Midpoint),
            ("bh1", Form::Midpoint),
            ("bh2", Form::Midpoint),
        ];
        let form = config.choose(kind, "solver_type", keys.solver_type.as_deref(), &forms)?;
        if let Some(learned @ ("learned" | "learned_range")) = config.variance_type.as_deref() {
            let problem = format!("a learned variance is not supported: expected null, found \"{learned}\"");
            return config.refuse("variance_type", problem);
        }
        // Also for the name of another class's algorithm, as in diffusers.
        let plus_plus = !own || keys.algorithm_type.as_deref().is_none_or(|name| name.ends_with("++"));
        if !plus_plus && config.sigmas.final_sigmas_type.as_deref() != Some("sigma_min") {
            let problem = "this \"algorithm_type\" needs noise to be left: expected \"sigma_min\"";
            return config.refuse("final_sigmas_type", problem);
        }
        if algorithm == SDE_PLAIN && order == 3 {
            let problem = "\"sde-dpmsolver\" has no third order: expected 1 or 2, found 3";
            return config.refuse("solver_order", problem);
        }
        Ok(Self { algorithm, form, order, prediction: config.prediction(kind)?, limit: config.limit(kind) })
    }

    /// What this solver interpolates, of the sample and the output at a level.
    pub(super) fn converted(&self, level: Level) -> (Row, Option<Prediction>) {
        if self.algorithm.of_clean {
            return limited(level.clean(self.prediction), self.limit);
        }
        match limited(level.clean(self.prediction), self.limit) {
            (clean, Some(prediction)) => (level.residual_of(clean), Some(prediction)),
            (_, None) => (level.residual(self.prediction), None),
        }
    }

    /// The sample at `to`, from the sample at `from` and the derivatives there of what is interpolated: itself, then
    /// the first and the second, in units of the step; `form` says how the first is weighed.
    pub(super) fn step(&self, from: Level, to: Level, form: Form, sample: Row, derivatives: &[Row]) -> Row {
        let h = to.lambda() - from.lambda();
        let Algorithm { of_clean, stochastic } = self.algorithm;
        // What the sample is carried over with, and the exponential that is integrated: e^(-h) for the clean sample,
        // e^h for the noise, e^(-2h) where noise is added to the clean sample's.
        let (carried, scale, exponent) = match (of_clean, stochastic) {
            (true, false) => (to.noise / from.noise, -to.signal, -h),
            (true, true) => (to.noise / from.noise * (-h).exp(), -to.signal, -2.0 * h),
            (false, false) => (to.signal / from.signal, -to.noise, h),
            (false, true) => (to.signal / from.signal, -2.0 * to.noise, h),
        };
        let growth = exponent.exp_m1();
        let first = match form {
            Form::Midpoint => 0.5 * growth,
            Form::Exact => growth / exponent - 1.0,
        };
        // The exact integral takes 1/2 away. diffusers adds it where noise is added, so this does too.
        let half = if stochastic { -0.5 } else { 0.5 };
        let second = (growth - exponent) / (exponent * exponent) - half;
        let weights = [scale * growth, scale * first, scale * second];
        let moved = weights
            .into_iter()
            .zip(derivatives)
            .fold(carried * sample, |sum, (weight, derivative)| sum + weight * *derivative);
        if !stochastic {
            return moved;
        }
        let variance = if of_clean { -(-2.0 * h).exp_m1() } else { (2.0 * h).exp_m1() };
        moved + to.noise * variance.max(0.0).sqrt() * Row::column(NOISE)
    }
}

/// The order of a solver, from 1 to 3.
pub(super) fn order(config: &SchedulerConfig, kind: SchedulerKind) -> Result<usize> {
    match config.solver.order.unwrap_or(2) {
        order @ 1..=3 => Ok(order),
        other => config.refuse("solver_order", format!("{kind} supports 1, 2 and 3; found {other}")),
    }
}
