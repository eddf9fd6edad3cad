//! What the numbers say, in sentences.

use deepcache::deepcache::{Placement, Reuse, Trial};

use crate::findings::{Findings, median};
use crate::plans::{Recommendation, most};
use crate::tables::percent;

/// A few sentences, the most important ones last.
pub(crate) fn sentences(findings: &Findings, recommended: &[Recommendation]) -> Vec<String> {
    let all = [drift(findings), weights(findings), placement(findings), expectation(findings)];
    all.into_iter().flatten().chain(recommended.iter().map(|one| plan(findings, one))).collect()
}

/// Where the feature changes.
fn drift(findings: &Findings) -> Option<String> {
    let branch = findings.branches.first()?;
    let drift = branch.drift(1);
    let usual = median(drift.iter().map(|(_, drift)| *drift).collect())?;
    let most = drift.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let least = drift.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(format!(
        "From one call to the next the feature of branch {} changes by {} (median): most at call {} ({}), least at \
         call {} ({}). Where it changes least, one full call serves many shallow ones.",
        branch.branch,
        percent(100.0 * usual),
        most.0,
        percent(100.0 * most.1),
        least.0,
        percent(100.0 * least.1),
    ))
}

/// Where a change matters.
fn weights(findings: &Findings) -> Option<String> {
    let branch = findings.branches.first()?;
    let weights = || branch.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    let most = weights().max_by(|a, b| a.1.total_cmp(b.1))?;
    let least = weights().min_by(|a, b| a.1.total_cmp(b.1))?;
    Some(format!(
        "The same change of it leaves {} times as much in the final latents at call {} as at call {}.",
        times(most.1 / least.1),
        most.0,
        least.0,
    ))
}

/// What planning and extrapolating have brought.
fn placement(findings: &Findings) -> Option<String> {
    let kind = |placement, reuse| move |trial: &Trial| (trial.placement, trial.reuse) == (placement, reuse);
    let even = kind(Placement::Uniform, Reuse::Hold);
    let planned = ratio(findings, kind(Placement::Optimal, Reuse::Hold), even)?;
    let lines = ratio(findings, kind(Placement::Optimal, Reuse::Linear), even)?;
    Some(format!(
        "With equally many full calls, placing them where the profile says left {} times the error of placing them \
         evenly; extrapolating the feature as well, {} times (geometric means of the trials).",
        times(planned),
        times(lines),
    ))
}

/// The geometric mean of the errors of one kind of trial over those of another with as many full calls.
fn ratio(findings: &Findings, of: impl Fn(&Trial) -> bool, to: impl Fn(&Trial) -> bool) -> Option<f64> {
    let mut logarithms = Vec::new();
    for branch in &findings.profile.branches {
        for trial in branch.trials.iter().filter(|trial| of(trial)) {
            let other = branch.trials.iter().find(|other| to(other) && other.full_calls == trial.full_calls);
            logarithms.extend(other.map(|other| (trial.measured / other.measured).ln()));
        }
    }
    geometric_mean(&logarithms)
}

/// How far expectations can be trusted.
fn expectation(findings: &Findings) -> Option<String> {
    let mut factors = factors(findings, Reuse::Hold);
    factors.sort_by(f64::total_cmp);
    let (least, most) = (factors.first()?, factors.last()?);
    Some(format!(
        "With held features, errors were {} to {} times what had been expected, {} times in the mean{}; the plans \
         below are corrected by that.",
        times(least.exp()),
        times(most.exp()),
        times(geometric_mean(&factors)?),
        geometric_mean(&self::factors(findings, Reuse::Linear))
            .map_or_else(String::new, |mean| format!(", and {} times with extrapolated ones", times(mean))),
    ))
}

/// The logarithms of measured over expected errors, for trials of a kind.
fn factors(findings: &Findings, reuse: Reuse) -> Vec<f64> {
    let trials = findings.profile.branches.iter().flat_map(|branch| &branch.trials);
    trials
        .filter(|trial| trial.reuse == reuse && trial.expected > 0.0 && trial.measured > 0.0)
        .map(|trial| (trial.measured / trial.expected).ln())
        .collect()
}

fn geometric_mean(logarithms: &[f64]) -> Option<f64> {
    let count = logarithms.len();
    (count > 0).then(|| (logarithms.iter().sum::<f64>() / count as f64).exp())
}

/// What one recommendation costs and brings.
fn plan(findings: &Findings, recommendation: &Recommendation) -> String {
    let target = recommendation.target;
    let Some(plan) = &recommendation.plan else {
        let most = most(&findings.profile);
        return format!(
            "{target} times less work is out of reach: these branches save {most:.2} times at most."
        );
    };
    let branch = findings.branches.iter().find(|branch| branch.branch == plan.branch);
    let time = branch.and_then(|branch| branch.shallow_time).map(|share| {
        let (calls, full) = (findings.calls() as f64, plan.full.len() as f64);
        format!(
            ", about {:.2} times less time in the U-Net on this device",
            calls / (full + (calls - full) * share)
        )
    });
    format!(
        "{target} times less work needs {} full calls of {} at branch {}, with the feature {}{}; the final latents \
         are expected to be {} of their spread away from those without a cache.",
        plan.full.len(),
        findings.calls(),
        plan.branch,
        if plan.reuse == Reuse::Hold { "held" } else { "extrapolated" },
        time.unwrap_or_default(),
        percent(100.0 * plan.error / findings.spread),
    )
}

/// A factor with the digits that count.
fn times(factor: f64) -> String {
    let decimals = match factor {
        9.95.. => 0,
        0.995.. => 1,
        _ => 2,
    };
    format!("{factor:.decimals$}")
}
