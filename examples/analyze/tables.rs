//! The tables.

use std::path::Path;

use deepcache::Result;
use deepcache::deepcache::{Placement, Plan};
use deepcache::files::write_whole;

use crate::findings::{BranchFindings, Findings, median};
use crate::plans::Recommendation;
use crate::table::{Cell, Table};

/// The paper calls features alike whose cosine is above this.
const ALIKE: f64 = 0.95;

/// Writes those for spreadsheets into a folder.
pub(crate) fn write(folder: &Path, findings: &Findings) -> Result<()> {
    let csv = |name: &str, table: Table| write_whole(folder.join(name), table.csv().as_bytes());
    let titles = ["stage", "share_of_macs", "share_of_time"];
    csv("stages.csv", stages(findings, &titles)?)?;
    let titles = [
        "branch",
        "feature_mebibytes",
        "alike_calls",
        "change_per_call",
        "speedup_at_most_macs",
        "speedup_at_most_time",
    ];
    csv("branches.csv", branches(findings, &titles)?)?;
    let titles = [
        "branch",
        "placement",
        "reuse",
        "full_calls",
        "speedup_macs",
        "expected_error_percent",
        "measured_error_percent",
    ];
    csv("trials.csv", trials(findings, &titles)?)?;
    for branch in &findings.branches {
        csv(&similarity_name(branch.branch), similarity(findings, branch)?)?;
    }
    Ok(())
}

/// The file of a branch's pairs of calls.
pub(crate) fn similarity_name(branch: usize) -> String {
    format!("similarity-branch-{branch}.csv")
}

/// Where the work lies.
pub(crate) fn stages(findings: &Findings, titles: &[&str; 3]) -> Result<Table> {
    let mut table = Table::new(titles);
    for stage in &findings.stages {
        let time = stage.time.map_or(Cell::Missing, |time| number(100.0 * time, 1));
        table.push(vec![stage.name.as_str().into(), number(100.0 * stage.macs, 1), time])?;
    }
    Ok(table)
}

/// What a branch keeps, how it changes, and what it can save.
pub(crate) fn branches(findings: &Findings, titles: &[&str; 6]) -> Result<Table> {
    let mut table = Table::new(titles);
    for branch in &findings.branches {
        let drift: Vec<f64> = branch.drift(1).into_iter().map(|(_, drift)| drift).collect();
        let change = median(drift).map_or(Cell::Missing, |drift| number(100.0 * drift, 1));
        let time = branch.shallow_time.map_or(Cell::Missing, |share| number(1.0 / share, 2));
        table.push(vec![
            branch.branch.into(),
            number(branch.cache_bytes as f64 / f64::from(1 << 20), 3),
            number(100.0 * alike(branch), 0),
            change,
            number(1.0 / branch.shallow_macs, 2),
            time,
        ])?;
    }
    Ok(table)
}

/// The share of pairs of calls whose features are alike.
fn alike(branch: &BranchFindings) -> f64 {
    let calls = branch.cosine.len();
    let pairs = branch.cosine.iter().enumerate().flat_map(|(call, row)| &row[call + 1..]);
    let alike = pairs.filter(|cosine| **cosine > ALIKE).count();
    2.0 * alike as f64 / (calls * (calls - 1)) as f64
}

/// What is recommended.
pub(crate) fn plans(findings: &Findings, recommended: &[Recommendation]) -> Result<Table> {
    let titles = [
        "asked for",
        "branch",
        "features are",
        "full calls",
        "less work",
        "expected error",
        "full calls are",
    ];
    let mut table = Table::new(&titles);
    for Recommendation { target, plan } in recommended {
        let mut row = vec![Cell::Text(format!("{target:.1} times"))];
        match plan {
            None => row.extend([const { Cell::Missing }; 5].into_iter().chain(["out of reach".into()])),
            Some(Plan { branch, reuse, full, error, speedup, .. }) => row.extend([
                (*branch).into(),
                reuse.to_string().into(),
                full.len().into(),
                number(*speedup, 2),
                Cell::Text(percent(100.0 * error / findings.spread)),
                Cell::Text(full.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")),
            ]),
        }
        table.push(row)?;
    }
    Ok(table)
}

/// What came of every plan.
pub(crate) fn trials(findings: &Findings, titles: &[&str; 7]) -> Result<Table> {
    let mut table = Table::new(titles);
    for branch in &findings.profile.branches {
        for trial in &branch.trials {
            table.push(vec![
                branch.branch.into(),
                if trial.placement == Placement::Optimal { "planned" } else { "even" }.into(),
                trial.reuse.to_string().into(),
                trial.full_calls.into(),
                number(branch.speedup(trial.full_calls), 2),
                number(100.0 * trial.expected / findings.spread, 3),
                number(100.0 * trial.measured / findings.spread, 3),
            ])?;
        }
    }
    Ok(table)
}

/// All pairs of calls.
fn similarity(findings: &Findings, branch: &BranchFindings) -> Result<Table> {
    let mut table = Table::new(&["call_i", "call_j", "timestep_i", "timestep_j", "cosine", "relative_l2"]);
    let timesteps = &findings.profile.subject.timesteps;
    for i in 0..timesteps.len() {
        for j in i + 1..timesteps.len() {
            table.push(vec![
                i.into(),
                j.into(),
                number(timesteps[i], 3),
                number(timesteps[j], 3),
                number(branch.cosine[i][j], 6),
                number(branch.relative_l2[i][j], 6),
            ])?;
        }
    }
    Ok(table)
}

/// A number that has no more digits than these, in spreadsheets too.
fn number(value: f64, decimals: usize) -> Cell {
    Cell::Number(format!("{value:.decimals$}").parse().unwrap_or(value), decimals)
}

/// A share with two digits that count.
pub(crate) fn percent(value: f64) -> String {
    let decimals = if value >= 9.95 {
        0
    } else if value >= 0.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} %")
}
