//! When caching works for a model: `cargo run --release --example analyze -- --quick`.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]
#![expect(clippy::cast_precision_loss, reason = "counts of calls and bytes, for people")]

mod charts;
#[path = "../support/command/mod.rs"]
mod command;
mod findings;
mod meaning;
mod options;
mod plans;
#[path = "../support/plot/mod.rs"]
#[expect(dead_code, unused_imports, reason = "other programs draw points and pictures")]
mod plot;
mod report;
#[path = "../support/table.rs"]
#[expect(dead_code, reason = "other programs write JSON")]
mod table;
mod tables;
mod watch;

use std::process::ExitCode;

use command::{Folder, check_names, interrupt, list_devices, program, save_pipelines};
use deepcache::Result;
use deepcache::files::write_whole;
use findings::Task;
use options::Options;
use plans::recommendations;
use report::Report;

fn main() -> ExitCode {
    program(run)
}

fn run(options: &Options) -> Result<()> {
    if options.model.list_devices {
        return list_devices();
    }
    options.model.load_options()?;
    let mut requests = options.requests(options.model.kind()?)?;
    let probes = options.probes()?;
    let folder = Folder::new(&options.output)?;

    let mut pipeline = options.model.load()?;
    check_names(&options.conditions, pipeline.classes())?;
    let branches = options.branches(pipeline.skip_count(), pipeline.layers_per_block())?;
    let mut calls = 0;
    for request in &mut requests {
        request.scheduler = request.scheduler.or(pipeline.own_scheduler());
        calls = pipeline.profile_subject(request)?.timesteps.len();
    }
    let trials = options.trials(calls)?;
    let names = report::names(&branches);
    folder.check(&names)?;
    let task = Task { requests, branches, probes, trials, quiet: options.quiet };
    let stopped = interrupt();
    if !options.quiet {
        options.model.introduce(&pipeline);
    }

    let findings = task.work(&mut pipeline, &stopped);
    save_pipelines(pipeline.gpu());
    let findings = findings?;
    let recommended = recommendations(&findings.profile)?;
    let adapter = pipeline.gpu().description();
    let report = Report {
        model: options.model.name(),
        device: format!("{} ({}), values in {}", adapter.name, adapter.backend, pipeline.storage()),
        task: &task,
        findings: &findings,
        recommended: &recommended,
        folder: &options.output,
    };
    let text = report.markdown()?;
    folder.fill(&names, |folder| {
        write_whole(folder.join("profile.json"), findings.profile.to_json()?.as_bytes())?;
        write_whole(folder.join("report.md"), text.as_bytes())?;
        tables::write(folder, &findings)?;
        charts::draw(folder, &findings)
    })?;
    if !options.quiet {
        command::print(report.terminal()?)?;
        eprintln!("wrote report.md, profile.json, tables and charts to {}", options.output.display());
    }
    Ok(())
}
