//! A full call of a U-Net and shallow ones: `cargo bench --bench denoising_step -- --model sd15 --size 256`.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its user")]
#![expect(clippy::cast_precision_loss, reason = "counts of operations")]
#![allow(missing_docs, reason = "a program, not a library")]

mod support;
#[path = "../examples/support/table.rs"]
#[expect(dead_code, reason = "other programs write JSON and text")]
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use deepcache::gpu::{Program, Purpose};
use deepcache::models::OriginalDdpmConfig;
use deepcache::models::latent_diffusion::LatentDiffusionConfig;
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::tensor::Tensor;
use deepcache::weights::{Checkpoint, Loader, WeightStorage};
use deepcache::{Error, Result};
use support::{Bench, Timing, element, keep, program, record_path};
use table::{Cell, Table};

/// Times a full call of a U-Net of a published shape, with random weights, and shallow calls beside it.
#[derive(Debug, Parser)]
struct Options {
    /// The shape: sd15, ldm4g, cifar10 or lsun.
    #[arg(long, default_value = "sd15")]
    model: String,

    /// The side of the picture in pixels [default: what the model is made for].
    #[arg(long)]
    size: Option<usize>,

    /// Skip branches of the shallow calls.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3")]
    branches: Vec<usize>,

    /// One guidance half instead of both.
    #[arg(long)]
    unguided: bool,

    /// The GPU, by its number or a part of its name.
    #[arg(long)]
    device: Option<String>,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long)]
    dtype: Option<String>,

    /// How matrices are stored: dtype, as all values are, or int8.
    #[arg(long, default_value = "dtype")]
    weights: WeightStorage,

    /// Seconds for each call.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Where the time of a full call goes, by label.
    #[arg(long)]
    profile: bool,

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

/// A model's U-Net: its shape, the tokens of its condition, pixels of the picture for one of the sample.
struct Subject {
    config: UNetConfig,
    tokens: usize,
    factor: usize,
    guided: bool,
}

impl Subject {
    fn read(options: &Options) -> Result<Self> {
        let published = |file: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published").join(file);
        let pixels = |file: &str| Ok(OriginalDdpmConfig::from_file(published(file))?.unet);
        let (config, tokens, factor, guided) = match options.model.as_str() {
            "sd15" => (UNetConfig::from_file(published("sd-v1-5.json"))?, 77, 8, true),
            "ldm4g" => (LatentDiffusionConfig::from_file(published("cin256-v2.yaml"))?.unet, 1, 4, true),
            "cifar10" => (pixels("cifar10.yml")?, 0, 1, false),
            "lsun" => (pixels("bedroom.yml")?, 0, 1, false),
            other => {
                let problem = format!("expected sd15, ldm4g, cifar10 or lsun, found \"{other}\"");
                return Err(Error::option("model", problem));
            }
        };
        Ok(Self { config, tokens, factor, guided: guided && !options.unguided })
    }
}

fn run(options: &Options) -> Result<()> {
    let subject = Subject::read(options)?;
    let mut bench = Bench::open(options.device.as_deref())?;
    let element = element(options.dtype.as_deref(), bench.gpu.has_f16())?;
    let adapter = bench.gpu.description().clone();
    eprintln!("{} ({}, {}), values in {element:?}", adapter.name, adapter.backend, adapter.driver);

    let [height, width] = match options.size {
        Some(size) => [size / subject.factor; 2],
        None => subject.config.sample_size.unwrap_or([64; 2]),
    };
    let copies = if subject.guided { 2 } else { 1 };
    let channels = subject.config.in_channels;
    let context = subject.config.cross_attention_dim;
    let mut loader = Loader::new("unet", element).with_weight_storage(options.weights);
    let unet = UNet::load(subject.config, &Checkpoint::assumed(), &mut loader)?;
    let weights: Vec<Tensor> = loader.pending().iter().map(|pending| pending.tensor.clone()).collect();
    bench.memory.allocate_packed(&weights, Purpose::Weights)?;
    eprintln!("filling {:.0} MiB of weights with random numbers", loader.bytes() as f64 / f64::from(1 << 20));
    weights.iter().try_for_each(|tensor| bench.fill(tensor))?;
    let conditioning = unet.conditioning(copies, subject.tokens, 1);
    bench.memory.allocate(conditioning.tensors(), Purpose::Persistent)?;
    let sample = bench.random(&[copies, height, width, channels], element)?;
    let context = match context {
        Some(channels) => Some(bench.random(&[copies, subject.tokens, channels], element)?),
        None => None,
    };

    let mut once = bench.executor.recording("condition");
    unet.record_conditioning(&mut once, context.as_ref(), &conditioning)?;
    let mut full = bench.executor.recording("full");
    unet.record_full(&mut full, &sample, &conditioning, &[])?;
    let mut recordings = vec![once, full];
    for &branch in &options.branches {
        let kept = unet.kept_feature(branch, copies, height, width)?;
        bench.memory.allocate([&kept], Purpose::Cache)?;
        let mut shallow = bench.executor.recording("shallow");
        unet.record_shallow(&mut shallow, &sample, &conditioning, branch, &kept)?;
        recordings.push(shallow);
    }
    let programs = bench.executor.prepare(&bench.memory, &recordings.iter().collect::<Vec<_>>())?;
    bench.play(&programs[0])?;

    let mut table = Table::new(&[
        "model",
        "side",
        "call",
        "dispatches",
        "GMAC",
        "ms",
        "core-seconds",
        "GMAC/s",
        "times faster",
        "bound by MACs",
        "share of bound, %",
    ]);
    let whole = bench.time(&programs[1], options.seconds)?;
    let side = height * subject.factor;
    table.push(row(&options.model, side, "full".into(), &programs[1], whole, (whole, &programs[1])))?;
    for (branch, program) in options.branches.iter().zip(&programs[2..]) {
        let timing = bench.time(program, options.seconds)?;
        table.push(row(&options.model, side, (*branch).into(), program, timing, (whole, &programs[1])))?;
    }
    println!("{}", table.markdown());
    if options.profile {
        match bench.executor.time(&programs[1])? {
            Some(profile) => println!("{profile}"),
            None => eprintln!("this adapter has no timestamps: no profile"),
        }
    }
    if options.record {
        let weights = if options.weights == WeightStorage::Int8 { "-int8" } else { "" };
        let path = record_path(
            &adapter.name,
            &format!("step-{}-{side}-{element:?}{weights}", options.model).to_lowercase(),
        );
        keep(&path, &table.csv())?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn row(
    model: &str,
    side: usize,
    call: Cell,
    program: &Program,
    timing: Timing,
    (whole, full): (Timing, &Program),
) -> Vec<Cell> {
    let macs = program.cost().multiply_accumulates as f64;
    let bound = full.cost().multiply_accumulates as f64 / macs;
    let faster = whole.effective() / timing.effective();
    vec![
        model.into(),
        side.into(),
        call,
        program.dispatches().into(),
        Cell::Number(1e-9 * macs, 2),
        Cell::Number(1e3 * timing.seconds, 1),
        timing.core_seconds.map_or(Cell::Missing, |cores| Cell::Number(cores, 3)),
        Cell::Number(1e-9 * macs / timing.seconds, 2),
        Cell::Number(faster, 2),
        Cell::Number(bound, 2),
        Cell::Number(100.0 * faster / bound, 0),
    ]
}
