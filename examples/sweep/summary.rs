//! One line for every way and budget.

use deepcache::Result;

use crate::measures::{Interval, bootstrap, mean, paired_bootstrap, quartiles, share};
use crate::methods::Method;
use crate::runs::{Outcome, Record, References, mean_macs};
use crate::sweep::Findings;
use crate::table::{Cell, Table};

/// Seed of the confidence intervals.
const SEED: u64 = 0;

/// What came of a setting over all pictures.
#[derive(Clone, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) sampler: &'a str,
    /// `None` for the uncached runs.
    pub(crate) outcome: Option<&'a Outcome>,
    pub(crate) full_calls: f64,
    pub(crate) calls: f64,
    /// The median, with the middle half of all pictures.
    pub(crate) seconds: Interval,
    /// How many times faster than the uncached run.
    pub(crate) speedup: f64,
    /// How many times fewer multiply-accumulates in the U-Net.
    pub(crate) less_work: f64,
    /// dB.
    pub(crate) psnr: Option<Interval>,
    /// Difference to the uniform schedule of the same budget, in dB; paired by picture.
    pub(crate) gain: Option<Interval>,
    pub(crate) ssim: Option<Interval>,
    pub(crate) latents: Option<f64>,
    /// Share of pictures that show what their prompts say.
    pub(crate) right: Option<Interval>,
}

/// The lines, sampler by sampler, each with its uncached run first.
pub(crate) fn lines(findings: &Findings) -> Result<Vec<Line<'_>>> {
    let mut lines = Vec::new();
    for references in &findings.references {
        lines.push(reference(references));
        let of_sampler = findings.outcomes.iter().filter(|found| found.setting.sampler == references.sampler);
        for outcome in of_sampler {
            lines.push(line(outcome, references, findings)?);
        }
    }
    Ok(lines)
}

fn values(records: &[Record], value: impl Fn(&Record) -> f64) -> Vec<f64> {
    records.iter().map(value).collect()
}

fn right(records: &[Record]) -> Option<Interval> {
    let checked: Vec<bool> = records.iter().filter_map(|record| record.right).collect();
    let count = checked.iter().filter(|right| **right).count();
    (!checked.is_empty()).then(|| share(count, checked.len()))
}

fn reference(references: &References) -> Line<'_> {
    let records = &references.records;
    Line {
        sampler: &references.sampler,
        outcome: None,
        full_calls: mean(&values(records, |record| record.full_calls as f64)),
        calls: mean(&values(records, |record| record.calls as f64)),
        seconds: quartiles(&values(records, |record| record.seconds)),
        speedup: 1.0,
        less_work: 1.0,
        psnr: None,
        gain: None,
        ssim: None,
        latents: None,
        right: right(records),
    }
}

fn line<'a>(outcome: &'a Outcome, references: &'a References, findings: &Findings) -> Result<Line<'a>> {
    let records = &outcome.records;
    let psnr = values(records, |record| record.psnr);
    let own = &outcome.setting;
    let uniform = findings.outcomes.iter().find(|found| {
        let other = &found.setting;
        other.method == Method::Uniform
            && (&other.sampler, other.branch, other.interval) == (&own.sampler, own.branch, own.interval)
    });
    let gain = match uniform.filter(|_| own.method != Method::Uniform) {
        Some(uniform) => {
            Some(paired_bootstrap(&psnr, &values(&uniform.records, |record| record.psnr), SEED)?)
        }
        None => None,
    };
    let seconds = quartiles(&values(records, |record| record.seconds));
    Ok(Line {
        sampler: &references.sampler,
        outcome: Some(outcome),
        full_calls: mean(&values(records, |record| record.full_calls as f64)),
        calls: mean(&values(records, |record| record.calls as f64)),
        speedup: references.seconds() / seconds.estimate,
        seconds,
        less_work: mean_macs(&references.records) / mean_macs(records),
        psnr: Some(bootstrap(&psnr, SEED)),
        gain,
        ssim: Some(bootstrap(&values(records, |record| record.ssim), SEED)),
        latents: Some(mean(&values(records, |record| record.latents))),
        right: right(records),
    })
}

/// For people.
pub(crate) fn markdown(lines: &[Line<'_>]) -> Result<String> {
    let checked = lines.iter().any(|line| line.right.is_some());
    let mut columns = vec![
        "sampler",
        "way",
        "branch",
        "budget",
        "full calls",
        "time [s]",
        "times faster",
        "less work",
        "PSNR [dB]",
        "vs uniform [dB]",
        "SSIM",
    ];
    if checked {
        columns.push("right [%]");
    }
    let mut table = Table::new(&columns);
    for line in lines {
        let mut row: Vec<Cell> = match line.outcome {
            Some(Outcome { setting, .. }) => vec![
                line.sampler.into(),
                setting.method.to_string().into(),
                setting.branch.into(),
                format!("1:{}", setting.interval).into(),
            ],
            None => vec![line.sampler.into(), "uncached".into(), Cell::Missing, Cell::Missing],
        };
        row.extend([
            format!("{:.1} of {:.0}", line.full_calls, line.calls).into(),
            Cell::Number(line.seconds.estimate, 2),
            Cell::Number(line.speedup, 2),
            Cell::Number(line.less_work, 2),
            with_ends(line.psnr, 1.0, 1),
            with_ends(line.gain, 1.0, 1),
            line.ssim.map_or(Cell::Missing, |ssim| Cell::Number(ssim.estimate, 4)),
        ]);
        if checked {
            row.push(with_ends(line.right, 100.0, 0));
        }
        table.push(row)?;
    }
    Ok(table.markdown())
}

/// `41.2 (40.0 to 42.3)`.
fn with_ends(interval: Option<Interval>, unit: f64, decimals: usize) -> Cell {
    match interval {
        None => Cell::Missing,
        Some(Interval { estimate, lower, upper }) => {
            let [estimate, lower, upper] = [estimate, lower, upper].map(|value| value * unit);
            format!("{estimate:.decimals$} ({lower:.decimals$} to {upper:.decimals$})").into()
        }
    }
}

/// For programs: the lines with all digits.
pub(crate) fn numbers(lines: &[Line<'_>]) -> Result<Table> {
    let mut table = Table::new(&[
        "sampler",
        "way",
        "branch",
        "interval",
        "options",
        "full_calls",
        "calls",
        "seconds",
        "seconds_quarter",
        "seconds_three_quarters",
        "speedup",
        "less_work",
        "psnr",
        "psnr_lower",
        "psnr_upper",
        "psnr_vs_uniform",
        "psnr_vs_uniform_lower",
        "psnr_vs_uniform_upper",
        "ssim",
        "ssim_lower",
        "ssim_upper",
        "latents_rms",
        "right",
        "right_lower",
        "right_upper",
    ]);
    let three = |interval: Option<Interval>| match interval {
        Some(found) => [found.estimate, found.lower, found.upper].map(|value| Cell::Number(value, 6)),
        None => [Cell::Missing, Cell::Missing, Cell::Missing],
    };
    for line in lines {
        let mut row = vec![line.sampler.into()];
        match line.outcome {
            Some(Outcome { setting, .. }) => row.extend([
                setting.method.to_string().into(),
                setting.branch.into(),
                setting.interval.into(),
                setting.details.clone().into(),
            ]),
            None => row.extend(["uncached".into(), Cell::Missing, Cell::Missing, Cell::Missing]),
        }
        row.extend([Cell::Number(line.full_calls, 3), Cell::Number(line.calls, 3)]);
        row.extend(three(Some(line.seconds)));
        row.extend([line.speedup, line.less_work].map(|times| Cell::Number(times, 4)));
        row.extend(three(line.psnr));
        row.extend(three(line.gain));
        row.extend(three(line.ssim));
        row.push(line.latents.map_or(Cell::Missing, |value| Cell::Number(value, 6)));
        row.extend(three(line.right));
        table.push(row)?;
    }
    Ok(table)
}

/// Every picture of every setting.
pub(crate) fn pictures(findings: &Findings, names: &[String]) -> Result<Table> {
    let mut table = Table::new(&[
        "sampler",
        "way",
        "branch",
        "interval",
        "options",
        "picture",
        "full_calls",
        "calls",
        "seconds",
        "psnr",
        "ssim",
        "latents_rms",
        "right",
    ]);
    for outcome in &findings.outcomes {
        let setting = &outcome.setting;
        for record in &outcome.records {
            table.push(vec![
                setting.sampler.clone().into(),
                setting.method.to_string().into(),
                setting.branch.into(),
                setting.interval.into(),
                setting.details.clone().into(),
                names[record.subject].clone().into(),
                record.full_calls.into(),
                record.calls.into(),
                Cell::Number(record.seconds, 4),
                Cell::Number(record.psnr, 4),
                Cell::Number(record.ssim, 6),
                Cell::Number(record.latents, 6),
                record.right.map_or(Cell::Missing, |right| usize::from(right).into()),
            ])?;
        }
    }
    Ok(table)
}
