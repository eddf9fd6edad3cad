//! The charts.

use std::path::Path;

use deepcache::Result;
use deepcache::deepcache::{Placement, Reuse, Trial};

use crate::findings::{BranchFindings, Findings};
use crate::plot::{HeatMap, LineChart, Marks, Series, heat_map, lines};

/// How many calls lie between the features that are compared.
const GAPS: [usize; 4] = [1, 2, 5, 10];
/// Series after so many have the same colours again, with hollow marks and dashes.
const COLORS: usize = 7;
/// Errors below this are none, and have no place on a logarithmic axis.
const LEAST: f64 = 1e-12;
/// What lies to the right in most charts.
const CALL: &str = "number of the U-Net call";

/// Draws all of them into a folder.
pub(crate) fn draw(folder: &Path, findings: &Findings) -> Result<()> {
    for branch in &findings.branches {
        draw_similarity(&folder.join(similarity_name(branch.branch)), findings, branch)?;
    }
    draw_drift(&folder.join("drift.png"), &findings.branches[0])?;
    draw_drift_of_branches(&folder.join("drift-branches.png"), findings)?;
    draw_weights(&folder.join("weights.png"), findings)?;
    draw_trials(&folder.join("trials.png"), findings)?;
    draw_expectation(&folder.join("expectation.png"), findings)
}

/// The file of a branch's heat map.
pub(crate) fn similarity_name(branch: usize) -> String {
    format!("similarity-branch-{branch}.png")
}

/// Figure 2b of the paper.
fn draw_similarity(path: &Path, findings: &Findings, branch: &BranchFindings) -> Result<()> {
    let pictures = findings.profile.pictures;
    let of = if pictures == 1 { String::new() } else { format!(", mean of {pictures} pictures") };
    heat_map(
        path,
        &HeatMap {
            title: &format!("Branch {}: how alike the deep features of two calls are", branch.branch),
            x_label: CALL,
            y_label: CALL,
            values: &branch.cosine,
            range: (lowest(&branch.cosine), 1.0),
            legend: &format!("cosine{of}"),
        },
    )
}

/// A round value that few cosines are below.
fn lowest(cosine: &[Vec<f64>]) -> f64 {
    let least = cosine.iter().flatten().copied().fold(1.0, f64::min);
    let room = 1.0 - least;
    let step = if room > 0.2 {
        0.1
    } else if room > 0.02 {
        0.01
    } else {
        0.001
    };
    ((least / step).floor() * step).min(1.0 - step)
}

fn draw_drift(path: &Path, branch: &BranchFindings) -> Result<()> {
    let calls = branch.relative_l2.len();
    let names: Vec<(usize, String)> = GAPS
        .into_iter()
        .filter(|gap| *gap < calls - 1)
        .map(|gap| (gap, if gap == 1 { "1 call before".to_owned() } else { format!("{gap} calls before") }))
        .collect();
    let series: Vec<Series<'_>> =
        names.iter().map(|(gap, name)| series(name, numbered(branch.drift(*gap)), Marks::Some)).collect();
    let title = format!("Branch {}: how far the feature is from that of some calls before", branch.branch);
    lines(path, &chart(&title, CALL, "relative L2 distance", &series))
}

fn draw_drift_of_branches(path: &Path, findings: &Findings) -> Result<()> {
    let names = names_of_branches(findings);
    let curves = findings.branches.iter().zip(&names);
    let series: Vec<Series<'_>> =
        curves.map(|(branch, name)| series(name, numbered(branch.drift(1)), Marks::Some)).collect();
    let title = "How far the feature is from that of the call before";
    lines(path, &chart(title, CALL, "relative L2 distance", &series))
}

fn draw_weights(path: &Path, findings: &Findings) -> Result<()> {
    let names = names_of_branches(findings);
    let curves = findings.branches.iter().zip(&names).map(|(branch, name)| {
        let weights = branch.weights.iter().copied().enumerate();
        series(name, numbered(weights.filter(|(_, weight)| *weight > LEAST).collect()), Marks::Some)
    });
    let series: Vec<Series<'_>> = curves.collect();
    let title = "What a change of the feature leaves in the final latents";
    let y_label = "change of the latents per change of the feature";
    lines(path, &LineChart { log_y: true, ..chart(title, CALL, y_label, &series) })
}

/// Error against speed-up: the best way that was tried, and as DeepCache does it.
fn draw_trials(path: &Path, findings: &Findings) -> Result<()> {
    let count = findings.branches.len();
    let names: Vec<[String; 2]> = findings
        .branches
        .iter()
        .map(|found| {
            let branch = found.branch;
            [format!("branch {branch}, best plan"), format!("branch {branch}, every Nth call, held")]
        })
        .collect();
    let mut all = vec![series("", Vec::new(), Marks::All); count.next_multiple_of(COLORS) + count];
    for (number, names) in names.iter().enumerate() {
        let curves = curves(findings, number);
        for ((name, points), place) in
            names.iter().zip(curves).zip([number, number + count.next_multiple_of(COLORS)])
        {
            all[place] = series(name, points, Marks::All);
        }
    }
    let title = "What caching costs: error against speed-up";
    let x_label = "times less work in the U-Net (multiply-accumulates)";
    let y_label = "error of the latents, % of their spread";
    lines(path, &LineChart { log_x: true, log_y: true, ..chart(title, x_label, y_label, &all) })
}

/// The best of the trials and those of the original method, with speed-up and error in percent.
fn curves(findings: &Findings, number: usize) -> [Vec<(f64, f64)>; 2] {
    let branch = &findings.profile.branches[number];
    let point = |trial: &Trial| (branch.speedup(trial.full_calls), 100.0 * trial.measured / findings.spread);
    let usable = || branch.trials.iter().filter(|trial| trial.measured > LEAST);
    let original =
        usable().filter(|trial| (trial.placement, trial.reuse) == (Placement::Uniform, Reuse::Hold));
    let mut best: Vec<&Trial> = Vec::new();
    for trial in usable() {
        match best.iter_mut().find(|other| other.full_calls == trial.full_calls) {
            Some(other) if other.measured <= trial.measured => {}
            Some(other) => *other = trial,
            None => best.push(trial),
        }
    }
    let sorted = |mut points: Vec<(f64, f64)>| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    [sorted(best.into_iter().map(point).collect()), sorted(original.map(point).collect())]
}

/// Expected against measured errors, and the line on which they are equal.
fn draw_expectation(path: &Path, findings: &Findings) -> Result<()> {
    let names = names_of_branches(findings);
    let percent = |value: f64| 100.0 * value / findings.spread;
    let usable = |trial: &&Trial| trial.measured > LEAST && trial.expected > LEAST;
    let mut all = Vec::new();
    for (branch, name) in findings.profile.branches.iter().zip(&names) {
        let points = branch.trials.iter().filter(usable);
        // Each followed by a gap: they are no curve.
        let points = points
            .flat_map(|trial| [(percent(trial.expected), percent(trial.measured)), (f64::NAN, f64::NAN)]);
        all.push(series(name, points.collect(), Marks::All));
    }
    let ends = all.iter().flat_map(|series| &series.points).flat_map(|(x, y)| [*x, *y]);
    let (least, greatest) = ends
        .filter(|end| end.is_finite())
        .fold((f64::MAX, 0.0_f64), |(least, greatest), end| (least.min(end), greatest.max(end)));
    if least < greatest {
        all.push(series("as expected", vec![(least, least), (greatest, greatest)], Marks::None));
    }
    let title = "How right the expectation is, for every plan that was tried";
    let [x_label, y_label] =
        ["expected", "measured"].map(|kind| format!("{kind} error of the latents, % of their spread"));
    lines(path, &LineChart { log_x: true, log_y: true, ..chart(title, &x_label, &y_label, &all) })
}

fn names_of_branches(findings: &Findings) -> Vec<String> {
    findings.branches.iter().map(|branch| format!("branch {}", branch.branch)).collect()
}

fn numbered(values: Vec<(usize, f64)>) -> Vec<(f64, f64)> {
    values.into_iter().map(|(call, value)| (call as f64, value)).collect()
}

fn series(name: &str, points: Vec<(f64, f64)>, marks: Marks) -> Series<'_> {
    Series { name, points, band: None, marks }
}

fn chart<'a>(title: &'a str, x_label: &'a str, y_label: &'a str, series: &'a [Series<'a>]) -> LineChart<'a> {
    LineChart { title, x_label, y_label, series, log_x: false, log_y: false, y_range: None }
}
