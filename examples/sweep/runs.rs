//! Runs of the model, each measured against the uncached run of the same picture.

use std::ops::ControlFlow;

use deepcache::deepcache::{Budget, CacheProfile, CacheSchedule};
use deepcache::image::Picture;
use deepcache::pipelines::{CacheOptions, Condition, DiffusionPipeline, Generation, Request, StepKind};
use deepcache::schedulers::SchedulerKind;
use deepcache::{Error, Result};

use crate::checker::Checker;
use crate::measures::{mean, psnr, quartiles, ssim};
use crate::methods::Method;
use crate::options::Subject;

/// Pictures with which a threshold is looked for.
const SEARCHED: usize = 2;
/// Halvings of its range.
const HALVINGS: usize = 7;
/// Where it is looked for.
const THRESHOLDS: (f64, f64) = (0.003, 3.0);

/// What is varied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) sampler: String,
    pub(crate) method: Method,
    /// The skip index; of fewer steps that of the uniform run which takes as long.
    pub(crate) branch: usize,
    /// One full call in so many.
    pub(crate) interval: usize,
    /// The options with which `generate` makes such a run.
    pub(crate) details: String,
}

/// What came of one picture.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The number of the picture.
    pub(crate) subject: usize,
    /// Time of all U-Net calls.
    pub(crate) seconds: f64,
    /// Multiply-accumulates of all U-Net calls.
    pub(crate) macs: f64,
    pub(crate) full_calls: usize,
    pub(crate) calls: usize,
    /// dB, against the uncached picture.
    pub(crate) psnr: f64,
    pub(crate) ssim: f64,
    /// Root mean square of the differences of the final latents.
    pub(crate) latents: f64,
    /// Whether the picture shows what its prompt says, where that can be judged.
    pub(crate) right: Option<bool>,
    pub(crate) picture: Picture,
}

/// A setting with what came of it, one for every picture.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) setting: Setting,
    pub(crate) records: Vec<Record>,
}

/// The uncached pictures of a sampler.
#[derive(Debug)]
pub(crate) struct References {
    pub(crate) sampler: String,
    pub(crate) records: Vec<Record>,
    generations: Vec<Generation>,
}

impl References {
    /// Time of a picture.
    pub(crate) fn seconds(&self) -> f64 {
        median_seconds(&self.records)
    }

    /// U-Net calls of a picture.
    pub(crate) fn calls(&self) -> usize {
        self.records.first().map_or(0, |record| record.calls)
    }
}

/// What runs the model.
pub(crate) struct Runner<'a> {
    pub(crate) pipeline: &'a mut DiffusionPipeline,
    pub(crate) subjects: &'a [Subject],
    /// For the model that comes with deepcache.
    pub(crate) checker: Option<Checker>,
    /// Called before every run.
    pub(crate) before: &'a mut dyn FnMut(),
    /// Whether to end.
    pub(crate) stopped: &'a dyn Fn() -> bool,
}

impl Runner<'_> {
    /// The uncached pictures.
    pub(crate) fn references(&mut self, scheduler: Option<SchedulerKind>) -> Result<References> {
        let kind = scheduler.or_else(|| self.pipeline.own_scheduler());
        let sampler = kind.map_or_else(|| "own".to_owned(), |kind| kind.name().to_owned());
        let mut generations = Vec::with_capacity(self.subjects.len());
        for subject in self.subjects {
            generations.push(self.run(&Request { scheduler, ..subject.request.clone() })?);
        }
        let all = generations.iter().enumerate();
        let records =
            all.map(|(subject, found)| self.record(subject, found, found)).collect::<Result<_>>()?;
        Ok(References { sampler, records, generations })
    }

    /// All pictures with a cache.
    pub(crate) fn cached(
        &mut self,
        references: &References,
        scheduler: Option<SchedulerKind>,
        cache: &CacheOptions,
    ) -> Result<Vec<Record>> {
        let change = |request: &Request| Request { cache: Some(cache.clone()), ..request.clone() };
        self.all(references, scheduler, change)
    }

    /// All pictures with another number of steps.
    pub(crate) fn fewer_steps(
        &mut self,
        references: &References,
        scheduler: Option<SchedulerKind>,
        steps: usize,
    ) -> Result<Vec<Record>> {
        self.all(references, scheduler, |request| Request { steps: Some(steps), ..request.clone() })
    }

    /// The cache that a profile recommends for this sampler, where one of them is of it.
    pub(crate) fn planned(
        &self,
        profiles: &[CacheProfile],
        scheduler: Option<SchedulerKind>,
        full_calls: usize,
        branch: usize,
    ) -> Result<Option<CacheOptions>> {
        let Some(subject) = self.subjects.first() else { return Ok(None) };
        let run = self.pipeline.profile_subject(&Request { scheduler, ..subject.request.clone() })?;
        let Some(profile) = profiles.iter().find(|profile| profile.check(&run).is_ok()) else {
            return Ok(None);
        };
        if profile.branch(branch).is_err() {
            return Ok(None);
        }
        let plan = profile.plan(Budget::FullCalls(full_calls), Some(branch), None)?;
        Ok(Some(CacheOptions::planned(&plan)))
    }

    /// The threshold with which the first pictures have about so many full calls each.
    pub(crate) fn threshold(
        &mut self,
        scheduler: Option<SchedulerKind>,
        full_calls: usize,
        branch: usize,
    ) -> Result<CacheOptions> {
        let options = |threshold: f64| CacheOptions {
            schedule: CacheSchedule::Threshold { threshold },
            ..CacheOptions::uniform(1, branch)
        };
        let (mut low, mut high) = THRESHOLDS;
        let mut best = (f64::INFINITY, high);
        for _ in 0..HALVINGS {
            let middle = (low * high).sqrt();
            let mut full = 0.0;
            let subjects = &self.subjects[..self.subjects.len().min(SEARCHED)];
            for subject in subjects {
                let cache = Some(options(middle));
                let found = self.run(&Request { scheduler, cache, ..subject.request.clone() })?;
                full += full_of(&found) as f64 / subjects.len() as f64;
            }
            let miss = (full / full_calls as f64).ln().abs();
            if miss < best.0 {
                best = (miss, middle);
            }
            // A higher threshold leaves fewer full calls.
            *(if full > full_calls as f64 { &mut low } else { &mut high }) = middle;
        }
        Ok(options(best.1))
    }

    /// Denoising steps of the uncached runs.
    pub(crate) fn steps(&self, scheduler: Option<SchedulerKind>) -> usize {
        let asked = self.subjects.first().and_then(|subject| subject.request.steps);
        asked.unwrap_or_else(|| self.pipeline.usual_steps(scheduler))
    }

    fn all(
        &mut self,
        references: &References,
        scheduler: Option<SchedulerKind>,
        change: impl Fn(&Request) -> Request,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::with_capacity(self.subjects.len());
        for (number, subject) in self.subjects.iter().enumerate() {
            let found = self.run(&Request { scheduler, ..change(&subject.request) })?;
            records.push(self.record(number, &found, &references.generations[number])?);
        }
        Ok(records)
    }

    fn run(&mut self, request: &Request) -> Result<Generation> {
        (self.before)();
        let stopped = self.stopped;
        self.pipeline
            .generate(request, |_| if stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn record(&self, subject: usize, found: &Generation, reference: &Generation) -> Result<Record> {
        let (picture, expected) = (&found.pictures[0], &reference.pictures[0]);
        // Equal pictures count as if a single value were off by one: an infinite mean says nothing.
        let least = 10.0 * (255.0 * 255.0 * expected.pixels.len() as f64).log10();
        let request = &self.subjects[subject].request;
        let right = match (&self.checker, &request.condition) {
            // Prompts that are no captions and pictures of other sizes cannot be judged.
            (Some(checker), Condition::Prompt { prompt, .. }) => {
                checker.check(picture, prompt).ok().map(|verdict| verdict.all())
            }
            _ => None,
        };
        let (full_calls, calls) = (full_of(found), found.statistics.steps.len());
        let [full, shallow] =
            [found.statistics.macs_full, found.statistics.macs_shallow].map(|macs| macs as f64);
        Ok(Record {
            subject,
            seconds: found.statistics.denoise_s,
            macs: full_calls as f64 * full + (calls - full_calls) as f64 * shallow,
            full_calls,
            calls,
            psnr: psnr(picture, expected)?.min(least),
            ssim: ssim(picture, expected)?,
            latents: found.latents.distance(&reference.latents)?,
            right,
            picture: picture.clone(),
        })
    }
}

/// Time of a picture; other programs lengthen single ones.
pub(crate) fn median_seconds(records: &[Record]) -> f64 {
    quartiles(&records.iter().map(|record| record.seconds).collect::<Vec<_>>()).estimate
}

/// Multiply-accumulates of a picture.
pub(crate) fn mean_macs(records: &[Record]) -> f64 {
    mean(&records.iter().map(|record| record.macs).collect::<Vec<_>>())
}

fn full_of(found: &Generation) -> usize {
    found.statistics.steps.iter().filter(|step| step.kind == StepKind::Full).count()
}

/// Whether a sampler just cannot do what was asked for, such as a schedule that does not exist.
pub(crate) fn not_possible(error: &Error) -> bool {
    matches!(error, Error::Option { .. })
}
