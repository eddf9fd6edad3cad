//! The command line.

use std::path::PathBuf;

use clap::Parser;
use deepcache::pipelines::{Condition, Request};
use deepcache::weights::ModelKind;
use deepcache::{Error, Result};

use crate::command::{Conditions, ModelOptions, Sampling, parse_branches};

/// What it draws where no prompt is given: all of shapes, sizes, places and patterns that differ much.
const CAPTIONS: [&str; 4] = [
    "a large orange ring in the center on a purple background",
    "a small yellow star on the left on a blue striped background",
    "a large green cross at the bottom on a gray gradient background",
    "a small purple triangle on the right on a yellow checkered background",
];
/// Branches that are looked at where none is named.
const BRANCHES: [usize; 3] = [0, 1, 2];
const QUICK_BRANCHES: [usize; 2] = [0, 2];
/// Full calls that are tried where no number is given: the calls divided by these.
const INTERVALS: [usize; 5] = [2, 3, 5, 7, 10];
const QUICK_INTERVALS: [usize; 2] = [3, 5];
/// Calls in which the weight is measured.
const PROBES: usize = 12;
const QUICK_PROBES: usize = 4;
/// Pictures of a model that is told nothing: as many as there are captions.
const UNCONDITIONAL_PICTURES: usize = 4;
/// Fewer calls leave nothing to plan.
const FEWEST_CALLS: usize = 4;

/// Shows when caching works for a model, and writes the profile that generate plans with.
///
/// Makes pictures without a cache and measures, between all pairs of U-Net calls, how far the deep features lie
/// apart, and for every call, how much a change of them leaves in the finished picture. From that it plans which
/// calls to recompute, tries such plans, and says how right the expectation was. Without --model it looks at the
/// small model that comes with deepcache.
#[derive(Debug, Parser)]
#[command(
    name = "analyze",
    version,
    override_usage = "analyze [OPTIONS] [PROMPT]...\n       analyze --list-devices",
    after_help = "Examples:
  analyze --quick                                   a first look at the small model, in a minute or two
  analyze --scheduler ddim --steps 50               all of it
  analyze \"a lighthouse at dusk\" \"a red bicycle\" --model ~/models/stable-diffusion-v1-5 --output lighthouse
  analyze --model ~/models/cin256 --class-label \"golden retriever\" --class-label 817 --branches 0,1
  analyze --model ~/models/ddpm-cifar10-32 --scheduler ddim --steps 100 --branches ddpm:0,ddpm:1,ddpm:2
  generate \"a lighthouse at dusk\" --model ~/models/stable-diffusion-v1-5 --cache-schedule auto \\
    --cache-profile lighthouse/profile.json --cache-speedup 2

What it writes, and what to look at:
  report.md                  everything below with a few sentences that say what it means; start here
  profile.json               for generate --cache-schedule auto --cache-profile; it holds for this sampler with so many
                             steps, with or without guidance, and for every prompt, seed and size
  similarity-branch-B.png    the cosine between the features of all pairs of calls. Bright squares on the diagonal are
                             stretches in which one feature can stand for all; where the diagonal is thin, it cannot
  similarity-branch-B.csv    the same numbers, with the relative distance
  drift.png                  how far the feature has moved since 1, 2, 5 and 10 calls before. Peaks are calls that want
                             to be full; where the curves for 5 and 10 lie hardly above the others, it hardly moves on
  drift-branches.png         the same from call to call for every branch: lower curves are safer, and save less
  weights.png                what a unit change of the feature leaves in the final latents. Where it is high a stale
                             feature does harm, where it is low it does not matter
  trials.png, trials.csv     what came of the plans: error against speed-up, planned and as DeepCache does it. The lower
                             curve wins; where curves of branches cross, the better branch changes
  expectation.png            expected against measured errors: the nearer to the line, the more a plan can be trusted
  stages.csv, branches.csv   where the work lies, what a branch keeps in memory and what it can save at most"
)]
pub(crate) struct Options {
    /// What the pictures show, for a text-to-image model: one or several prompts, of which the profile is the average
    /// [default for the small model: four captions].
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,

    #[command(flatten)]
    pub(crate) conditions: Conditions,

    #[command(flatten)]
    sampling: Sampling,

    #[command(flatten)]
    pub(crate) model: ModelOptions,

    /// Pictures of each prompt or class, each with a seed of its own: the seed, the next one, … [default: 1; 4 for a
    /// model that is told nothing].
    #[arg(long, value_name = "N", help_heading = "Analysis")]
    pictures: Option<usize>,

    /// Where the network may be cut, separated by commas: skip indices, or numbers of the published codes as in
    /// generate --cache-branch [default: 0,1,2].
    #[arg(long, value_name = "S,S,…", help_heading = "Analysis")]
    branches: Option<String>,

    /// In so many calls it is measured what a change of the feature leaves in the finished picture; takes a whole run
    /// for every two of them [default: 12].
    #[arg(long, value_name = "N", help_heading = "Analysis")]
    probes: Option<usize>,

    /// Numbers of full calls that are tried, separated by commas [default: a half, a third, a fifth, a seventh and a
    /// tenth of the calls].
    #[arg(long, value_name = "K,K,…", help_heading = "Analysis")]
    trials: Option<String>,

    /// A first look: one picture, branches 0 and 2, 4 probes, trials of a third and a fifth of the calls. Each can be
    /// overruled.
    #[arg(long, help_heading = "Analysis")]
    quick: bool,

    /// The folder to write into; it is made if only itself is missing.
    #[arg(long, value_name = "FOLDER", default_value = "analysis", help_heading = "Files and reports")]
    pub(crate) output: PathBuf,

    /// Print nothing but errors.
    #[arg(long, short, help_heading = "Files and reports")]
    pub(crate) quiet: bool,
}

impl Options {
    /// One request for every picture, in the order in which they are made.
    pub(crate) fn requests(&self, kind: ModelKind) -> Result<Vec<Request>> {
        self.conditions.check(&self.model.model, kind, !self.prompt.is_empty())?;
        let conditions = self.all_conditions(kind)?;
        let usual = if kind == ModelKind::Unconditional && !self.quick { UNCONDITIONAL_PICTURES } else { 1 };
        let pictures = self.pictures.unwrap_or(usual);
        if !(1..=1024).contains(&pictures) {
            return Err(Error::option("pictures", format!("expected 1 to 1024, found {pictures}")));
        }
        let mut requests = Vec::with_capacity(conditions.len() * pictures);
        for condition in conditions {
            let first = self.conditions.worded(self.sampling.request(condition)?)?;
            let seeds = (0..pictures as u64).map(|number| first.seed.wrapping_add(number));
            requests.extend(seeds.map(|seed| Request { seed, ..first.clone() }));
        }
        Ok(requests)
    }

    fn all_conditions(&self, kind: ModelKind) -> Result<Vec<Condition>> {
        match kind {
            ModelKind::ClassConditional => {
                let labels = self.conditions.labels()?;
                Ok(labels.into_iter().map(|label| Condition::ClassLabels(vec![label])).collect())
            }
            ModelKind::TextToImage => {
                let mut prompts: Vec<&str> = self.prompt.iter().map(String::as_str).collect();
                if prompts.is_empty() && self.model.is_default() {
                    prompts = CAPTIONS[..if self.quick { 1 } else { CAPTIONS.len() }].to_vec();
                }
                if prompts.is_empty() {
                    return Err(Error::option(
                        "prompt",
                        "expected what the pictures show, one or several prompts",
                    ));
                }
                let negative_prompt = self.conditions.negative_prompt();
                let condition = |prompt: &str| Condition::Prompt {
                    prompt: prompt.to_owned(),
                    negative_prompt: negative_prompt.clone(),
                };
                Ok(prompts.into_iter().map(condition).collect())
            }
            _ => Ok(vec![Condition::Nothing]),
        }
    }

    /// The skip indices, ascending, for a model that has `count` of them.
    pub(crate) fn branches(&self, count: usize, layers_per_block: usize) -> Result<Vec<usize>> {
        let Some(text) = &self.branches else {
            let usual: &[usize] = if self.quick { &QUICK_BRANCHES } else { &BRANCHES };
            return Ok(usual.iter().copied().filter(|branch| *branch < count).collect());
        };
        let mut branches = parse_branches(text, count, layers_per_block)?;
        branches.sort_unstable();
        Ok(branches)
    }

    /// In how many calls the weight is measured.
    pub(crate) fn probes(&self) -> Result<usize> {
        match self.probes.unwrap_or(if self.quick { QUICK_PROBES } else { PROBES }) {
            0 => Err(Error::option("probes", "expected at least 1, found 0")),
            probes => Ok(probes),
        }
    }

    /// Numbers of full calls to try, descending, for a run of so many calls.
    pub(crate) fn trials(&self, calls: usize) -> Result<Vec<usize>> {
        if calls < FEWEST_CALLS {
            let problem =
                format!("an analysis needs at least {FEWEST_CALLS} U-Net calls, this run has {calls}");
            return Err(Error::option("steps", problem));
        }
        let mut counts = match &self.trials {
            None => {
                let intervals: &[usize] = if self.quick { &QUICK_INTERVALS } else { &INTERVALS };
                let nearest = |interval: &usize| ((calls + interval / 2) / interval).max(2);
                intervals.iter().map(nearest).collect()
            }
            Some(text) => numbers(text)?,
        };
        if let Some(wrong) = counts.iter().find(|count| !(1..calls).contains(*count)) {
            let problem = format!("expected 1 to {} full calls of {calls}, found {wrong}", calls - 1);
            return Err(Error::option("trials", problem));
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.dedup();
        Ok(counts)
    }
}

fn numbers(text: &str) -> Result<Vec<usize>> {
    let number = |part: &str| {
        part.trim().parse().map_err(|_| {
            let problem = format!("expected numbers of full calls such as 25,10,5, found \"{text}\"");
            Error::option("trials", problem)
        })
    };
    text.split(',').map(number).collect()
}
