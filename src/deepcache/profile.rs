//! What is known about a model's deep features before a run, as a file.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::planning::Placement;
use super::reuse::Reuse;
use crate::error::{Error, Result};

/// What a file of this kind says it is.
const FORMAT: &str = "deepcache cache profile";
const VERSION: u32 = 1;
/// More calls or branches than any run has.
const MOST: usize = 10_000;

/// How far a model's deep features lie apart over the calls of a run, and how much that matters at its end:
/// measured once by [`DiffusionPipeline::analyze`](crate::pipelines::DiffusionPipeline::analyze), and enough to
/// [plan](Self::plan) schedules for any budget. It does not depend on the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheProfile {
    format: String,
    version: u32,
    /// Pictures that were averaged.
    pub pictures: usize,
    /// The kind of run that it holds for.
    pub subject: ProfileSubject,
    /// One for every branch that was looked at.
    pub branches: Vec<BranchProfile>,
}

/// The kind of run that a profile holds for. Weights, prompts, seeds and sizes are not part of it: a profile of a
/// model serves its fine-tuned relatives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileSubject {
    /// Channels of the sample.
    pub in_channels: usize,
    /// Channels of the U-Net's levels.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a down block.
    pub layers_per_block: usize,
    /// Name of the sampler.
    pub scheduler: String,
    /// Timesteps of the calls.
    pub timesteps: Vec<f64>,
    /// Whether there is classifier-free guidance.
    pub guided: bool,
}

/// A branch of a profile. With S calls:
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchProfile {
    /// The skip index.
    pub branch: usize,
    /// Multiply-accumulates of a shallow call as a share of those of a full one.
    pub shallow_cost: f64,
    /// For each of the S calls, what a distance of 1 between the feature and what stands for it leaves in the
    /// final latents.
    pub weights: Vec<f64>,
    /// Row `i` has `S - 1 - i` distances: of the feature of call `i` to those of the calls after it, as root mean
    /// squares over the feature's values.
    pub distances: Vec<Vec<f64>>,
    /// Cached runs that were compared with the uncached ones.
    #[serde(default)]
    pub trials: Vec<Trial>,
}

/// A kind of schedule that was tried, with what came of it: how right the expectation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// How the full calls were placed.
    pub placement: Placement,
    /// What stood for the deep feature in shallow calls.
    pub reuse: Reuse,
    /// Number of full calls.
    pub full_calls: usize,
    /// Distance of the final latents from those of the uncached run that was expected, as a root mean square.
    pub expected: f64,
    /// The distance that was found: the geometric mean over the pictures.
    pub measured: f64,
}

impl CacheProfile {
    /// A profile of one picture.
    #[must_use]
    pub fn new(subject: ProfileSubject, branches: Vec<BranchProfile>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, pictures: 1, subject, branches }
    }

    /// The average of several profiles of the same kind of run, without their trials: root mean squares of distances, geometric means of
    /// weights, which differ by orders of magnitude over a run.
    ///
    /// # Errors
    /// [`Error::Option`] if there are none, or they are not of the same kind of run and the same branches.
    pub fn average(profiles: &[Self]) -> Result<Self> {
        let [first, ..] = profiles else {
            return Err(Error::option("cache profile", "an average needs at least one"));
        };
        for profile in profiles {
            profile.check(&first.subject)?;
            let same = |left: &Self, right: &Self| {
                left.branches.iter().map(|branch| branch.branch).eq(right.branches.iter().map(|b| b.branch))
            };
            if !same(profile, first) {
                return Err(Error::option("cache profile", "profiles of different branches have no average"));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of pictures")]
        let count = profiles.len() as f64;
        let mut average = first.clone();
        average.pictures = profiles.iter().map(|profile| profile.pictures).sum();
        for (index, branch) in average.branches.iter_mut().enumerate() {
            branch.trials.clear();
            let others = || profiles.iter().map(|profile| &profile.branches[index]);
            for (call, weight) in branch.weights.iter_mut().enumerate() {
                let logarithms: f64 = others().map(|other| other.weights[call].ln()).sum();
                *weight = (logarithms / count).exp();
            }
            for (row, distances) in branch.distances.iter_mut().enumerate() {
                for (column, distance) in distances.iter_mut().enumerate() {
                    let squares: f64 = others().map(|other| other.distances[row][column].powi(2)).sum();
                    *distance = (squares / count).sqrt();
                }
            }
        }
        Ok(average)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Config`] if it is not a profile, or not whole.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| Error::io(path, "read", source))?;
        Self::from_json(path, &text)
    }

    /// Reads the text of a file; `path` is for the errors.
    ///
    /// # Errors
    /// As [`CacheProfile::read`].
    pub fn from_json(path: impl AsRef<Path>, text: &str) -> Result<Self> {
        let path = path.as_ref();
        let value: serde_json::Value = serde_json::from_str(text)
            .map_err(|error| Error::config_file(path, format!("is not JSON: {error}")))?;
        if value["format"] != FORMAT {
            let problem = format!("found {}, expected \"{FORMAT}\"", value["format"]);
            return Err(Error::config(path, "format", problem));
        }
        if value["version"] != VERSION {
            let problem = format!("found {}, this version of deepcache reads {VERSION}", value["version"]);
            return Err(Error::config(path, "version", problem));
        }
        let profile: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            Error::config(path, &error.path().to_string(), error.into_inner().to_string())
        })?;
        profile.validate(path)?;
        Ok(profile)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// [`Error::Config`] if it holds what [`CacheProfile::read`] refuses, such as numbers that are not finite.
    pub fn to_json(&self) -> Result<String> {
        let nowhere = Path::new("cache profile");
        self.validate(nowhere)?;
        let mut short = self.clone();
        for branch in &mut short.branches {
            let values = branch.distances.iter_mut().flatten().chain(&mut branch.weights);
            values.for_each(|value| *value = rounded(*value));
        }
        let text = serde_json::to_string(&short)
            .map_err(|error| Error::config_file(nowhere, format!("has no JSON: {error}")))?;
        Ok(text.replace("],[", "],\n[").replace(",\"", ",\n\"") + "\n")
    }

    /// A profile serves only runs of its kind.
    ///
    /// # Errors
    /// [`Error::Option`] that says what differs.
    pub fn check(&self, run: &ProfileSubject) -> Result<()> {
        let own = &self.subject;
        let refuse = |what: &str, found: String, expected: String| {
            let problem = format!("was measured with {what} {found}, this run has {expected}");
            Err(Error::option("cache profile", problem))
        };
        let unet = |subject: &ProfileSubject| {
            let (channels, layers) = (&subject.block_out_channels, subject.layers_per_block);
            format!("of {channels:?} channels and {layers} layers per block on {}", subject.in_channels)
        };
        if unet(own) != unet(run) {
            return refuse("a U-Net", unet(own), unet(run));
        }
        if own.scheduler != run.scheduler {
            return refuse("the sampler", own.scheduler.clone(), run.scheduler.clone());
        }
        if own.guided != run.guided {
            let word = |guided: bool| if guided { "guidance" } else { "no guidance" }.to_owned();
            return refuse("classifier-free guidance:", word(own.guided), word(run.guided));
        }
        if own.timesteps.len() != run.timesteps.len() {
            let count = |subject: &ProfileSubject| subject.timesteps.len().to_string();
            return refuse("a number of U-Net calls of", count(own), count(run));
        }
        let other = own.timesteps.iter().zip(&run.timesteps).position(|(own, run)| (own - run).abs() > 0.5);
        if let Some(call) = other {
            let (found, expected) = (own.timesteps[call], run.timesteps[call]);
            return refuse(&format!("call {call} at timestep"), found.to_string(), expected.to_string());
        }
        Ok(())
    }

    fn validate(&self, path: &Path) -> Result<()> {
        let calls = self.subject.timesteps.len();
        let refuse = |key: String, problem: String| Err(Error::config(path, &key, problem));
        if calls == 0 || calls > MOST {
            return refuse("subject.timesteps".into(), format!("found {calls}, expected 1 to {MOST}"));
        }
        if self.branches.is_empty() || self.branches.len() > MOST {
            return refuse("branches".into(), format!("found {}, expected at least 1", self.branches.len()));
        }
        for (index, branch) in self.branches.iter().enumerate() {
            let key = |name: &str| format!("branches[{index}].{name}");
            if !(branch.shallow_cost > 0.0 && branch.shallow_cost <= 1.0) {
                let problem = format!("found {}, expected a share above 0, up to 1", branch.shallow_cost);
                return refuse(key("shallow_cost"), problem);
            }
            if branch.weights.len() != calls {
                let problem = format!("found {} values, expected {calls}", branch.weights.len());
                return refuse(key("weights"), problem);
            }
            let rows: Vec<usize> = branch.distances.iter().map(Vec::len).collect();
            if !rows.iter().copied().eq((0..calls).rev()) {
                let problem = format!("found rows of {rows:?} values, expected {} down to 0", calls - 1);
                return refuse(key("distances"), problem);
            }
            if let Some(trial) = branch.trials.iter().find(|trial| !(1..=calls).contains(&trial.full_calls)) {
                let problem = format!("found a trial with {} full calls of {calls}", trial.full_calls);
                return refuse(key("trials"), problem);
            }
            let errors = branch.trials.iter().flat_map(|trial| [trial.expected, trial.measured]).collect();
            for (name, values) in [
                ("weights", branch.weights.clone()),
                ("distances", branch.distances.concat()),
                ("trials", errors),
            ] {
                if let Some(wrong) = values.into_iter().find(|value| !(0.0..1e30).contains(value)) {
                    return refuse(key(name), format!("found {wrong}, expected numbers of at least 0"));
                }
            }
        }
        let mut numbers: Vec<usize> = self.branches.iter().map(|branch| branch.branch).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse("branches".into(), format!("branch {} is there twice", pair[0]));
        }
        Ok(())
    }
}

impl BranchProfile {
    /// Calls of the run.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.weights.len()
    }

    /// The square of the distance of two calls' features.
    pub(super) fn squared_distance(&self, left: usize, right: usize) -> f64 {
        let (earlier, later) = (left.min(right), left.max(right));
        if earlier == later { 0.0 } else { self.distances[earlier][later - earlier - 1].powi(2) }
    }
}

/// What was measured in 32-bit floats has no more digits than these.
fn rounded(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(calls: usize) -> ProfileSubject {
        ProfileSubject {
            in_channels: 4,
            block_out_channels: vec![32, 64],
            layers_per_block: 2,
            scheduler: "ddim".to_owned(),
            timesteps: (0..calls).rev().map(|call| 20.0 * call as f64 + 1.0).collect(),
            guided: true,
        }
    }

    fn profile() -> CacheProfile {
        let branch = BranchProfile {
            branch: 0,
            shallow_cost: 0.25,
            weights: vec![0.0, 0.5, 2.0],
            distances: vec![vec![3.0, 5.0], vec![4.0], vec![]],
            trials: vec![Trial {
                placement: Placement::Uniform,
                reuse: Reuse::Linear,
                full_calls: 2,
                expected: 0.75,
                measured: 1.5,
            }],
        };
        CacheProfile::new(subject(3), vec![branch])
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let text = profile().to_json().unwrap();
        assert_eq!(CacheProfile::from_json("profile.json", &text).unwrap(), profile());
    }

    #[test]
    fn damaged_files_are_refused_with_their_place() {
        let refused = |from: &str, to: &str, words: &str| {
            let text = serde_json::to_string(&profile()).unwrap();
            assert!(text.contains(from), "{from} is in {text}");
            let error = CacheProfile::from_json("some/profile.json", &text.replace(from, to)).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("some/profile.json") && text.contains(words), "{to}: {text}");
        };
        refused("{\"format", "\"format", "is not JSON");
        refused("deepcache cache profile", "recipe", "expected \"deepcache cache profile\"");
        refused("\"version\":1", "\"version\":2", "found 2, this version of deepcache reads 1");
        refused("\"guided\":true", "\"guided\":7", "\"subject.guided\": invalid type");
        refused("\"pictures\"", "\"paintings\"", "paintings");
        refused("[0.0,0.5,2.0]", "[0.0,0.5]", "branches[0].weights\": found 2 values, expected 3");
        refused("[4.0]", "[4.0,1.0]", "found rows of [2, 2, 0] values, expected 2 down to 0");
        refused("[3.0", "[-3.0", "found -3, expected numbers of at least 0");
        refused("1.5}", "-1.5}", "found -1.5, expected numbers of at least 0");
        refused("\"linear\"", "\"cubic\"", "unknown variant `cubic`");
        refused("0.25", "1.25", "shallow_cost\": found 1.25");
        refused("[41.0,21.0,1.0]", "[]", "subject.timesteps\": found 0");
    }

    #[test]
    fn a_run_of_another_kind_is_refused() {
        let refused = |change: &dyn Fn(&mut ProfileSubject), words: &str| {
            let mut other = subject(3);
            change(&mut other);
            let text = profile().check(&other).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        };
        assert!(profile().check(&subject(3)).is_ok());
        refused(&|other| other.scheduler = "euler".into(), "the sampler ddim, this run has euler");
        refused(&|other| other.guided = false, "guidance: guidance, this run has no guidance");
        refused(&|other| other.timesteps.truncate(2), "U-Net calls of 3, this run has 2");
        refused(&|other| other.timesteps[1] = 30.0, "call 1 at timestep 21, this run has 30");
        refused(&|other| other.block_out_channels = vec![64], "of [32, 64] channels");
    }

    #[test]
    fn averages_are_of_squares_and_of_logarithms() {
        let mut other = profile();
        other.branches[0].weights = vec![0.0, 8.0, 2.0];
        other.branches[0].distances[0] = vec![4.0, 5.0];
        let average = CacheProfile::average(&[profile(), other]).unwrap();
        assert_eq!(average.pictures, 2);
        let near =
            |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, {expected}");
        near(average.branches[0].weights[1], 2.0);
        near(average.branches[0].weights[0], 0.0);
        near(average.branches[0].distances[0][0], 12.5_f64.sqrt());
        assert!(CacheProfile::average(&[]).is_err());
        let mut elsewhere = profile();
        elsewhere.branches[0].branch = 1;
        assert!(CacheProfile::average(&[profile(), elsewhere]).is_err());
    }
}
