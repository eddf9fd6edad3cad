//! Charts of a sweep.

use std::path::Path;

use deepcache::Result;

use crate::measures::{Better, Interval, pareto_front};
use crate::methods::Method;
use crate::plot::{
    PictureCell, PictureGrid, PictureRow, ScatterChart, ScatterPoint, Spread, grid_of_pictures, scatter,
};
use crate::runs::Outcome;
use crate::summary::Line;
use crate::sweep::Findings;

/// Pictures of a sheet.
const ROWS: usize = 4;
/// Pixels along the side of a small picture's pixel.
const SMALL_PICTURE: u32 = 256;

fn spread(interval: Interval) -> Spread {
    Spread { value: interval.estimate, lower: interval.lower, upper: interval.upper }
}

/// Time against closeness to the uncached picture, for one sampler.
pub(crate) fn pareto(path: &Path, sampler: &str, lines: &[Line<'_>], pictures: usize) -> Result<()> {
    let of_sampler: Vec<(&Line<'_>, &Outcome, Interval)> = lines
        .iter()
        .filter(|line| line.sampler == sampler)
        .filter_map(|line| Some((line, line.outcome?, line.psnr?)))
        .collect();
    let groups: Vec<String> = of_sampler.iter().map(|(_, outcome, _)| group(outcome)).collect();
    let labels: Vec<String> = of_sampler.iter().map(|(_, outcome, _)| label(outcome)).collect();
    let values: Vec<(f64, f64)> =
        of_sampler.iter().map(|(line, _, psnr)| (line.seconds.estimate, psnr.estimate)).collect();
    let front = pareto_front(&values, (Better::Lower, Better::Higher));
    let points: Vec<ScatterPoint<'_>> = of_sampler
        .iter()
        .enumerate()
        .map(|(number, (line, _, psnr))| ScatterPoint {
            label: if front.contains(&number) { &labels[number] } else { "" },
            group: &groups[number],
            x: spread(line.seconds),
            y: spread(*psnr),
        })
        .collect();
    let title = format!("{sampler}: time against closeness to the uncached picture, {pictures} pictures");
    let uncached = lines.iter().find(|line| line.sampler == sampler && line.outcome.is_none());
    let x_label = match uncached {
        Some(line) => format!("time of the U-Net per picture [s]; uncached {:.2} s", line.seconds.estimate),
        None => "time of the U-Net per picture [s]".to_owned(),
    };
    scatter(
        path,
        &ScatterChart {
            title: &title,
            x_label: &x_label,
            y_label: "PSNR to the uncached picture [dB]",
            points: &points,
            front: &front,
            log_x: true,
            log_y: false,
        },
    )
}

fn group(outcome: &Outcome) -> String {
    match outcome.setting.method {
        Method::Steps => "fewer steps".to_owned(),
        method => format!("{method}, branch {}", outcome.setting.branch),
    }
}

fn label(outcome: &Outcome) -> String {
    match outcome.setting.method {
        Method::Steps => steps(outcome),
        _ => format!("1:{}", outcome.setting.interval),
    }
}

/// `16 steps`.
fn steps(outcome: &Outcome) -> String {
    format!("{} steps", outcome.setting.details.trim_start_matches("--steps "))
}

/// The uncached picture beside those of every way, at one budget of one branch.
pub(crate) fn sheet(
    path: &Path,
    sampler: &str,
    branch: usize,
    interval: usize,
    findings: &Findings,
    names: &[String],
) -> Result<()> {
    let Some(references) = findings.references.iter().find(|found| found.sampler == sampler) else {
        return Ok(());
    };
    let shown: Vec<&Outcome> = findings
        .outcomes
        .iter()
        .filter(|found| {
            let setting = &found.setting;
            setting.sampler == sampler && (setting.branch, setting.interval) == (branch, interval)
        })
        .collect();
    let title = format!("{sampler}, branch {branch}, one full step in {interval}");
    let ways: Vec<String> = shown
        .iter()
        .map(|outcome| match outcome.setting.method {
            Method::Steps => steps(outcome),
            method => method.to_string(),
        })
        .collect();
    let columns: Vec<&str> = std::iter::once("uncached").chain(ways.iter().map(String::as_str)).collect();
    let count = references.records.len().min(ROWS);
    let notes: Vec<Vec<String>> = (0..count)
        .map(|row| shown.iter().map(|outcome| format!("{:.1} dB", outcome.records[row].psnr)).collect())
        .collect();
    let rows: Vec<PictureRow<'_>> = (0..count)
        .map(|row| {
            let cached = shown.iter().zip(&notes[row]);
            let cells =
                cached.map(|(outcome, note)| PictureCell { picture: &outcome.records[row].picture, note });
            let full = PictureCell { picture: &references.records[row].picture, note: "" };
            PictureRow { title: &names[row], cells: std::iter::once(full).chain(cells).collect() }
        })
        .collect();
    let side = references.records.first().map_or(1, |record| record.picture.width.max(1));
    let magnification = (SMALL_PICTURE / side).clamp(1, 8);
    grid_of_pictures(
        path,
        &PictureGrid { title: &title, column_titles: &columns, rows: &rows, magnification },
    )
}
