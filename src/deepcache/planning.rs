//! What a run may cost, and the schedule that is expected to stay closest to the uncached run for that.

use serde::{Deserialize, Serialize};

use super::profile::{BranchProfile, CacheProfile, Trial};
use super::reuse::Reuse;
use crate::error::{Error, Result};

/// Up to so many calls a line through two features is planned for exactly; beyond, the best schedule for holding one
/// is taken.
const MOST_CALLS_FOR_LINES: usize = 250;

/// What a planned schedule may cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many full calls.
    FullCalls(usize),
    /// At least so many times fewer multiply-accumulates in the U-Net than with every call in full.
    Speedup(f64),
}

/// How full calls are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// Where the profile expects the least error.
    Optimal,
    /// As evenly as can be.
    Uniform,
}

/// A schedule, and what it promises.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The skip index.
    pub branch: usize,
    /// What stands for the deep feature in shallow calls.
    pub reuse: Reuse,
    /// How the full calls were placed.
    pub placement: Placement,
    /// Numbers of the full calls.
    pub full: Vec<usize>,
    /// Expected distance of the final latents from those of the uncached run, as a root mean square, by what the
    /// profile's trials found.
    pub error: f64,
    /// How many times fewer multiply-accumulates the U-Net needs.
    pub speedup: f64,
}

impl CacheProfile {
    /// The schedule that is expected to stay closest to the uncached run within a budget.
    ///
    /// Branch and kind of reuse (holding or a line) are chosen as well where they are `None`. Among the branches
    /// only a speed-up can choose, since with a number of full calls the one that keeps least would always win.
    ///
    /// # Errors
    /// [`Error::Option`] if the budget cannot be met, or the branch is not in the profile.
    pub fn plan(&self, budget: Budget, branch: Option<usize>, reuse: Option<Reuse>) -> Result<Plan> {
        let branches: Vec<&BranchProfile> = match branch {
            Some(number) => vec![self.branch(number)?],
            None if matches!(budget, Budget::FullCalls(_)) && self.branches.len() > 1 => {
                let problem =
                    "a budget of full calls needs one; only a speed-up can choose among the branches";
                return Err(Error::option("cache branch", problem));
            }
            None => self.branches.iter().collect(),
        };
        let kinds: &[Reuse] = match &reuse {
            Some(kind) => std::slice::from_ref(kind),
            None => &[Reuse::Hold, Reuse::Linear],
        };
        let mut plans = Vec::new();
        for branch in &branches {
            if let Some(count) = full_calls(branch, budget)? {
                plans.extend(branch.plans(count, kinds));
            }
        }
        // The first of equals: the simpler one.
        plans.into_iter().min_by(|left, right| left.error.total_cmp(&right.error)).ok_or_else(|| {
            let most = branches.iter().map(|branch| branch.speedup(1)).fold(1.0, f64::max);
            let problem = format!("the branches of the profile reach at most {most:.2}");
            Error::option("cache speedup", problem)
        })
    }

    /// A branch of the profile.
    ///
    /// # Errors
    /// [`Error::Option`] if the profile does not have it.
    pub fn branch(&self, number: usize) -> Result<&BranchProfile> {
        self.branches.iter().find(|branch| branch.branch == number).ok_or_else(|| {
            let known: Vec<String> = self.branches.iter().map(|branch| branch.branch.to_string()).collect();
            let problem = format!("{number} is not in the cache profile, which has {}", known.join(", "));
            Error::option("cache branch", problem)
        })
    }
}

/// How many full calls of a branch a budget allows; `None` if the branch cannot meet it.
fn full_calls(branch: &BranchProfile, budget: Budget) -> Result<Option<usize>> {
    let calls = branch.calls();
    match budget {
        Budget::FullCalls(count) if (1..=calls).contains(&count) => Ok(Some(count)),
        Budget::FullCalls(count) => {
            let problem = format!("expected 1 to {calls} full calls, found {count}");
            Err(Error::option("cache budget", problem))
        }
        Budget::Speedup(factor) if factor.is_finite() && factor >= 1.0 => {
            let fits = |count: &usize| branch.speedup(*count) >= factor * (1.0 - 1e-12);
            Ok((1..=calls).rev().find(fits))
        }
        Budget::Speedup(factor) => {
            let problem = format!("expected a factor of at least 1, found {factor}");
            Err(Error::option("cache speedup", problem))
        }
    }
}

impl BranchProfile {
    /// How many times fewer multiply-accumulates a run with so many full calls needs.
    #[must_use]
    pub fn speedup(&self, full: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let [calls, full] = [self.calls() as f64, full as f64];
        calls / (full + (calls - full) * self.shallow_cost)
    }

    /// Every way to spend so many full calls, with the error that is expected by what was tried.
    #[must_use]
    pub fn plans(&self, count: usize, kinds: &[Reuse]) -> Vec<Plan> {
        let held = self.place_for_holding(count);
        let lines = kinds.iter().any(|kind| *kind != Reuse::Hold) && self.calls() <= MOST_CALLS_FOR_LINES;
        let lined = lines.then(|| self.place_for_lines(count));
        let mut plans = Vec::with_capacity(2 * kinds.len());
        for &reuse in kinds {
            let optimal = match &lined {
                Some(lined)
                    if reuse != Reuse::Hold
                        && self.expected_error(lined, reuse) < self.expected_error(&held, reuse) =>
                {
                    lined
                }
                _ => &held,
            };
            for (placement, full) in
                [(Placement::Optimal, optimal.clone()), (Placement::Uniform, self.place_evenly(count))]
            {
                let error = self.expected_error(&full, reuse) * self.correction(placement, reuse, count);
                let speedup = self.speedup(full.len());
                plans.push(Plan { branch: self.branch, reuse, placement, full, error, speedup });
            }
        }
        plans
    }

    /// By what factor trials of this kind missed what was expected; between numbers of full calls its logarithm is
    /// interpolated over that of the number.
    fn correction(&self, placement: Placement, reuse: Reuse, count: usize) -> f64 {
        let kind = |trial: &&Trial| trial.placement == placement && trial.reuse == reuse;
        let usable = |trial: &&Trial| trial.expected > 0.0 && trial.measured > 0.0;
        let tried = || self.trials.iter().filter(kind).filter(usable);
        let below = tried().filter(|trial| trial.full_calls <= count).max_by_key(|trial| trial.full_calls);
        let above = tried().filter(|trial| trial.full_calls >= count).min_by_key(|trial| trial.full_calls);
        let (Some(below), Some(above)) = (below.or(above), above.or(below)) else { return 1.0 };
        let factor = |trial: &Trial| (trial.measured / trial.expected).ln();
        if below.full_calls == above.full_calls {
            return factor(below).exp();
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let [low, high, at] = [below.full_calls, above.full_calls, count].map(|count| (count as f64).ln());
        let part = (at - low) / (high - low);
        (factor(below) + part * (factor(above) - factor(below))).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deepcache::ProfileSubject;

    /// Twelve calls, in each of which the feature goes on by `pace` at a right angle to all steps before.
    fn branch(number: usize, shallow_cost: f64, pace: f64) -> BranchProfile {
        let row = |call: usize| (call + 1..12).map(|other| pace * ((other - call) as f64).sqrt()).collect();
        BranchProfile {
            branch: number,
            shallow_cost,
            weights: (0..12).map(|call| if call == 0 { 0.0 } else { 1.0 + call as f64 }).collect(),
            distances: (0..12).map(row).collect(),
            trials: Vec::new(),
        }
    }

    fn profile() -> CacheProfile {
        let subject = ProfileSubject {
            in_channels: 4,
            block_out_channels: vec![32],
            layers_per_block: 2,
            scheduler: "ddim".to_owned(),
            timesteps: vec![0.0; 12],
            guided: true,
        };
        CacheProfile::new(subject, vec![branch(0, 0.25, 1.0), branch(3, 0.6, 0.1)])
    }

    #[test]
    fn a_speedup_chooses_the_branch_that_stays_closest() {
        let profile = profile();
        let slight = profile.plan(Budget::Speedup(1.3), None, Some(Reuse::Hold)).unwrap();
        assert_eq!(slight.branch, 3, "ten times closer at the same speed");
        assert!(slight.speedup >= 1.3);
        let fast = profile.plan(Budget::Speedup(2.0), None, Some(Reuse::Hold)).unwrap();
        assert_eq!(fast.branch, 0, "the other one reaches at most 1 / 0.6");
        let free = profile.plan(Budget::Speedup(2.0), None, None).unwrap();
        assert!(free.error <= fast.error, "the kind of reuse is chosen for the error");
        let all = profile.plan(Budget::FullCalls(12), Some(0), None).unwrap();
        assert_eq!((all.full.len(), all.error, all.reuse), (12, 0.0, Reuse::Hold));
    }

    #[test]
    fn what_trials_found_decides() {
        let mut profile = profile();
        let budget = Budget::FullCalls(4);
        let before = profile.plan(budget, Some(0), None).unwrap();
        assert_eq!(before.placement, Placement::Optimal, "without trials the expectation decides");
        let trial = |full_calls, measured| Trial {
            placement: Placement::Optimal,
            reuse: before.reuse,
            full_calls,
            expected: 2.0,
            measured,
        };
        profile.branches[0].trials = vec![trial(2, 200.0), trial(8, 2.0)];
        let same = |plan: &&Plan| (plan.placement, plan.reuse) == (before.placement, before.reuse);
        let plans = profile.branches[0].plans(4, &[before.reuse]);
        let corrected = plans.iter().find(same).unwrap();
        assert!(
            (corrected.error - 10.0 * before.error).abs() < 1e-9 * corrected.error,
            "half way from 100 to 1"
        );
        let after = profile.plan(budget, Some(0), None).unwrap();
        assert!(!same(&&after) && after.error < corrected.error, "another kind is chosen: {after:?}");
    }

    #[test]
    fn budgets_that_cannot_be_met_are_refused() {
        let profile = profile();
        let refused = |budget, branch, words: &str| {
            let text = profile.plan(budget, branch, None).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        };
        refused(Budget::FullCalls(0), Some(0), "cache budget: expected 1 to 12 full calls, found 0");
        refused(Budget::FullCalls(13), Some(0), "found 13");
        refused(Budget::FullCalls(3), None, "only a speed-up can choose");
        refused(Budget::FullCalls(3), Some(1), "1 is not in the cache profile, which has 0, 3");
        refused(Budget::Speedup(9.0), None, "cache speedup: the branches of the profile reach at most 3.20");
        refused(Budget::Speedup(0.5), None, "a factor of at least 1, found 0.5");
        refused(Budget::Speedup(f64::NAN), None, "found NaN");
    }
}
