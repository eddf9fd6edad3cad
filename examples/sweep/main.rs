//! Ways to be faster, compared: `cargo run --release --example sweep -- --quick`.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "counts and means of measurements"
)]

mod charts;
#[path = "../support/checker/mod.rs"]
mod checker;
#[path = "../support/command/mod.rs"]
mod command;
#[path = "../support/measures.rs"]
#[expect(dead_code, reason = "a sweep has no need of the standard deviation")]
mod measures;
mod methods;
mod options;
#[path = "../support/plot/mod.rs"]
#[expect(dead_code, unused_imports, reason = "a sweep draws points and pictures, no curves")]
mod plot;
mod runs;
mod summary;
mod sweep;
#[path = "../support/table.rs"]
mod table;

use std::process::ExitCode;

use checker::Checker;
use command::{Folder, check_names, interrupt, list_devices, program, progress_bar, save_pipelines};
use deepcache::Result;
use deepcache::deepcache::CacheProfile;
use deepcache::files::write_whole;
use measures::mean;
use options::Options;
use runs::{Outcome, Runner, median_seconds};
use sweep::{Findings, Plan};

fn main() -> ExitCode {
    program(run)
}

fn run(options: &Options) -> Result<()> {
    if options.model.list_devices {
        return list_devices();
    }
    options.model.load_options()?;
    let (samplers, methods, intervals) = (options.samplers()?, options.methods()?, options.intervals()?);
    let equal_work = options.equal_work()?;
    let subjects = options.subjects(options.model.kind()?)?;
    let profiles = options.profile.iter().map(CacheProfile::read).collect::<Result<Vec<_>>>()?;
    let folder = Folder::new(&options.output)?;
    let mut pipeline = options.model.load()?;
    check_names(&options.conditions, pipeline.classes())?;
    let branches = options.branches(&pipeline)?;
    let stopped = interrupt();
    if !options.quiet {
        options.model.introduce(&pipeline);
    }

    let plan = Plan { samplers, methods, branches, intervals, profiles, equal_work };
    let bar = progress_bar(options.quiet);
    let all = plan.runs(subjects.len());
    let mut made = 0;
    let mut count = || {
        made += 1;
        bar.count("pictures", made - 1, all.max(made));
    };
    let mut runner = Runner {
        pipeline: &mut pipeline,
        subjects: &subjects,
        checker: options.model.is_default().then(Checker::new),
        before: &mut count,
        stopped: &stopped,
    };
    let mut findings = Findings::default();
    let tell = |way: &str, outcome: &Outcome| {
        if !options.quiet {
            let psnr = mean(&outcome.records.iter().map(|record| record.psnr).collect::<Vec<_>>());
            bar.say(&format!("{way}: {psnr:.1} dB, {:.2} s", median_seconds(&outcome.records)));
        }
    };
    let outcome = plan.run(&mut runner, &mut findings, &tell);
    bar.finish();
    save_pipelines(pipeline.gpu());
    for note in &findings.notes {
        eprintln!("left out: {note}");
    }
    // Hours of work are not thrown away for what failed or was stopped after them.
    if outcome.is_ok() || !findings.outcomes.is_empty() {
        let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
        write(options, &folder, &plan, &findings, &names)?;
    }
    outcome
}

/// The tables and charts.
fn write(
    options: &Options,
    folder: &Folder<'_>,
    plan: &Plan,
    findings: &Findings,
    names: &[String],
) -> Result<()> {
    let lines = summary::lines(findings)?;
    let markdown = summary::markdown(&lines)?;
    let numbers = summary::numbers(&lines)?;
    let json = format!("{:#}\n", numbers.json());
    let texts = [
        ("summary.md", markdown.clone()),
        ("summary.csv", numbers.csv()),
        ("summary.json", json),
        ("results.csv", summary::pictures(findings, names)?.csv()),
    ];
    let compared =
        |sampler: &&String| findings.outcomes.iter().any(|outcome| outcome.setting.sampler == **sampler);
    let samplers: Vec<&String> =
        findings.references.iter().map(|references| &references.sampler).filter(compared).collect();
    let [pareto, pictures] =
        ["pareto", "pictures"].map(|kind| move |sampler: &String| format!("{kind}-{sampler}.png"));
    let charts = samplers.iter().flat_map(|sampler| [pareto(sampler), pictures(sampler)]);
    let files: Vec<String> = texts.iter().map(|(name, _)| (*name).to_owned()).chain(charts).collect();
    folder.fill(&files, |folder| {
        for (name, text) in &texts {
            write_whole(folder.join(name), text.as_bytes())?;
        }
        for &sampler in &samplers {
            charts::pareto(&folder.join(pareto(sampler)), sampler, &lines, names.len())?;
            let (branch, interval) = (plan.branches[0], plan.intervals[plan.intervals.len() / 2]);
            charts::sheet(&folder.join(pictures(sampler)), sampler, branch, interval, findings, names)?;
        }
        Ok(())
    })?;
    if !options.quiet {
        command::print(&markdown)?;
        eprintln!(
            "wrote summary.md, summary.csv, summary.json, results.csv and charts to {}",
            options.output.display()
        );
    }
    Ok(())
}
