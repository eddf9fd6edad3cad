//! Cached runs beside uncached ones: how right a profile's expectations are.

use std::ops::ControlFlow;

use crate::deepcache::{CacheProfile, Plan, Reuse, Trial};
use crate::error::Result;
use crate::pipelines::{CacheOptions, DiffusionPipeline, Latents, Progress, Request};

/// Kinds of reuse that are tried.
const KINDS: [Reuse; 2] = [Reuse::Hold, Reuse::Linear];

impl DiffusionPipeline {
    /// Tries the plans of a profile with these numbers of full calls, and notes in it what came of them.
    ///
    /// `runs` are requests with the latents that they make without a cache, such as [`Analysis::latents`]; every
    /// plan is run for each of them. The progress counts the U-Net calls of all runs.
    ///
    /// [`Analysis::latents`]: crate::pipelines::Analysis::latents
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`], and [`Error::Option`](crate::Error::Option) if the profile is one of
    /// other runs.
    pub fn try_plans(
        &mut self,
        profile: &mut CacheProfile,
        runs: &[(Request, Latents)],
        full_calls: &[usize],
        mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (request, _) in runs {
            profile.check(&self.profile_subject(request)?)?;
        }
        let calls = profile.subject.timesteps.len();
        let mut counts: Vec<usize> = full_calls.iter().map(|count| (*count).clamp(1, calls)).collect();
        counts.sort_unstable();
        counts.dedup();
        let of = profile.branches.len() * counts.len() * 2 * KINDS.len() * runs.len() * calls;
        let mut before = 0;
        for branch in &mut profile.branches {
            branch.trials.clear();
            let plans: Vec<Plan> = counts.iter().flat_map(|count| branch.plans(*count, &KINDS)).collect();
            for plan in plans {
                let mut logarithms = 0.0;
                for (request, latents) in runs {
                    let request = Request { cache: Some(CacheOptions::planned(&plan)), ..request.clone() };
                    let found = self.generate(&request, |step| match step {
                        Progress::Denoising { completed, full, .. } => {
                            progress(Progress::Denoising { completed: before + completed, of, full })
                        }
                        _ => ControlFlow::Continue(()),
                    })?;
                    logarithms += found.latents.distance(latents)?.max(f64::MIN_POSITIVE).ln();
                    before += calls;
                }
                #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
                let measured = (logarithms / runs.len() as f64).exp();
                branch.trials.push(Trial {
                    placement: plan.placement,
                    reuse: plan.reuse,
                    full_calls: plan.full.len(),
                    expected: plan.error,
                    measured,
                });
            }
        }
        Ok(())
    }
}
