//! The options of DeepCache.

use std::path::PathBuf;

use clap::Args;
use deepcache::deepcache::{
    Budget, CacheProfile, CacheSchedule, Plan, ProfileSubject, Reuse, describe_branch, parse_branch,
};
use deepcache::pipelines::{CacheOptions, DiffusionPipeline, Planner, Request};
use deepcache::{Error, Result};

/// How deep features are reused between steps.
#[derive(Debug, Args)]
#[command(next_help_heading = "DeepCache")]
pub(crate) struct Cache {
    /// Recompute the deep layers only every N steps: 3 is close to the full picture, 5 faster, 10 rough [default: every
    /// step].
    #[arg(long, value_name = "N")]
    cache_interval: Option<usize>,

    /// Which steps recompute them: uniform, centered[:CENTER[,POWER]], quadratic[:POWER] (each with
    /// --cache-interval), list:0,5,9, or auto: those that a --cache-profile recommends [default: uniform].
    #[arg(long, value_name = "NAME")]
    cache_schedule: Option<String>,

    /// Where the network is cut: a skip index (0 reuses the most and is the fastest), or a number of the published
    /// codes: helper:B, paper:LAYER,BLOCK, ddpm:B [default: 0; with --cache-speedup what the profile recommends].
    #[arg(long, value_name = "S")]
    cache_branch: Option<String>,

    /// Decide while the run goes on: recompute the deep layers where the features around them have drifted by more than
    /// this since the last time (0.1 to 0.5 are usual).
    #[arg(long, value_name = "DRIFT", conflicts_with_all = ["cache_interval", "cache_schedule"])]
    cache_threshold: Option<f64>,

    /// What stands for the deep features meanwhile: hold (as they were), linear or quadratic (extrapolated)
    /// [default: hold; with auto what the profile recommends].
    #[arg(long, value_name = "KIND")]
    cache_forecast: Option<String>,

    /// Recompute everything in the first N steps: for samplers that add noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_warm_up: usize,

    /// For auto: what the example "analyze" has measured of this model and sampler.
    #[arg(long, value_name = "FILE")]
    cache_profile: Option<PathBuf>,

    /// For auto: recompute the deep layers in so many steps.
    #[arg(long, value_name = "K", conflicts_with = "cache_speedup")]
    cache_budget: Option<usize>,

    /// For auto: make the U-Net at least so many times cheaper.
    #[arg(long, value_name = "FACTOR")]
    cache_speedup: Option<f64>,
}

/// What the options are read by: a loaded model, or one that is only planned with.
pub(crate) trait Subject {
    fn layers_per_block(&self) -> usize;
    fn profile_subject(&self, request: &Request) -> Result<ProfileSubject>;
}

impl Subject for DiffusionPipeline {
    fn layers_per_block(&self) -> usize {
        self.layers_per_block()
    }

    fn profile_subject(&self, request: &Request) -> Result<ProfileSubject> {
        self.profile_subject(request)
    }
}

impl Subject for Planner {
    fn layers_per_block(&self) -> usize {
        self.layers_per_block()
    }

    fn profile_subject(&self, request: &Request) -> Result<ProfileSubject> {
        self.profile_subject(request)
    }
}

/// What the options mean for a run.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// For the request.
    pub(crate) options: CacheOptions,
    /// What a profile recommended.
    plan: Option<Plan>,
}

impl Cache {
    /// The cache for a run; `None` where every step is full.
    pub(crate) fn choose(&self, pipeline: &impl Subject, request: &Request) -> Result<Option<Chosen>> {
        let reuse: Option<Reuse> = self.cache_forecast.as_deref().map(str::parse).transpose()?;
        let branch = match &self.cache_branch {
            Some(text) => Some(parse_branch(text, pipeline.layers_per_block())?),
            None => None,
        };
        let auto = self.cache_schedule.as_deref() == Some("auto");
        self.refuse_leftovers(auto)?;
        if auto {
            let plan = self.plan(pipeline, request, branch, reuse)?;
            let options = CacheOptions { warm_up: self.cache_warm_up, ..CacheOptions::planned(&plan) };
            return Ok(Some(Chosen { options, plan: Some(plan) }));
        }
        let schedule = match (&self.cache_schedule, self.cache_interval, self.cache_threshold) {
            (_, _, Some(threshold)) => CacheSchedule::Threshold { threshold },
            (Some(text), interval, None) => CacheSchedule::parse(text, interval)?,
            (None, Some(interval), None) => CacheSchedule::Uniform { interval },
            (None, None, None) => return Ok(None),
        };
        let (branch, reuse) = (branch.unwrap_or(0), reuse.unwrap_or_default());
        let options = CacheOptions { schedule, branch, reuse, warm_up: self.cache_warm_up };
        Ok(Some(Chosen { options, plan: None }))
    }

    /// What a profile recommends.
    fn plan(
        &self,
        pipeline: &impl Subject,
        request: &Request,
        branch: Option<usize>,
        reuse: Option<Reuse>,
    ) -> Result<Plan> {
        let Some(path) = &self.cache_profile else {
            let problem = "auto needs a --cache-profile, which the example \"analyze\" writes";
            return Err(Error::option("cache schedule", problem));
        };
        let (budget, branch) = match (self.cache_budget, self.cache_speedup) {
            (Some(count), None) => (Budget::FullCalls(count), Some(branch.unwrap_or(0))),
            (None, Some(factor)) => (Budget::Speedup(factor), branch),
            _ => {
                let problem = "auto needs a --cache-budget or a --cache-speedup";
                return Err(Error::option("cache schedule", problem));
            }
        };
        let profile = CacheProfile::read(path)?;
        profile.check(&pipeline.profile_subject(request)?)?;
        profile.plan(budget, branch, reuse)
    }

    /// Options that mean nothing without others.
    fn refuse_leftovers(&self, auto: bool) -> Result<()> {
        let of_auto = [
            ("cache profile", self.cache_profile.is_some()),
            ("cache budget", self.cache_budget.is_some()),
            ("cache speedup", self.cache_speedup.is_some()),
        ];
        let given = |options: &[(&'static str, bool)]| {
            options.iter().find(|(_, given)| *given).map(|(option, _)| *option)
        };
        if let Some(option) = given(&of_auto).filter(|_| !auto) {
            return Err(Error::option(option, "needs --cache-schedule auto beside it"));
        }
        if auto && self.cache_interval.is_some() {
            let problem = "says nothing to --cache-schedule auto: use --cache-budget";
            return Err(Error::option("cache interval", problem));
        }
        let any =
            self.cache_schedule.is_some() || self.cache_interval.is_some() || self.cache_threshold.is_some();
        let of_any = [
            ("cache branch", self.cache_branch.is_some()),
            ("cache forecast", self.cache_forecast.is_some()),
            ("cache warm-up", self.cache_warm_up > 0),
        ];
        match given(&of_any).filter(|_| !any) {
            None => Ok(()),
            Some(option) => {
                let problem = "needs --cache-interval, --cache-schedule or --cache-threshold beside it";
                Err(Error::option(option, problem))
            }
        }
    }
}

impl Chosen {
    /// Says what is reused, and what was recommended.
    pub(crate) fn introduce(&self, layers_per_block: usize) {
        eprintln!("DeepCache: {}", describe_branch(self.options.branch, layers_per_block));
        if let Some(Plan { reuse, full, speedup, .. }) = &self.plan {
            let calls: Vec<String> = full.iter().map(usize::to_string).collect();
            eprintln!(
                "DeepCache: features {}, {} full calls ({}), {speedup:.2} times less work in the U-Net",
                match reuse {
                    Reuse::Hold => "are held".to_owned(),
                    other => format!("are extrapolated ({other})"),
                },
                full.len(),
                calls.join(","),
            );
        }
    }
}
