//! The options of DeepCache.

use clap::Args;
use deepcache::deepcache::{CacheSchedule, Reuse, parse_branch};
use deepcache::pipelines::CacheOptions;
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
    /// --cache-interval), or list:0,5,9 [default: uniform].
    #[arg(long, value_name = "NAME")]
    cache_schedule: Option<String>,

    /// Where the network is cut: a skip index (0 reuses the most and is the fastest), or a number of the published
    /// codes: helper:B, paper:LAYER,BLOCK, ddpm:B [default: 0].
    #[arg(long, value_name = "S")]
    cache_branch: Option<String>,

    /// Decide while the run goes on: recompute the deep layers where the features around them have drifted by more than
    /// this since the last time (0.1 to 0.5 are usual).
    #[arg(long, value_name = "DRIFT", conflicts_with_all = ["cache_interval", "cache_schedule"])]
    cache_threshold: Option<f64>,

    /// What stands for the deep features meanwhile: hold (as they were), linear or quadratic (extrapolated).
    #[arg(long, value_name = "KIND", default_value = "hold")]
    cache_forecast: String,

    /// Recompute everything in the first N steps: for samplers that add noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    cache_warm_up: usize,
}

impl Cache {
    /// The cache for a model with so many residual blocks in a down block; `None` where every step is full.
    pub(crate) fn options(&self, layers_per_block: usize) -> Result<Option<CacheOptions>> {
        let reuse: Reuse = self.cache_forecast.parse()?;
        let branch = match &self.cache_branch {
            Some(text) => parse_branch(text, layers_per_block)?,
            None => 0,
        };
        let schedule = match (&self.cache_schedule, self.cache_interval, self.cache_threshold) {
            (_, _, Some(threshold)) => CacheSchedule::Threshold { threshold },
            (Some(text), interval, None) => CacheSchedule::parse(text, interval)?,
            (None, Some(interval), None) => CacheSchedule::Uniform { interval },
            (None, None, None) => return self.refuse_leftovers(reuse).map(|()| None),
        };
        Ok(Some(CacheOptions { schedule, branch, reuse, warm_up: self.cache_warm_up }))
    }

    /// Options that mean nothing without a schedule.
    fn refuse_leftovers(&self, reuse: Reuse) -> Result<()> {
        let given = [
            ("cache branch", self.cache_branch.is_some()),
            ("cache forecast", reuse != Reuse::Hold),
            ("cache warm-up", self.cache_warm_up > 0),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                let problem = "needs --cache-interval, --cache-schedule or --cache-threshold beside it";
                Err(Error::option(*option, problem))
            }
        }
    }
}
