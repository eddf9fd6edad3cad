//! DeepCache in a run: which calls are full, what the shallow ones use, and when it cannot pay.

use super::recorded::CachePlan;
use super::{CacheOptions, Request};
use crate::deepcache::{CacheSchedule, Refresh, Reuse};
use crate::error::{Error, Result};
use crate::gpu::PendingRead;
use crate::kernels::forecast::WEIGHTS;
use crate::kernels::similarity::Similarity;
use crate::schedulers::{SchedulerKind, Trajectory};

/// With fewer calls than this there is little to reuse.
const FEW_CALLS: usize = 10;

/// What a run's calls do, picture after picture.
#[derive(Debug)]
pub(super) struct CacheRun {
    plan: CachePlan,
    rule: Rule,
    warm_up: usize,
    /// Full calls of the present picture, the newest first, as far as they are kept.
    full: Vec<usize>,
}

#[derive(Debug)]
enum Rule {
    Fixed(Vec<bool>),
    Online { threshold: f64, refresh: Refresh, measurements: Vec<Measurement> },
}

/// The drift of one call.
#[derive(Debug)]
struct Measurement {
    /// The full call before it.
    since: usize,
    pending: Option<PendingRead>,
    drift: Option<f64>,
}

impl CacheRun {
    /// What the options mean for a run of `calls` U-Net calls; `None` where every call is full.
    pub(super) fn new(options: &CacheOptions, calls: usize) -> Result<Option<Self>> {
        let CacheOptions { schedule, branch, reuse, warm_up } = options;
        let rule = match (schedule.full_calls(calls)?, schedule) {
            (Some(full), _) => Rule::Fixed(full),
            (None, CacheSchedule::Threshold { threshold }) => {
                let (threshold, refresh) = (*threshold, Refresh::new(*threshold));
                Rule::Online { threshold, refresh, measurements: Vec::new() }
            }
            (None, other) => {
                let problem = format!("{other:?} decides nothing");
                return Err(Error::option("cache schedule", problem));
            }
        };
        let measures = matches!(rule, Rule::Online { .. });
        let plan = CachePlan { branch: *branch, reuse: *reuse, measures };
        let run = Self { plan, rule, warm_up: *warm_up, full: Vec::new() };
        Ok((0..calls).any(|call| run.may_be_shallow(call)).then_some(run))
    }

    fn may_be_shallow(&self, call: usize) -> bool {
        call >= self.warm_up.max(1)
            && match &self.rule {
                Rule::Fixed(full) => !full[call],
                Rule::Online { .. } => true,
            }
    }

    pub(super) fn plan(&self) -> CachePlan {
        self.plan
    }

    /// A new picture: nothing is kept from the one before.
    pub(super) fn start(&mut self) {
        self.full.clear();
        if let Rule::Online { threshold, refresh, measurements } = &mut self.rule {
            *refresh = Refresh::new(*threshold);
            measurements.clear();
        }
    }

    /// What the next call does: weights of the kept features for a shallow one, nothing for a full one.
    pub(super) fn next(&mut self, call: usize) -> Result<Option<[f64; WEIGHTS]>> {
        let warm_up = call < self.warm_up;
        let full = match &mut self.rule {
            Rule::Fixed(full) => warm_up || full[call],
            Rule::Online { refresh, measurements, .. } => {
                if let Some(known) = Refresh::needs(call) {
                    let measurement = &mut measurements[known];
                    if let Some(drift) = measurement.settle()? {
                        refresh.tell(known, measurement.since, drift);
                    }
                }
                measurements.push(Measurement { since: refresh.last_full(), pending: None, drift: None });
                refresh.decide(call, warm_up)
            }
        };
        if full {
            self.full.insert(0, call);
            self.full.truncate(self.plan.reuse.features());
            return Ok(None);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let places: Vec<f64> = self.full.iter().map(|&call| call as f64).collect();
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        Ok(Some(self.plan.reuse.weights(&places, call as f64)))
    }

    /// Takes in the read of the drift that a call has measured.
    pub(super) fn measured(&mut self, call: usize, read: Option<PendingRead>) {
        if let Rule::Online { measurements, .. } = &mut self.rule {
            measurements[call].pending = read;
        }
    }

    /// The drift of every call of the present picture, once all are done.
    pub(super) fn drifts(&mut self) -> Result<Vec<Option<f64>>> {
        match &mut self.rule {
            Rule::Fixed(_) => Ok(Vec::new()),
            Rule::Online { measurements, .. } => measurements
                .iter_mut()
                .enumerate()
                // The first call has nothing before it.
                .map(|(call, measurement)| Ok(measurement.settle()?.filter(|_| call > 0)))
                .collect(),
        }
    }
}

impl Measurement {
    fn settle(&mut self) -> Result<Option<f64>> {
        if let Some(pending) = self.pending.take() {
            let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&pending.wait()?);
            self.drift = Some(Similarity::from_partial_sums(&sums).relative_l2);
        }
        Ok(self.drift)
    }
}

/// Why a cache will not do what its user hopes for.
pub(super) fn warnings(request: &Request, kind: SchedulerKind, trajectory: &Trajectory) -> Vec<String> {
    let Some(options) = &request.cache else { return Vec::new() };
    let calls = trajectory.calls.len();
    let mut warnings = Vec::new();
    let interval = match options.schedule {
        CacheSchedule::Uniform { interval }
        | CacheSchedule::Centered { interval, .. }
        | CacheSchedule::Quadratic { interval, .. } => Some(interval),
        CacheSchedule::List(_) | CacheSchedule::Threshold { .. } => None,
    };
    if interval == Some(1) {
        warnings.push("with a cache interval of 1 every call is full: nothing is reused".to_owned());
        return warnings;
    }
    if let Some(interval) = interval.filter(|interval| *interval >= calls) {
        warnings.push(format!(
            "the cache interval of {interval} is not below the {calls} U-Net calls of this run: only the first is full"
        ));
    }
    if kind == SchedulerKind::Lcm || calls < FEW_CALLS {
        warnings.push(format!(
            "caching hardly pays in a run of {calls} U-Net calls: neighbouring calls differ too much, and there \
             are few to save"
        ));
    }
    let noisy = trajectory.calls.iter().any(|call| call.uses_noise);
    if noisy && options.warm_up == 0 {
        warnings.push(format!(
            "{kind} adds noise in every step, which ages the kept feature faster: a smaller interval, or full \
             calls at the start (cache warm-up), stays closer to the uncached picture"
        ));
    }
    if options.reuse != Reuse::Hold && noisy {
        warnings
            .push("a forecast follows a trend, and added noise has none: holding is safer here".to_owned());
    }
    warnings
}
