//! Every kernel at the shapes that the work of the models lies in: `cargo bench --bench kernels -- --quick`.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its user")]
#![expect(clippy::cast_precision_loss, reason = "counts of operations and bytes")]
#![allow(missing_docs, reason = "a program, not a library")]

#[path = "support/shapes.rs"]
mod shapes;
mod support;
#[path = "../examples/support/table.rs"]
#[expect(dead_code, reason = "other programs write JSON and text")]
mod table;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use deepcache::tensor::ElementType;
use deepcache::{Error, Result};
use shapes::{Operation, SHAPES, Shape};
use support::{Bench, Timing, element, keep, program, record_path};
use table::{Cell, Table};

/// Times every kernel at the shapes of the models, beside the device's own peak of the same run.
#[derive(Debug, Parser)]
struct Options {
    /// The GPU, by its number or a part of its name.
    #[arg(long)]
    device: Option<String>,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can, f32 on a software adapter].
    #[arg(long)]
    dtype: Option<String>,

    /// Only operations whose names hold this.
    filter: Option<String>,

    /// Only the shapes that most of the work lies in.
    #[arg(long)]
    quick: bool,

    /// Seconds for each shape.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,

    /// Calls for each wait for the device: more than one where the wait is long beside the work.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,

    /// For programs: the figures as comma-separated values, without the device's peak, which other pipelines tell.
    #[arg(long)]
    csv: bool,

    /// Keep the figures under benches/record.
    #[arg(long)]
    record: bool,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    program(run)
}

fn run(options: &Options) -> Result<()> {
    let gpu = Bench::open(options.device.as_deref())?.gpu;
    let element = element(options.dtype.as_deref(), gpu.has_f16() && !gpu.is_software())?;
    let adapter = gpu.description();
    eprintln!("{} ({}, {}), values in {element:?}", adapter.name, adapter.backend, adapter.driver);
    let peak = if options.csv { None } else { Some(Peak::measure(options, element, gpu.is_software())?) };
    let chosen = SHAPES.iter().filter(|shape| {
        let wanted = options.filter.as_ref().is_none_or(|filter| shape.operation.name().contains(filter));
        wanted && (shape.quick || !options.quick)
    });
    let mut table = Table::new(&[
        "model",
        "operation",
        "ms",
        "core-seconds",
        "first, s",
        "GMAC/s",
        "GMAC/s per core",
        "of peak, %",
        "GB/s",
        "of copy, %",
    ]);
    for shape in chosen {
        eprint!("\r{:60}", shape.operation.name());
        match measure(options, shape, element) {
            Ok(found) => table.push(found.row(shape, peak))?,
            // What an adapter cannot bind is no reason to lose the rest.
            Err(error @ (Error::Limit { .. } | Error::OutOfMemory { .. })) => eprintln!("\r{error}"),
            Err(error) => return Err(error),
        }
    }
    eprintln!("\r{:60}", "");
    println!("{}", if options.csv { table.csv() } else { table.markdown() });
    if options.record {
        let path = record_path(&adapter.name, &format!("kernels-{element:?}").to_lowercase());
        keep(&path, &table.csv())?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

/// What the device does at best in this run.
#[derive(Clone, Copy, Debug)]
struct Peak {
    /// GMAC/s of a large product.
    product: f64,
    /// GB/s of a copy.
    copied: f64,
}

impl Peak {
    /// Measures it and tells it.
    fn measure(options: &Options, element: ElementType, software: bool) -> Result<Self> {
        let side = if software { 1024 } else { 4096 };
        let shape = Shape { model: "peak", operation: Operation::Product([side; 3]), quick: true };
        let product = measure(options, &shape, element)?.rate();
        let values = if software { 1 << 22 } else { 1 << 24 };
        let copied = copy(options.device.as_deref(), element, values, options.seconds)?;
        let name = shape.operation.name();
        println!(
            "peak of this device in this run: {product:.1} GMAC/s by {name}, {copied:.1} GB/s by a copy\n"
        );
        Ok(Self { product, copied })
    }
}

/// What a play needs and takes.
#[derive(Clone, Copy, Debug)]
struct Measured {
    macs: f64,
    bytes: f64,
    /// Seconds to compile the pipelines and play for the first time.
    first: f64,
    timing: Timing,
}

impl Measured {
    /// GMAC/s.
    fn rate(&self) -> f64 {
        1e-9 * self.macs / self.timing.seconds
    }

    fn row(&self, shape: &Shape, peak: Option<Peak>) -> Vec<Cell> {
        let number =
            |value: f64, decimals| if value > 0.0 { Cell::Number(value, decimals) } else { Cell::Missing };
        let cores = self.timing.core_seconds;
        let per_core = cores.filter(|cores| *cores > 0.0).map(|cores| 1e-9 * self.macs / cores);
        let bandwidth = 1e-9 * self.bytes / self.timing.seconds;
        vec![
            shape.model.into(),
            shape.operation.name().into(),
            Cell::Number(1e3 * self.timing.seconds, 2),
            cores.map_or(Cell::Missing, |cores| Cell::Number(cores, 4)),
            Cell::Number(self.first, 2),
            number(self.rate(), 2),
            number(per_core.unwrap_or(0.0), 2),
            number(peak.map_or(0.0, |peak| 100.0 * self.rate() / peak.product), 1),
            Cell::Number(bandwidth, 2),
            number(peak.map_or(0.0, |peak| 100.0 * bandwidth / peak.copied), 1),
        ]
    }
}

/// Times one shape on a device of its own, so that nothing is left of the one before.
fn measure(options: &Options, shape: &Shape, element: ElementType) -> Result<Measured> {
    let mut bench = Bench::open(options.device.as_deref())?;
    let mut recording = bench.executor.recording("bench");
    let _ = shape.operation.record(&mut bench, &mut recording, element)?;
    let cost = recording.cost();
    let started = Instant::now();
    let program = bench.program(&recording)?;
    bench.play(&program)?;
    let first = started.elapsed().as_secs_f64();
    let timing = bench.time_calls(&program, options.seconds, options.calls)?;
    Ok(Measured { macs: cost.multiply_accumulates as f64, bytes: cost.bytes as f64, first, timing })
}

/// GB/s of reading and writing a large tensor once, as the driver copies buffers.
fn copy(device: Option<&str>, element: ElementType, values: usize, seconds: f64) -> Result<f64> {
    let mut bench = Bench::open(device)?;
    let [from, to] = [bench.random(&[values], element)?, bench.random(&[values], element)?];
    let mut times = Vec::new();
    let started = Instant::now();
    while times.len() < 4 || started.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        bench.memory.copy(&from, &to)?;
        bench.executor.finish()?;
        times.push(before.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(2e-9 * from.bytes() as f64 / times[times.len() / 2])
}
