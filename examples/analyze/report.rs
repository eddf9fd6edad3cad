//! The report, as a file and on the terminal.

use std::path::Path;

use deepcache::Result;

use crate::charts;
use crate::findings::{Findings, Task, shown};
use crate::meaning::sentences;
use crate::plans::{Recommendation, command_line};
use crate::tables;

const STAGES: [&str; 3] = ["stage", "share of MACs, %", "share of time, %"];
const BRANCHES: [&str; 6] = [
    "branch",
    "feature, MiB",
    "alike calls, %",
    "change per call, %",
    "speed-up at most by MACs",
    "and by time",
];
const TRIALS: [&str; 7] = [
    "branch",
    "full calls are",
    "features are",
    "full calls",
    "less work",
    "expected error, %",
    "measured error, %",
];
const CHARTS: [(&str, &str); 5] = [
    ("drift.png", "How far the feature is from that of 1, 2, 5 and 10 calls before"),
    ("drift-branches.png", "How far the feature is from that of the call before, for every branch"),
    ("weights.png", "What a change of the feature leaves in the final latents"),
    ("trials.png", "Error against speed-up"),
    ("expectation.png", "Expected against measured errors"),
];

/// Below the table of branches.
const NOTES: &str = "The feature is what a branch keeps in memory between calls, for all pictures of a batch and both \
                     guidance halves. Calls are alike where the cosine of their features is above 0.95, as the paper \
                     counts. The speed-up at most is that of a run whose calls are all shallow but the first.\n";

/// The files of a run.
pub(crate) fn names(branches: &[usize]) -> Vec<String> {
    let tables = ["stages.csv", "branches.csv", "trials.csv"];
    let fixed = ["profile.json", "report.md"].into_iter().chain(tables).map(str::to_owned);
    let charts = CHARTS.iter().map(|(name, _)| (*name).to_owned());
    let similarity = branches
        .iter()
        .flat_map(|branch| [charts::similarity_name(*branch), tables::similarity_name(*branch)]);
    fixed.chain(charts).chain(similarity).collect()
}

/// What is reported.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// The name of the model.
    pub(crate) model: String,
    /// The device and how values are stored.
    pub(crate) device: String,
    pub(crate) task: &'a Task,
    pub(crate) findings: &'a Findings,
    pub(crate) recommended: &'a [Recommendation],
    /// The folder, as it was given.
    pub(crate) folder: &'a Path,
}

impl Report<'_> {
    /// The file.
    pub(crate) fn markdown(&self) -> Result<String> {
        let Self { findings, recommended, .. } = self;
        let mut text = format!("# When caching works for {}\n\n{}\n", self.model, self.origin());
        text += "\n## What it says\n\n";
        for sentence in sentences(findings, recommended) {
            text += &format!("- {sentence}\n");
        }
        text += "\n## Recommended plans\n\n";
        text += &tables::plans(findings, recommended)?.markdown();
        text += "\nErrors are distances of the final latents from those without a cache, as shares of the latents' spread \
                 (root mean squares).\n";
        let commands = self.commands();
        if !commands.is_empty() {
            text += &format!("\n```sh\n{}```\n", commands.join(""));
        }
        text += "\n## Branches\n\n";
        text += &tables::branches(findings, &BRANCHES)?.markdown();
        text += "\n";
        text += NOTES;
        text += "\n## Stages of a full call\n\n";
        text += &tables::stages(findings, &STAGES)?.markdown();
        text += "\n## Charts\n\n";
        for branch in &findings.branches {
            let name = charts::similarity_name(branch.branch);
            text += &format!(
                "![Cosines between the features of all pairs of calls, branch {}]({name})\n\n",
                branch.branch
            );
        }
        for (name, what) in CHARTS {
            text += &format!("![{what}]({name})\n\n");
        }
        text += "## Trials\n\n";
        text += &tables::trials(findings, &TRIALS)?.markdown();
        Ok(text)
    }

    /// What a person reads on the terminal.
    pub(crate) fn terminal(&self) -> Result<String> {
        let Self { findings, recommended, .. } = self;
        let mut text = tables::stages(findings, &STAGES)?.markdown();
        text += "\n";
        text += &tables::branches(findings, &BRANCHES)?.markdown();
        text += "\n";
        text += &tables::plans(findings, recommended)?.markdown();
        text += "\n";
        for sentence in sentences(findings, recommended) {
            text += &format!("{sentence}\n");
        }
        text += "\n";
        text += &self.commands().join("");
        Ok(text)
    }

    fn commands(&self) -> Vec<String> {
        let profile = self.folder.join("profile.json");
        let condition = &self.task.requests[0].condition;
        let reached = self.recommended.iter().filter(|recommendation| recommendation.plan.is_some());
        reached.map(|one| command_line(condition, &profile, one.target) + "\n").collect()
    }

    /// What was measured.
    fn origin(&self) -> String {
        let subject = &self.findings.profile.subject;
        let mut text = format!(
            "{} U-Net calls of the sampler {} with {}guidance, on {}.\n",
            subject.timesteps.len(),
            subject.scheduler,
            if subject.guided { "" } else { "no " },
            self.device,
        );
        let pictures = self.task.requests.len();
        let what: Vec<String> = self.task.requests.iter().map(|request| shown(&request.condition)).collect();
        text += &format!("{pictures} uncached pictures: {}.\n", what.join("; "));
        text
    }
}
