//! The sweep itself: every sampler, branch, budget and way.

use deepcache::deepcache::CacheProfile;
use deepcache::schedulers::SchedulerKind;
use deepcache::{Error, Result};

use crate::methods::Method;
use crate::runs::{Outcome, Record, References, Runner, Setting, median_seconds, not_possible};

/// What is compared.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) samplers: Vec<Option<SchedulerKind>>,
    pub(crate) methods: Vec<Method>,
    pub(crate) branches: Vec<usize>,
    pub(crate) intervals: Vec<usize>,
    pub(crate) profiles: Vec<CacheProfile>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) references: Vec<References>,
    pub(crate) outcomes: Vec<Outcome>,
    /// What could not be run, and why.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// About how many pictures are made.
    pub(crate) fn runs(&self, subjects: usize) -> usize {
        let settings = self.branches.len() * self.intervals.len() * self.methods.len();
        self.samplers.len() * subjects * (1 + settings)
    }

    /// Runs everything.
    pub(crate) fn run(&self, runner: &mut Runner<'_>) -> Result<Findings> {
        let mut findings = Findings::default();
        for &scheduler in &self.samplers {
            let references = runner.references(scheduler)?;
            for &branch in &self.branches {
                for &interval in &self.intervals {
                    let budget =
                        BudgetRun { plan: self, scheduler, references: &references, branch, interval };
                    budget.run(runner, &mut findings)?;
                }
            }
            findings.references.push(references);
        }
        Ok(findings)
    }
}

/// One sampler, branch and interval.
struct BudgetRun<'a> {
    plan: &'a Plan,
    scheduler: Option<SchedulerKind>,
    references: &'a References,
    branch: usize,
    interval: usize,
}

impl BudgetRun<'_> {
    fn run(&self, runner: &mut Runner<'_>, findings: &mut Findings) -> Result<()> {
        for &method in &self.plan.methods {
            match self.method(method, runner, findings) {
                Ok(Some((details, records))) => {
                    let setting = Setting {
                        sampler: self.references.sampler.clone(),
                        method,
                        branch: self.branch,
                        interval: self.interval,
                        details,
                    };
                    findings.outcomes.push(Outcome { setting, records });
                }
                Ok(None) => {}
                Err(error) if not_possible(&error) => {
                    findings.notes.push(format!("{}: {error}", self.name(method)));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn name(&self, method: Method) -> String {
        format!("{}, {method}, branch {}, 1:{}", self.references.sampler, self.branch, self.interval)
    }

    /// In words what was run, and what came of it; nothing where there is nothing to run.
    fn method(
        &self,
        method: Method,
        runner: &mut Runner<'_>,
        findings: &mut Findings,
    ) -> Result<Option<(String, Vec<Record>)>> {
        let (branch, interval) = (self.branch, self.interval);
        let full_calls = self.references.calls().div_ceil(interval);
        let cache = match method {
            Method::Steps => return self.fewer_steps(runner, findings),
            Method::Auto => match runner.planned(&self.plan.profiles, self.scheduler, full_calls, branch)? {
                Some(cache) => cache,
                None => {
                    let note = format!("{}: no --profile is of this run and branch", self.name(method));
                    findings.notes.push(note);
                    return Ok(None);
                }
            },
            Method::Threshold => runner.threshold(self.scheduler, full_calls, branch)?,
            other => other.fixed(interval, branch).ok_or_else(|| Error::option("methods", "has no cache"))?,
        };
        let records = runner.cached(self.references, self.scheduler, &cache)?;
        Ok(Some((format!("{:?}, {}", cache.schedule, cache.reuse), records)))
    }

    /// As many steps as take the time of the uniform schedule.
    fn fewer_steps(
        &self,
        runner: &mut Runner<'_>,
        findings: &Findings,
    ) -> Result<Option<(String, Vec<Record>)>> {
        let uniform = findings.outcomes.iter().find(|outcome| {
            let found = &outcome.setting;
            found.method == Method::Uniform
                && found.sampler == self.references.sampler
                && (found.branch, found.interval) == (self.branch, self.interval)
        });
        let Some(uniform) = uniform else {
            return Err(Error::option("methods", "steps need the time of uniform, which is not among them"));
        };
        let share = median_seconds(&uniform.records) / self.references.seconds();
        let all = runner.steps(self.scheduler);
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        let steps = ((all as f64 * share).round() as usize).clamp(1, all);
        let records = runner.fewer_steps(self.references, self.scheduler, steps)?;
        Ok(Some((format!("{steps} steps"), records)))
    }
}
