//! The sweep itself: every sampler, branch, budget and way.

use deepcache::deepcache::CacheProfile;
use deepcache::schedulers::SchedulerKind;
use deepcache::{Error, Result};

use crate::methods::{Method, options_of};
use crate::runs::{Outcome, Record, References, Runner, Setting, mean_macs, median_seconds, not_possible};

/// What is compared.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) samplers: Vec<Option<SchedulerKind>>,
    pub(crate) methods: Vec<Method>,
    pub(crate) branches: Vec<usize>,
    pub(crate) intervals: Vec<usize>,
    pub(crate) profiles: Vec<CacheProfile>,
    /// Whether fewer steps may take as much work as a uniform run, not as much time.
    pub(crate) equal_work: bool,
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

    /// Runs everything, and tells of every way that is done. What has come of it when something fails stays in `findings`.
    pub(crate) fn run(
        &self,
        runner: &mut Runner<'_>,
        findings: &mut Findings,
        tell: &dyn Fn(&str, &Outcome),
    ) -> Result<()> {
        let Findings { references, outcomes, notes } = findings;
        for &scheduler in &self.samplers {
            references.push(runner.references(scheduler)?);
            let Some(references) = references.last() else { continue };
            for &branch in &self.branches {
                for &interval in &self.intervals {
                    let (outcomes, notes) = (&mut *outcomes, &mut *notes);
                    BudgetRun { plan: self, scheduler, references, branch, interval, outcomes, notes, tell }
                        .run(runner)?;
                }
            }
        }
        Ok(())
    }
}

/// One sampler, branch and interval.
struct BudgetRun<'a> {
    plan: &'a Plan,
    scheduler: Option<SchedulerKind>,
    references: &'a References,
    branch: usize,
    interval: usize,
    outcomes: &'a mut Vec<Outcome>,
    notes: &'a mut Vec<String>,
    /// Called with every way that is done.
    tell: &'a dyn Fn(&str, &Outcome),
}

impl BudgetRun<'_> {
    fn run(&mut self, runner: &mut Runner<'_>) -> Result<()> {
        for &method in &self.plan.methods {
            match self.method(method, runner) {
                Ok(Some((details, records))) => {
                    let setting = Setting {
                        sampler: self.references.sampler.clone(),
                        method,
                        branch: self.branch,
                        interval: self.interval,
                        details,
                    };
                    let outcome = Outcome { setting, records };
                    (self.tell)(&self.name(method), &outcome);
                    self.outcomes.push(outcome);
                }
                Ok(None) => {}
                Err(error) if not_possible(&error) => {
                    let note = format!("{}: {error}", self.name(method));
                    self.notes.push(note);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn name(&self, method: Method) -> String {
        format!("{}, {method}, branch {}, 1:{}", self.references.sampler, self.branch, self.interval)
    }

    /// The options of what was run, and what came of it; nothing where there is nothing to run.
    fn method(&mut self, method: Method, runner: &mut Runner<'_>) -> Result<Option<(String, Vec<Record>)>> {
        let (branch, interval) = (self.branch, self.interval);
        let full_calls = self.references.calls().div_ceil(interval);
        let cache = match method {
            Method::Steps => return self.fewer_steps(runner),
            Method::Auto => match runner.planned(&self.plan.profiles, self.scheduler, full_calls, branch)? {
                Some(cache) => cache,
                None => {
                    let note = format!("{}: no --profile is of this run and branch", self.name(method));
                    self.notes.push(note);
                    return Ok(None);
                }
            },
            Method::Threshold => runner.threshold(self.scheduler, full_calls, branch)?,
            other => other.fixed(interval, branch).ok_or_else(|| Error::option("methods", "has no cache"))?,
        };
        let records = runner.cached(self.references, self.scheduler, &cache)?;
        Ok(Some((options_of(&cache), records)))
    }

    /// As many steps as take the time, or the work, of the uniform schedule.
    fn fewer_steps(&self, runner: &mut Runner<'_>) -> Result<Option<(String, Vec<Record>)>> {
        let uniform = self.outcomes.iter().find(|outcome| {
            let found = &outcome.setting;
            found.method == Method::Uniform
                && found.sampler == self.references.sampler
                && (found.branch, found.interval) == (self.branch, self.interval)
        });
        let Some(uniform) = uniform else {
            return Err(Error::option("methods", "steps need the time of uniform, which is not among them"));
        };
        let share = if self.plan.equal_work {
            mean_macs(&uniform.records) / mean_macs(&self.references.records)
        } else {
            median_seconds(&uniform.records) / self.references.seconds()
        };
        let all = runner.steps(self.scheduler);
        #[expect(clippy::cast_sign_loss, reason = "a share of a count")]
        let steps = ((all as f64 * share).round() as usize).clamp(1, all);
        let records = runner.fewer_steps(self.references, self.scheduler, steps)?;
        Ok(Some((format!("--steps {steps}"), records)))
    }
}
