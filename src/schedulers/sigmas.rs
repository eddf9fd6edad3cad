//! Sigmas: from a timestep to its noise level and back, and ways to space the levels between two ends.

use super::beta_quantile::symmetric_beta_quantile;
use super::noise_schedule::{NoiseSchedule, single};
use super::options::SigmaSpacing;
use super::timesteps::{downwards, linspace, real};

/// The sigma of each training timestep, and linearly between them.
#[derive(Clone, Debug)]
pub(super) struct SigmaTable {
    /// Rising.
    sigmas: Vec<f64>,
    /// Rounded to f32, as diffusers' are.
    logarithms: Vec<f64>,
}

impl SigmaTable {
    pub(super) fn new(schedule: &NoiseSchedule) -> Self {
        let sigmas = schedule.sigmas();
        let logarithms = sigmas.iter().map(|sigma| single(sigma.ln())).collect();
        Self { sigmas, logarithms }
    }

    pub(super) fn first(&self) -> f64 {
        self.sigmas[0]
    }

    pub(super) fn last(&self) -> f64 {
        self.sigmas[self.sigmas.len() - 1]
    }

    /// So many sigmas from the last training timestep's to the first's, evenly in the logarithm.
    pub(super) fn evenly_in_the_logarithm(&self, count: usize) -> Vec<f64> {
        let (first, last) = (self.logarithms[0], self.logarithms[self.logarithms.len() - 1]);
        linspace(0.0, 1.0, count).into_iter().map(|part| (last + part * (first - last)).exp()).collect()
    }

    /// The sigma at a timestep; beyond the ends, that of the end.
    pub(super) fn at(&self, timestep: f64) -> f64 {
        let index = usize::try_from(downwards(timestep)).unwrap_or(0);
        match self.sigmas.get(index..) {
            Some([here, next, ..]) => here + (next - here) * (timestep - real(index)).max(0.0),
            _ => self.last(),
        }
    }

    /// The timestep, between two training timesteps, at which sigma is this; beyond the ends, the end.
    pub(super) fn timestep(&self, sigma: f64) -> f64 {
        let logarithm = sigma.max(1e-10).ln();
        let passed = self.logarithms.partition_point(|other| *other <= logarithm);
        let Some(last_below) = self.logarithms.len().checked_sub(2) else { return 0.0 };
        let below = passed.saturating_sub(1).min(last_below);
        let (low, high) = (self.logarithms[below], self.logarithms[below + 1]);
        let share = ((low - logarithm) / single(low - high)).clamp(0.0, 1.0);
        (1.0 - share) * real(below) + share * real(below + 1)
    }
}

impl SigmaSpacing {
    /// So many sigmas from the largest to the smallest; only the largest if there is one.
    pub(super) fn between(self, largest: f64, smallest: f64, count: usize) -> Vec<f64> {
        match self {
            Self::Karras => {
                const RHO: f64 = 7.0;
                let (from, to) = (largest.powf(RHO.recip()), smallest.powf(RHO.recip()));
                let ramp = linspace(0.0, 1.0, count).into_iter();
                ramp.map(|part| (from + part * (to - from)).powf(RHO)).collect()
            }
            Self::Exponential => {
                linspace(largest.ln(), smallest.ln(), count).into_iter().map(f64::exp).collect()
            }
            Self::Beta => {
                const SHAPE: f64 = 0.6;
                let shares = linspace(0.0, 1.0, count).into_iter().map(|part| 1.0 - part);
                shares
                    .map(|share| smallest + symmetric_beta_quantile(share, SHAPE) * (largest - smallest))
                    .collect()
            }
        }
    }
}
