//! What is recommended, and how to run it.

use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};
use deepcache::Result;
use deepcache::deepcache::{Budget, CacheProfile, Plan};
use deepcache::pipelines::Condition;

use crate::options::Options;

/// How many times less work in the U-Net is asked for.
const TARGETS: [f64; 3] = [1.5, 2.0, 3.0];
/// Options that generate does not have, or that are written otherwise.
const OTHERS: [&str; 9] =
    ["prompt", "class_label", "pictures", "branches", "probes", "trials", "quick", "output", "quiet"];

/// What is recommended for so many times less work in the U-Net.
#[derive(Debug)]
pub(crate) struct Recommendation {
    pub(crate) target: f64,
    /// `None` where no branch can save so much.
    pub(crate) plan: Option<Plan>,
}

/// The plans that `generate --cache-schedule auto --cache-speedup` makes.
pub(crate) fn recommendations(profile: &CacheProfile) -> Result<Vec<Recommendation>> {
    let most = most(profile);
    let recommend = |target: f64| {
        let budget = Budget::Speedup(target);
        let plan = if target <= most { Some(profile.plan(budget, None, None)?) } else { None };
        Ok(Recommendation { target, plan })
    };
    TARGETS.into_iter().map(recommend).collect()
}

/// How many times less work the profile's branches reach, with one full call.
pub(crate) fn most(profile: &CacheProfile) -> f64 {
    profile.branches.iter().map(|branch| branch.speedup(1)).fold(1.0, f64::max)
}

/// The command line that makes the first picture with a recommended plan.
pub(crate) fn command_line(condition: &Condition, profile: &Path, target: f64) -> String {
    let mut words = vec!["generate".to_owned()];
    match condition {
        Condition::Prompt { prompt, .. } => words.push(prompt.clone()),
        Condition::ClassLabels(labels) => {
            let labels = labels.iter().take(1).map(usize::to_string);
            words.extend(labels.flat_map(|label| ["--class-label".to_owned(), label]));
        }
        Condition::Nothing => {}
    }
    // Read already when the program started.
    if let Ok(matches) = Options::command().try_get_matches() {
        words.extend(given(&matches));
    }
    words.extend(["--cache-schedule", "auto", "--cache-profile"].map(str::to_owned));
    words.extend([profile.display().to_string(), "--cache-speedup".to_owned(), target.to_string()]);
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// The options of the command line that are those of generate too, as they were given.
fn given(matches: &ArgMatches) -> Vec<String> {
    let mut words = Vec::new();
    for argument in Options::command().get_arguments() {
        let name = argument.get_id().as_str();
        let long = argument.get_long().filter(|_| !OTHERS.contains(&name));
        let own = matches.value_source(name) == Some(ValueSource::CommandLine);
        if let (Some(long), Some(values), true) = (long, matches.get_raw(name), own) {
            words
                .extend(values.flat_map(|value| [format!("--{long}"), value.to_string_lossy().into_owned()]));
        }
    }
    words
}

/// A word as a shell reads it.
fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,+@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(['"', '$', '`', '\\', '!']) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        format!("\"{word}\"")
    }
}
