//! The programs `analyze` and `sweep` on every kind of model.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use deepcache::deepcache::{Budget, CacheProfile};
use program::{command_of, failed, names, succeeded, text};

const PROGRAMS: [&str; 2] = ["analyze", "sweep"];
const LDM: &str = "ldm4g/model/model.safetensors";
const CIFAR: &str = "ddpm-cifar/model";

fn golden(model: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(model).to_string_lossy().into_owned()
}

fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    command_of(name, folder, arguments).output().unwrap()
}

/// A short run of the tiny model.
const SHORT: [&str; 9] =
    ["--steps", "6", "--scheduler", "ddim", "--width", "64", "--height", "64", "--quiet"];

/// The lines of a table, cell by cell; there are no quotes in those that are read here.
fn cells(path: PathBuf) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

fn is_png(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x89PNG\r\n\x1a\n")
}

#[test]
fn an_analysis_is_written_whole_and_its_profile_plans_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let own = ["--quick", "--branches", "0,1", "--probes", "2", "--trials", "3", "--output", "a"];
    let output = run("analyze", folder.path(), &[&SHORT[..], &own].concat());
    succeeded(&output);
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{}", text(&output.stderr));
    let written = folder.path().join("a");
    let expected = [
        "branches.csv",
        "drift-branches.png",
        "drift.png",
        "expectation.png",
        "profile.json",
        "report.md",
        "similarity-branch-0.csv",
        "similarity-branch-0.png",
        "similarity-branch-1.csv",
        "similarity-branch-1.png",
        "stages.csv",
        "trials.csv",
        "trials.png",
        "weights.png",
    ];
    assert_eq!(names(&written), expected);
    for name in expected.iter().filter(|name| name.ends_with(".png")) {
        assert!(is_png(&written.join(name)), "{name} is no picture");
    }

    // Six calls have fifteen pairs; a feature is like itself, and less like one of a call far away.
    let pairs = cells(written.join("similarity-branch-0.csv"));
    assert_eq!(pairs.len(), 1 + 15, "pairs of calls");
    let cosine = |i: &str, j: &str| -> f64 {
        pairs.iter().find(|row| row[0] == i && row[1] == j).unwrap()[4].parse().unwrap()
    };
    assert!(cosine("4", "5") < 1.0 && cosine("2", "3") > cosine("0", "5"), "{pairs:?}");
    // Stages are shares of the whole.
    let stages = cells(written.join("stages.csv"));
    let work: f64 = stages[1..].iter().map(|row| row[1].parse::<f64>().unwrap()).sum();
    assert!((work - 100.0).abs() < 1.0, "the stages hold {work} % of the work");
    let branches = cells(written.join("branches.csv"));
    assert_eq!(branches.len(), 3, "a line for each branch");
    let bound = |row: usize| branches[row][4].parse::<f64>().unwrap();
    assert!(bound(1) > bound(2) && bound(2) > 1.0, "shallower branches save more: {branches:?}");

    let profile = CacheProfile::read(written.join("profile.json")).unwrap();
    assert_eq!(profile.branches.len(), 2, "branches of the profile");
    assert!(profile.branches.iter().all(|branch| !branch.trials.is_empty()), "plans were tried");
    let plan = profile.plan(Budget::FullCalls(3), Some(0), None).unwrap();
    let report = fs::read_to_string(written.join("report.md")).unwrap();
    for word in
        ["Recommended plans", "similarity-branch-1.png", "--cache-speedup 1.5", "6 U-Net calls", "ddim"]
    {
        assert!(report.contains(word), "the report does not say \"{word}\": {report}");
    }

    let cache = ["x", "--cache-schedule", "auto", "--cache-profile", "a/profile.json", "--cache-budget", "3"];
    let more = ["--cache-branch", "0", "--stats", "s.json"];
    succeeded(&run("generate", folder.path(), &[&SHORT[..], &cache, &more].concat()));
    let statistics: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("s.json")).unwrap()).unwrap();
    let steps = statistics["steps"].as_array().unwrap().iter();
    let full: Vec<usize> =
        steps.enumerate().filter(|(_, step)| step["kind"] == "full").map(|(call, _)| call).collect();
    assert_eq!(full, plan.full, "the run has the plan's full calls");
}

#[test]
fn classes_and_unconditional_models_are_analyzed() {
    for (model, arguments) in [
        (LDM, &["--class-label", "3", "--class-label", "7", "--branches", "paper:0,1"][..]),
        (CIFAR, &["--pictures", "2", "--scheduler", "ddim", "--branches", "0,ddpm:2"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = golden(model);
        let common =
            ["--model", &model, "--steps", "4", "--probes", "1", "--trials", "2", "--quiet", "--output", "."];
        succeeded(&run("analyze", folder.path(), &[arguments, &common].concat()));
        let profile = CacheProfile::read(folder.path().join("profile.json")).unwrap();
        assert_eq!(profile.pictures, 2, "{model}: pictures that the profile averages");
        let report = fs::read_to_string(folder.path().join("report.md")).unwrap();
        assert!(report.contains("2 uncached pictures"), "{report}");
    }
}

#[test]
fn a_sweep_compares_every_way_on_every_picture() {
    let folder = tempfile::tempdir().unwrap();
    let analysis = ["--quick", "--branches", "0", "--probes", "1", "--trials", "3", "--output", "a"];
    succeeded(&run("analyze", folder.path(), &[&SHORT[..], &analysis].concat()));
    let own =
        ["--quick", "--schedulers", "ddim,euler", "--intervals", "2", "--equal", "work", "--output", "s"];
    let methods = ["--methods", "uniform,centered,linear,quadratic,auto,threshold,steps"];
    let profile = ["--profile", "a/profile.json"];
    let output = run("sweep", folder.path(), &[&SHORT[..], &own, &methods, &profile].concat());
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(output.stdout.is_empty(), "quiet");
    // The profile is of one sampler.
    assert_eq!(said.trim(), "left out: euler, auto, branch 0, 1:2: no --profile is of this run and branch");
    let written = folder.path().join("s");
    let charts = ["pareto-ddim.png", "pareto-euler.png", "pictures-ddim.png", "pictures-euler.png"];
    let tables = ["results.csv", "summary.csv", "summary.json", "summary.md"];
    assert_eq!(names(&written), [&charts[..], &tables].concat());
    charts.iter().for_each(|name| assert!(is_png(&written.join(name)), "{name} is no picture"));

    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(written.join("summary.json")).unwrap()).unwrap();
    let lines = summary.as_array().unwrap();
    assert_eq!(lines.len(), 8 + 7, "uncached and every way, one less for euler");
    let line = |sampler: &str, way: &str| {
        let found = lines.iter().find(|line| line["sampler"] == sampler && line["way"] == way);
        found.unwrap_or_else(|| panic!("no line of {sampler}, {way}")).clone()
    };
    let number = |line: &serde_json::Value, key: &str| line[key].as_f64().unwrap();
    assert_eq!(number(&line("ddim", "uncached"), "less_work"), 1.0);
    let uniform = line("ddim", "uniform");
    assert_eq!((number(&uniform, "full_calls"), number(&uniform, "calls")), (3.0, 6.0));
    assert!(number(&uniform, "less_work") > 1.5, "{uniform}");
    assert!(number(&uniform, "psnr") > 10.0 && uniform["psnr_vs_uniform"].is_null(), "{uniform}");
    // Six steps with a half of them full cost 3.3 full ones.
    assert_eq!(line("ddim", "steps")["options"], "--steps 3");
    let auto = line("ddim", "auto");
    assert_eq!(number(&auto, "full_calls"), 3.0, "the same budget");
    let gain = number(&auto, "psnr") - number(&uniform, "psnr");
    assert!((number(&auto, "psnr_vs_uniform") - gain).abs() < 1e-4, "{auto} beside {uniform}");
    let results = fs::read_to_string(written.join("results.csv")).unwrap();
    assert_eq!(results.lines().count(), 1 + 2 * (7 + 6), "{results}");
}

#[test]
fn classes_and_unconditional_models_are_swept() {
    for (model, arguments) in [
        (LDM, &["--class-label", "3", "--pictures", "2"][..]),
        (CIFAR, &["--pictures", "2", "--scheduler", "ddim"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = golden(model);
        let methods = ["--methods", "uniform,steps", "--intervals", "2", "--branches", "0,paper:0,1"];
        let common = ["--model", &model, "--steps", "4", "--quiet", "--output", "."];
        let output = run("sweep", folder.path(), &[arguments, &methods, &common].concat());
        succeeded(&output);
        let results = fs::read_to_string(folder.path().join("results.csv")).unwrap();
        // A number of steps that a sampler cannot make is left out, and said.
        let said = text(&output.stderr);
        let left_out = said.lines().filter(|line| line.starts_with("left out: ddim, steps")).count();
        assert_eq!(results.lines().count(), 1 + 2 * (4 - left_out), "{results}{said}");
        let summary = fs::read_to_string(folder.path().join("summary.md")).unwrap();
        assert!(!summary.contains("right [%]"), "only the tiny model can be checked: {summary}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    fs::write(folder.path().join("prompts.json"), "[{\"prompt\": 3}]").unwrap();
    fs::write(folder.path().join("none.json"), "[]").unwrap();
    let (ldm, cifar) = (golden(LDM), golden(CIFAR));
    let rows: [(&str, &[&str], i32, &[&str]); 26] = [
        ("analyze", &["--branches", "0,0"], 2, &["--branches", "twice"]),
        ("analyze", &["--branches", "12"], 2, &["--branches", "0 to 11", "found 12"]),
        ("analyze", &["--branches", "left"], 2, &["--branches", "left"]),
        ("analyze", &["--probes", "0"], 2, &["--probes", "at least 1"]),
        ("analyze", &["--trials", "5,x"], 2, &["--trials", "5,x"]),
        (
            "analyze",
            &["--trials", "50", "--steps", "50", "--scheduler", "ddim"],
            2,
            &["--trials", "1 to 49", "50"],
        ),
        ("analyze", &["--steps", "3"], 2, &["--steps", "at least 4"]),
        ("analyze", &["--pictures", "0"], 2, &["--pictures", "1 to 1024"]),
        ("analyze", &["--class-label", "3"], 2, &["--class-label", "text to image"]),
        ("analyze", &["--output", "no/folder"], 1, &["no"]),
        ("analyze", &["--output", "file"], 1, &["file"]),
        ("analyze", &["--model", &ldm], 2, &["--class-label"]),
        ("analyze", &["--model", &cifar, "a dog"], 2, &["PROMPT", "unconditional"]),
        ("sweep", &["--branches", "0,12"], 2, &["--branches", "0 to 11", "found 12"]),
        ("sweep", &["--methods", "uniform,best"], 2, &["--methods", "threshold", "\"best\""]),
        ("sweep", &["--methods", "steps,uniform"], 2, &["--methods", "uniform"]),
        ("sweep", &["--schedulers", "ddim,rk4"], 2, &["--schedulers", "rk4"]),
        ("sweep", &["--equal", "cost"], 2, &["--equal", "time or work", "\"cost\""]),
        ("sweep", &["--intervals", "1"], 2, &["--intervals", "2 or more"]),
        ("sweep", &["--pictures", "0"], 2, &["--pictures", "1 to 10000"]),
        ("sweep", &["--prompts", "no.json"], 1, &["no.json"]),
        ("sweep", &["--prompts", "prompts.json"], 1, &["prompts.json", "prompts and seeds"]),
        ("sweep", &["--prompts", "none.json"], 1, &["none.json", "has no prompt"]),
        ("sweep", &["--profile", "prompts.json"], 1, &["prompts.json"]),
        ("sweep", &["--output", "file"], 1, &["file"]),
        ("sweep", &["--model", &ldm], 2, &["--class-label"]),
    ];
    for (name, arguments, code, words) in rows {
        let output = run(name, folder.path(), &[arguments, &["--quiet"]].concat());
        failed(&format!("{name} {}", arguments.join(" ")), &output, code, words);
    }
    assert_eq!(names(folder.path()), ["file", "none.json", "prompts.json"], "files were left");
}

#[test]
#[cfg(unix)]
fn a_sweep_that_is_stopped_keeps_what_it_has_and_an_analysis_leaves_nothing() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::{Command, Stdio};

    // All of it takes minutes.
    let sweep = ["--methods", "uniform", "--intervals", "2,3,4,5,6,7,8,9", "--pictures", "4"];
    let analyze = ["--probes", "500"];
    for (name, arguments, until, kept) in
        [("sweep", &sweep[..], "ddim, uniform", true), ("analyze", &analyze, "tiny (", false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let common =
            ["--scheduler", "ddim", "--steps", "40", "--width", "64", "--height", "64", "--output", "s"];
        let mut command = command_of(name, folder.path(), &[arguments, &common].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        // One way is done, or the model is loaded.
        let mut said = String::new();
        while stderr.read_line(&mut said).unwrap() > 0 && !said.contains(until) {}
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "the signal was not sent");
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{name}: {said}");
        assert!(said.contains("error: cancelled after "), "{name}: {said}");
        if kept {
            let summary = fs::read_to_string(folder.path().join("s/summary.csv")).unwrap();
            assert!(summary.lines().count() > 2, "{summary}");
        } else {
            assert_eq!(names(folder.path()), [""; 0], "{name}: files were left");
        }
    }
}

#[test]
fn help_says_what_to_look_at() {
    let folder = tempfile::tempdir().unwrap();
    for name in PROGRAMS {
        let output = run(name, folder.path(), &["--help"]);
        succeeded(&output);
        let said = text(&output.stdout);
        for word in
            ["--quick", "--output", "--branches", "look at", "Examples:", "--class-label", "--scheduler"]
        {
            assert!(said.contains(word), "{name} --help does not name {word}");
        }
    }
}
