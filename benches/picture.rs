//! Whole pictures, uncached and cached: `cargo bench --bench picture -- --model DIRECTORY --size 256`.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its user")]
#![expect(clippy::cast_precision_loss, reason = "counts of operations")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "../examples/support/plot/mod.rs"]
#[allow(dead_code, unused_imports, reason = "other programs draw other charts")]
mod plot;
mod support;
#[path = "../examples/support/table.rs"]
#[expect(dead_code, reason = "other programs write JSON and text")]
mod table;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use deepcache::Result;
use deepcache::pipelines::{
    CacheOptions, DiffusionPipeline, LoadOptions, Progress, Request, Statistics, StepKind,
};
use plot::{LineChart, Marks, Series, lines};
use support::{cpu_seconds, keep, program, record_path};
use table::{Cell, Table};

/// Times whole pictures of a model: denoising without a cache and with every interval and branch, decoding, and what
/// lies before the first submission.
#[derive(Debug, Parser)]
struct Options {
    /// A model as `generate` takes it.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny"))]
    model: PathBuf,

    /// The side of the picture in pixels [default: what the model is made for].
    #[arg(long)]
    size: Option<usize>,

    /// Denoising steps.
    #[arg(long, default_value_t = 50)]
    steps: usize,

    /// Every so many calls a full one.
    #[arg(long, value_delimiter = ',', default_value = "3,5,10")]
    intervals: Vec<usize>,

    /// Skip branches.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    branches: Vec<usize>,

    /// The GPU, by its number or a part of its name.
    #[arg(long)]
    device: Option<String>,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long)]
    dtype: Option<String>,

    /// Keep the figures and the chart under benches/record, as those of this model.
    #[arg(long, value_name = "MODEL")]
    record: Option<String>,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    program(run)
}

/// One picture.
struct Taken {
    /// Interval and branch; `None` without a cache.
    cache: Option<[usize; 2]>,
    statistics: Statistics,
    /// Seconds of all cores in denoising and in decoding, where the system tells.
    cores: [Option<f64>; 2],
}

impl Taken {
    /// Seconds of denoising that say most: of all cores on a software adapter, which other programs share.
    fn seconds(&self, software: bool) -> f64 {
        self.cores[0].filter(|_| software).unwrap_or(self.statistics.denoise_s)
    }

    /// Multiply-accumulates of all its U-Net calls.
    fn macs(&self) -> f64 {
        let of = |kind| match kind {
            StepKind::Full => self.statistics.macs_full,
            StepKind::Shallow => self.statistics.macs_shallow,
        };
        self.statistics.steps.iter().map(|step| of(step.kind) as f64).sum()
    }

    /// Milliseconds of the CPU for a U-Net call: mean and most.
    fn cpu_ms(&self) -> [f64; 2] {
        let times = self.statistics.steps.iter().map(|step| step.cpu_ms);
        let mean = times.clone().sum::<f64>() / self.statistics.steps.len() as f64;
        [mean, times.fold(0.0, f64::max)]
    }
}

fn run(options: &Options) -> Result<()> {
    let storage = options.dtype.as_deref().map(str::parse).transpose()?;
    let load = LoadOptions { device: options.device.clone(), storage, ..LoadOptions::default() };
    let mut pipeline = DiffusionPipeline::load(&options.model, &load)?;
    let adapter = pipeline.gpu().description().clone();
    let software = pipeline.gpu().is_software();
    eprintln!("{} ({}, {}), values in {}", adapter.name, adapter.backend, adapter.driver, pipeline.storage());

    // The first picture compiles, the second does not: both starts are told, the second is timed.
    let first = take(&mut pipeline, options, 1, None)?;
    let mut taken = vec![take(&mut pipeline, options, options.steps, None)?];
    println!("{}", starts(&first, &taken[0]).markdown());
    for &branch in &options.branches {
        for &interval in &options.intervals {
            let cache = Some([interval, branch]);
            // One full and one shallow call first: what a driver compiles late is not part of the next.
            take(&mut pipeline, options, 2, Some([2, branch]))?;
            taken.push(take(&mut pipeline, options, options.steps, cache)?);
        }
    }
    let table = pictures(&taken, software);
    println!("{}", table.markdown());
    if let Some(name) = &options.record {
        let side = options.size.map_or_else(String::new, |size| format!("-{size}"));
        let bench = format!("picture-{name}{side}-{}", pipeline.storage());
        let path = record_path(&adapter.name, &bench);
        keep(&path, &table.csv())?;
        let chart = path.with_extension("png");
        draw(
            &chart,
            &format!("{name}, {} steps, {}", options.steps, adapter.name),
            options,
            &taken,
            software,
        )?;
        eprintln!("wrote {} and {}", path.display(), chart.display());
    }
    Ok(())
}

fn take(
    pipeline: &mut DiffusionPipeline,
    options: &Options,
    steps: usize,
    cache: Option<[usize; 2]>,
) -> Result<Taken> {
    let mut request = match pipeline.classes() {
        0 => Request::prompt("a lighthouse on a cliff at dusk, oil on canvas"),
        _ => Request::class_label(1),
    };
    request.steps = Some(steps);
    (request.width, request.height) = (options.size, options.size);
    request.cache = cache.map(|[interval, branch]| CacheOptions::uniform(interval, branch));
    let [mut begun, mut denoised] = [None; 2];
    eprint!("\r{:60}", cache.map_or_else(|| "uncached".into(), |[n, s]| format!("N = {n}, s = {s}")));
    let generation = pipeline.generate(&request, |progress| {
        match progress {
            // What was submitted first has not begun to be computed, or hardly.
            Progress::Denoising { completed: 1, .. } => begun = cpu_seconds(),
            Progress::Decoding { .. } => denoised = cpu_seconds(),
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    eprint!("\r{:60}\r", "");
    let ended = cpu_seconds();
    let difference = |later: Option<f64>, earlier: Option<f64>| Some(later? - earlier?);
    Ok(Taken {
        cache,
        statistics: generation.statistics,
        cores: [difference(denoised, begun), difference(ended, denoised)],
    })
}

/// What lies before the first submission, cold and warm.
fn starts(first: &Taken, second: &Taken) -> Table {
    let mut table = Table::new(&[
        "start",
        "load, s",
        "pipelines",
        "compiling, s",
        "request to first submission, s",
        "prompt, s",
        "first call on the CPU, ms",
    ]);
    for (name, taken) in [("first picture", first), ("second picture", second)] {
        let statistics = &taken.statistics;
        let row = vec![
            name.into(),
            Cell::Number(statistics.load_s, 2),
            statistics.pipelines.into(),
            Cell::Number(statistics.compile_s, 2),
            Cell::Number(statistics.prepare_s, 2),
            Cell::Number(statistics.encode_s - statistics.prepare_s, 2),
            Cell::Number(statistics.steps[0].cpu_ms, 2),
        ];
        table.push(row).expect("a row has a cell for every column");
    }
    table
}

fn pictures(taken: &[Taken], software: bool) -> Table {
    let mut table = Table::new(&[
        "cache",
        "calls",
        "full calls",
        "denoising, s",
        "core-seconds",
        "times faster",
        "bound by MACs",
        "share of bound, %",
        "decoding, s",
        "decoding, core-seconds",
        "CPU for a call, ms",
        "most, ms",
        "submissions",
        "peak, MiB",
    ]);
    let whole = &taken[0];
    for taken in taken {
        let statistics = &taken.statistics;
        let faster = whole.seconds(software) / taken.seconds(software);
        let bound = whole.macs() / taken.macs();
        let full = statistics.steps.iter().filter(|step| step.kind == StepKind::Full).count();
        let seconds = |value: Option<f64>| value.map_or(Cell::Missing, |value| Cell::Number(value, 2));
        let [mean, most] = taken.cpu_ms();
        let row = vec![
            taken.cache.map_or_else(|| "none".into(), |[n, s]| format!("N = {n}, s = {s}")).into(),
            statistics.steps.len().into(),
            full.into(),
            Cell::Number(statistics.denoise_s, 2),
            seconds(taken.cores[0]),
            Cell::Number(faster, 2),
            Cell::Number(bound, 2),
            Cell::Number(100.0 * faster / bound, 0),
            Cell::Number(statistics.decode_s, 2),
            seconds(taken.cores[1]),
            Cell::Number(mean, 2),
            Cell::Number(most, 2),
            statistics.submissions.into(),
            Cell::Number(statistics.peak_bytes as f64 / f64::from(1 << 20), 1),
        ];
        table.push(row).expect("a row has a cell for every column");
    }
    table
}

/// Time of denoising against the interval, measured and as the multiply-accumulates say.
fn draw(path: &Path, title: &str, options: &Options, taken: &[Taken], software: bool) -> Result<()> {
    let whole = &taken[0];
    let of = |branch: usize, value: &dyn Fn(&Taken) -> f64| {
        let cached = taken.iter().filter(|taken| taken.cache.is_some_and(|[_, own]| own == branch));
        let points =
            cached.map(|taken| (taken.cache.map_or(1.0, |[interval, _]| interval as f64), value(taken)));
        [(1.0, value(whole))].into_iter().chain(points).collect::<Vec<_>>()
    };
    let measured = |taken: &Taken| taken.seconds(software);
    let expected = |taken: &Taken| whole.seconds(software) * taken.macs() / whole.macs();
    let names: Vec<String> = options.branches.iter().map(|branch| format!("branch {branch}")).collect();
    let mut series = Vec::new();
    for (&branch, name) in options.branches.iter().zip(&names) {
        series.push(Series { name, points: of(branch, &measured), band: None, marks: Marks::All });
    }
    let promised: Vec<String> =
        options.branches.iter().map(|branch| format!("branch {branch}, by its MACs")).collect();
    for (&branch, name) in options.branches.iter().zip(&promised) {
        let points = of(branch, &expected);
        series.push(Series { name, points, band: None, marks: Marks::None });
    }
    lines(
        path,
        &LineChart {
            title,
            x_label: "N: every N-th call is full (1: no cache)",
            y_label: if software { "core-seconds of denoising" } else { "seconds of denoising" },
            series: &series,
            log_x: false,
            log_y: false,
            y_range: None,
        },
    )
}
