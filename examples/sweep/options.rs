//! The command line.

use std::path::PathBuf;

use clap::Parser;
use deepcache::pipelines::{Condition, DiffusionPipeline, Request};
use deepcache::schedulers::SchedulerKind;
use deepcache::weights::ModelKind;
use deepcache::{Error, Result};
use serde::Deserialize;

use crate::command::{Conditions, ModelOptions, Sampling, parse_branches};
use crate::methods::Method;

/// Prompts with seeds for the model that comes with deepcache.
const DEFAULT_PROMPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny/prompts.json");
/// Pictures of a sweep that is not told otherwise.
const USUAL_PICTURES: usize = 8;
const QUICK_PICTURES: usize = 2;

/// Compares ways to make a model faster: DeepCache with several schedules and budgets, and simply fewer steps, each
/// against the picture that the model makes with every step in full.
///
/// Without --model it uses the small model that comes with deepcache, and also checks whether its pictures show what
/// their prompts say.
#[derive(Debug, Parser)]
#[command(
    name = "sweep",
    version,
    override_usage = "sweep [OPTIONS] [PROMPT]...",
    after_help = "Examples:
  sweep --quick                                          the small model, two pictures, a minute
  sweep --profile analysis/profile.json                  with the schedules that \"analyze\" recommends
  sweep --schedulers ddim,dpmpp-2m --steps 30 --intervals 2,3,5 --branches 0,2
  sweep --model ~/models/stable-diffusion-v1-5 \"a lighthouse at dusk\" \"a bowl of cherries\" --quick

What to look at:
  summary.md            one line per way and budget, with 95 % confidence intervals: is \"vs uniform\" above zero?
                        Times are medians of all pictures; \"less work\" counts multiply-accumulates
  pareto-SAMPLER.png    up is closer to the full picture, left is faster; what nothing beats is on the line
  pictures-SAMPLER.png  whether a person would see the difference at all
  results.csv           every single picture, for your own statistics"
)]
pub(crate) struct Options {
    /// What the pictures show, for a text-to-image model.
    prompt: Vec<String>,

    /// Prompts from a file instead: a JSON list of objects with a "prompt" and a "seed".
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,

    #[command(flatten)]
    pub model: ModelOptions,

    #[command(flatten)]
    pub conditions: Conditions,

    #[command(flatten)]
    pub sampling: Sampling,

    /// Number of pictures in all; prompts and classes are taken in turn, with a new seed each time [default: one of each,
    /// 8 where there is a file of prompts or no condition].
    #[arg(long, value_name = "N")]
    pictures: Option<usize>,

    /// Samplers to compare, by the names of --scheduler [default: --scheduler].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Sampler")]
    schedulers: Vec<String>,

    /// Ways to compare: uniform, centered, linear and quadratic (forecasts between uniform full steps), auto (what a
    /// --profile recommends), threshold (decided while the run goes on), steps (fewer of them, in the same time or with --equal work).
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "uniform,centered,linear,auto,threshold,steps",
        help_heading = "DeepCache"
    )]
    methods: Vec<String>,

    /// What "steps" may take: the time of uniform as it was measured, or its work (multiply-accumulates), which no other
    /// program on this machine disturbs.
    #[arg(long, value_name = "WHAT", default_value = "time", help_heading = "DeepCache")]
    equal: String,

    /// Budgets: a full step in every N.
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        default_value = "2,3,5,10",
        help_heading = "DeepCache"
    )]
    intervals: Vec<usize>,

    /// Where the network is cut, by the names of generate's --cache-branch.
    #[arg(long, value_name = "S,S", default_value = "0", help_heading = "DeepCache")]
    branches: String,

    /// What "analyze" has measured, for auto; may be given once for each sampler.
    #[arg(long, value_name = "FILE", help_heading = "DeepCache")]
    pub profile: Vec<PathBuf>,

    /// The folder for tables and charts; it is made if it is not there.
    #[arg(long, value_name = "FOLDER", default_value = "sweep")]
    pub output: PathBuf,

    /// Two pictures and two budgets: a first impression.
    #[arg(long)]
    pub quick: bool,

    /// Print nothing but errors and warnings.
    #[arg(long, short)]
    pub quiet: bool,
}

/// One picture that every way makes.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    /// What it is called in tables.
    pub(crate) name: String,
    /// Without sampler and cache.
    pub(crate) request: Request,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
    seed: u64,
}

impl Options {
    /// The pictures, in their order.
    pub(crate) fn subjects(&self, kind: ModelKind) -> Result<Vec<Subject>> {
        let given = !self.prompt.is_empty() || self.prompts.is_some();
        self.conditions.check(&self.model.model, kind, given)?;
        let seed = self.sampling.seed;
        let negative_prompt = self.conditions.negative_prompt();
        let text = |prompt: String, seed: u64| {
            let condition =
                Condition::Prompt { prompt: prompt.clone(), negative_prompt: negative_prompt.clone() };
            (prompt, condition, seed)
        };
        let seeds = seed..;
        let (all, usual): (Vec<(String, Condition, u64)>, usize) = match kind {
            ModelKind::TextToImage if self.prompt.is_empty() => {
                let prompts = self.read_prompts()?;
                let count = prompts.len().min(USUAL_PICTURES);
                (prompts.into_iter().map(|given| text(given.prompt, given.seed)).collect(), count)
            }
            ModelKind::TextToImage => {
                let prompts = self.prompt.iter().cloned().zip(seeds);
                (prompts.map(|(prompt, seed)| text(prompt, seed)).collect(), self.prompt.len())
            }
            ModelKind::ClassConditional => {
                let labels = self.conditions.labels()?;
                let count = labels.len();
                let one =
                    |(label, seed)| (format!("class {label}"), Condition::ClassLabels(vec![label]), seed);
                (labels.into_iter().zip(seeds).map(one).collect(), count)
            }
            _ => (vec![("no condition".to_owned(), Condition::Nothing, seed)], USUAL_PICTURES),
        };
        let usual = if self.quick { usual.min(QUICK_PICTURES) } else { usual };
        let count = self.pictures.unwrap_or(usual);
        if !(1..=10_000).contains(&count) {
            return Err(Error::option("pictures", format!("expected 1 to 10000, found {count}")));
        }
        let mut subjects = Vec::with_capacity(count);
        for round in 0_u64.. {
            for (name, condition, seed) in &all {
                if subjects.len() == count {
                    return Ok(subjects);
                }
                // Later rounds have seeds that no earlier one has.
                let seed = seed.wrapping_add(round * all.len() as u64);
                let request = self.sampling.request(condition.clone())?;
                let request = Request { seed, ..self.conditions.worded(request)? };
                subjects.push(Subject { name: format!("{name}, seed {seed}"), request });
            }
        }
        Ok(subjects)
    }

    fn read_prompts(&self) -> Result<Vec<Prompt>> {
        let path = match &self.prompts {
            Some(path) => path.clone(),
            None if self.model.is_default() => PathBuf::from(DEFAULT_PROMPTS),
            None => return Err(Error::option("prompt", "expected what the pictures show")),
        };
        let text = std::fs::read_to_string(&path).map_err(|source| Error::io(&path, "read", source))?;
        let prompts: Vec<Prompt> = serde_json::from_str(&text).map_err(|error| {
            Error::config_file(&path, format!("is not a list of prompts and seeds: {error}"))
        })?;
        if prompts.is_empty() {
            return Err(Error::config_file(&path, "has no prompt"));
        }
        Ok(prompts)
    }

    /// The samplers; `None` is the model's own.
    pub(crate) fn samplers(&self) -> Result<Vec<Option<SchedulerKind>>> {
        if self.schedulers.is_empty() {
            return Ok(vec![self.sampling.scheduler.as_deref().map(str::parse).transpose()?]);
        }
        let read = |name: &String| {
            name.parse().map(Some).map_err(|error| match error {
                Error::Option { problem, .. } => Error::option("schedulers", problem),
                other => other,
            })
        };
        self.schedulers.iter().map(read).collect()
    }

    pub(crate) fn methods(&self) -> Result<Vec<Method>> {
        let methods: Vec<Method> = self.methods.iter().map(|name| name.parse()).collect::<Result<_>>()?;
        let uniform = methods.iter().position(|method| *method == Method::Uniform);
        let steps = methods.iter().position(|method| *method == Method::Steps);
        if steps.is_some_and(|steps| uniform.is_none_or(|uniform| uniform > steps)) {
            let problem = "\"steps\" take the time of \"uniform\", which has to stand before it";
            return Err(Error::option("methods", problem));
        }
        Ok(methods)
    }

    /// Whether fewer steps may take as much work as a cached run, not as much time.
    pub(crate) fn equal_work(&self) -> Result<bool> {
        match self.equal.as_str() {
            "time" => Ok(false),
            "work" => Ok(true),
            other => Err(Error::option("equal", format!("expected time or work, found \"{other}\""))),
        }
    }

    /// One full step in so many.
    pub(crate) fn intervals(&self) -> Result<Vec<usize>> {
        if let Some(wrong) = self.intervals.iter().find(|interval| **interval < 2) {
            return Err(Error::option("intervals", format!("expected 2 or more, found {wrong}")));
        }
        let quick = if self.intervals.len() > 2 { &self.intervals[1..3] } else { &self.intervals };
        Ok(if self.quick { quick.to_vec() } else { self.intervals.clone() })
    }

    /// The skip indices.
    pub(crate) fn branches(&self, pipeline: &DiffusionPipeline) -> Result<Vec<usize>> {
        parse_branches(&self.branches, pipeline.skip_count(), pipeline.layers_per_block())
    }
}
