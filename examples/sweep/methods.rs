//! The ways that are compared.

use std::fmt;
use std::str::FromStr;

use deepcache::deepcache::{CacheSchedule, Reuse};
use deepcache::pipelines::CacheOptions;
use deepcache::{Error, Result};

/// A way to make a run faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The paper's "1:N".
    Uniform,
    /// The paper's non-uniform schedule.
    Centered,
    /// Uniform full steps, features continued on a line between them.
    Linear,
    /// Uniform full steps, features continued on a parabola.
    Quadratic,
    /// What a profile recommends.
    Auto,
    /// Decided by the drift while the run goes on.
    Threshold,
    /// Fewer steps without a cache, in the time of the uniform schedule.
    Steps,
}

impl Method {
    /// All of them; the uniform one first, which the others are compared with.
    pub(crate) const ALL: [Self; 7] = [
        Self::Uniform,
        Self::Centered,
        Self::Linear,
        Self::Quadratic,
        Self::Auto,
        Self::Threshold,
        Self::Steps,
    ];

    /// The cache of a way that needs no measurement.
    pub(crate) fn fixed(self, interval: usize, branch: usize) -> Option<CacheOptions> {
        let uniform = CacheOptions::uniform(interval, branch);
        match self {
            Self::Uniform => Some(uniform),
            Self::Linear => Some(CacheOptions { reuse: Reuse::Linear, ..uniform }),
            Self::Quadratic => Some(CacheOptions { reuse: Reuse::Quadratic, ..uniform }),
            Self::Centered => {
                let schedule = CacheSchedule::Centered { interval, center: None, power: None };
                Some(CacheOptions { schedule, ..uniform })
            }
            Self::Auto | Self::Threshold | Self::Steps => None,
        }
    }
}

/// The options with which `generate` makes the same run.
pub(crate) fn options_of(cache: &CacheOptions) -> String {
    let schedule = match &cache.schedule {
        CacheSchedule::Uniform { interval } => format!("--cache-interval {interval}"),
        CacheSchedule::Centered { interval, .. } => {
            format!("--cache-schedule centered --cache-interval {interval}")
        }
        CacheSchedule::List(full) => {
            let calls: Vec<String> = full.iter().map(usize::to_string).collect();
            format!("--cache-schedule list:{}", calls.join(","))
        }
        CacheSchedule::Threshold { threshold } => format!("--cache-threshold {threshold:.5}"),
        other => format!("{other:?}"),
    };
    let forecast = match cache.reuse {
        Reuse::Hold => String::new(),
        other => format!(" --cache-forecast {other}"),
    };
    format!("{schedule}{forecast} --cache-branch {}", cache.branch)
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uniform => "uniform",
            Self::Centered => "centered",
            Self::Linear => "linear",
            Self::Quadratic => "quadratic",
            Self::Auto => "auto",
            Self::Threshold => "threshold",
            Self::Steps => "steps",
        })
    }
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|method| method.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|method| method.to_string()).join(", ");
            Error::option("methods", format!("expected some of {names}, found \"{text}\""))
        })
    }
}
