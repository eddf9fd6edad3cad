//! The work: uncached runs, their average, cached runs beside them.

use std::ops::ControlFlow;

use deepcache::Result;
use deepcache::deepcache::{CacheProfile, CacheSchedule};
use deepcache::pipelines::{
    Analysis, AnalysisOptions, CacheOptions, Condition, DiffusionPipeline, Generation, Request, Stage,
    StepKind,
};

use crate::watch::Watch;

/// Calls of the short runs that are timed: four full and four shallow ones.
const TIMED_CALLS: usize = 8;

/// What is looked at.
#[derive(Debug)]
pub(crate) struct Task {
    /// One for every picture.
    pub(crate) requests: Vec<Request>,
    pub(crate) branches: Vec<usize>,
    pub(crate) probes: usize,
    /// Numbers of full calls to try.
    pub(crate) trials: Vec<usize>,
    pub(crate) quiet: bool,
}

/// What was found, as an average over the pictures.
#[derive(Debug)]
pub(crate) struct Findings {
    /// The measurements that plans are made from, with what came of such plans.
    pub(crate) profile: CacheProfile,
    /// One for every branch of the profile.
    pub(crate) branches: Vec<BranchFindings>,
    pub(crate) stages: Vec<Stage>,
    /// The root mean square of the final latents, beside which errors are large or small.
    pub(crate) spread: f64,
}

/// What was found of one branch.
#[derive(Debug)]
pub(crate) struct BranchFindings {
    /// The skip index.
    pub(crate) branch: usize,
    /// For every pair of calls, the cosine of the angle between their features.
    pub(crate) cosine: Vec<Vec<f64>>,
    /// For every pair of calls, the distance of their features relative to the later one.
    pub(crate) relative_l2: Vec<Vec<f64>>,
    /// For every call, what a unit change of the feature leaves in the final latents.
    pub(crate) weights: Vec<f64>,
    /// Bytes of the kept feature.
    pub(crate) cache_bytes: u64,
    /// Multiply-accumulates of a shallow call as a share of those of a full one.
    pub(crate) shallow_macs: f64,
    /// Time of a shallow call as a share of that of a full one; `None` where the adapter has no timestamps.
    pub(crate) shallow_time: Option<f64>,
}

impl BranchFindings {
    /// How far the feature has moved since `gap` calls before, by the number of the later call.
    pub(crate) fn drift(&self, gap: usize) -> Vec<(usize, f64)> {
        (gap..self.relative_l2.len()).map(|call| (call, self.relative_l2[call - gap][call])).collect()
    }
}

impl Task {
    /// Does all of it.
    pub(crate) fn work(
        &self,
        pipeline: &mut DiffusionPipeline,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Findings> {
        let analyses = self.analyze(pipeline, stopped)?;
        let mut times = Vec::with_capacity(self.branches.len());
        for branch in &self.branches {
            times.push(self.time(pipeline, *branch, analyses[0].subject.timesteps.len())?);
        }
        let profiles: Result<Vec<CacheProfile>> = analyses.iter().map(Analysis::profile).collect();
        let mut profile = CacheProfile::average(&profiles?)?;
        let pictures = self.requests.iter().zip(&analyses);
        let runs: Vec<_> =
            pictures.map(|(request, analysis)| (request.clone(), analysis.latents.clone())).collect();
        let watch = Watch::new("cached runs", self.quiet, stopped);
        let tried =
            pipeline.try_plans(&mut profile, &runs, &self.trials, |progress| watch.show(progress, 0, 1));
        watch.finish(tried)?;
        Ok(Findings::gather(profile, &analyses, &times))
    }

    /// One uncached run with its probes for every picture.
    fn analyze(&self, pipeline: &mut DiffusionPipeline, stopped: &dyn Fn() -> bool) -> Result<Vec<Analysis>> {
        let options = AnalysisOptions { branches: self.branches.clone(), probes: self.probes };
        let watch = Watch::new("uncached runs", self.quiet, stopped);
        let pictures = self.requests.len();
        let mut analyses = Vec::with_capacity(pictures);
        for (number, request) in self.requests.iter().enumerate() {
            match pipeline.analyze(request, &options, |progress| watch.show(progress, number, pictures)) {
                Ok(analysis) => analyses.push(analysis),
                Err(error) => return watch.finish(Err(error)),
            }
        }
        watch.finish(Ok(analyses))
    }

    /// The time of a shallow call as a share of that of a full one: medians of a short run that alternates.
    fn time(&self, pipeline: &mut DiffusionPipeline, branch: usize, calls: usize) -> Result<Option<f64>> {
        let schedule = CacheSchedule::Uniform { interval: 2 };
        let cache = CacheOptions { schedule, ..CacheOptions::uniform(2, branch) };
        let first = &self.requests[0];
        let steps = if calls > TIMED_CALLS { Some(TIMED_CALLS) } else { first.steps };
        let request = Request { cache: Some(cache), steps, ..first.clone() };
        let generation = pipeline.generate(&request, |_| ControlFlow::Continue(()))?;
        let [full, shallow] =
            [StepKind::Full, StepKind::Shallow].map(|kind| median(times(&generation, kind)));
        Ok(full.zip(shallow).map(|(full, shallow)| shallow / full))
    }
}

/// Milliseconds on the device of all calls of a kind.
fn times(generation: &Generation, kind: StepKind) -> Vec<f64> {
    let steps = generation.statistics.steps.iter().filter(|step| step.kind == kind);
    steps.filter_map(|step| step.gpu_ms).filter(|time| *time > 0.0).collect()
}

/// The value in the middle; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count.is_multiple_of(2) => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

impl Findings {
    fn gather(profile: CacheProfile, analyses: &[Analysis], times: &[Option<f64>]) -> Self {
        let first = &analyses[0];
        let branch = |(number, shallow_time): (usize, &Option<f64>)| {
            let found = &first.branches[number];
            let of_all = || analyses.iter().map(|analysis| &analysis.branches[number]);
            BranchFindings {
                branch: found.branch,
                cosine: average(of_all().map(|found| &found.cosine[..])),
                relative_l2: average(of_all().map(|found| &found.relative_l2[..])),
                weights: profile.branches[number].weights.clone(),
                cache_bytes: found.cache_bytes,
                shallow_macs: profile.branches[number].shallow_cost,
                shallow_time: *shallow_time,
            }
        };
        let branches = times.iter().enumerate().map(branch).collect();
        let stage = |(number, stage): (usize, &Stage)| {
            let times: Option<Vec<f64>> =
                analyses.iter().map(|analysis| analysis.stages[number].time).collect();
            Stage { time: times.map(|times| mean(&times)), ..stage.clone() }
        };
        let stages = first.stages.iter().enumerate().map(stage).collect();
        let squares = analyses.iter().flat_map(|analysis| analysis.latents.values());
        let squares: Vec<f64> = squares.map(|value| f64::from(*value).powi(2)).collect();
        Self { branches, stages, spread: mean(&squares).sqrt(), profile }
    }

    /// Calls of the run.
    pub(crate) fn calls(&self) -> usize {
        self.profile.subject.timesteps.len()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean of several matrices, place by place.
fn average<'a>(matrices: impl Iterator<Item = &'a [Vec<f64>]>) -> Vec<Vec<f64>> {
    let matrices: Vec<&[Vec<f64>]> = matrices.collect();
    let place = |row: usize, column: usize| {
        mean(&matrices.iter().map(|matrix| matrix[row][column]).collect::<Vec<f64>>())
    };
    let rows = matrices.first().map_or(0, |matrix| matrix.len());
    (0..rows).map(|row| (0..rows).map(|column| place(row, column)).collect()).collect()
}

/// What the pictures of a request show, for people.
pub(crate) fn shown(condition: &Condition) -> String {
    match condition {
        Condition::Prompt { prompt, .. } => format!("\"{prompt}\""),
        Condition::ClassLabels(labels) => {
            let labels: Vec<String> = labels.iter().map(usize::to_string).collect();
            format!("class {}", labels.join(", "))
        }
        Condition::Nothing => "nothing in particular".to_owned(),
    }
}
