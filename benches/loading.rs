//! Loads a model and prints what it took: `cargo bench --bench loading -- --model DIRECTORY`.
//!
//! `tools/peers/loading` runs it beside candle and a plain read of the same file.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its user")]
#![expect(clippy::cast_precision_loss, reason = "sizes of files")]
#![allow(missing_docs, reason = "a program, not a library")]

mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use deepcache::Result;
use deepcache::gpu::{Gpu, Memory, Purpose};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::pipelines::load_network;
use deepcache::weights::{Checkpoint, Loader};
use support::{cpu_seconds, element, program};

/// Times the loading of a U-Net: from its file, packed, onto the device.
#[derive(Debug, Parser)]
struct Options {
    /// A folder with a U-Net as diffusers lays it out: its configuration and its weights.
    #[arg(long)]
    unet: PathBuf,

    /// The GPU, by its number or a part of its name.
    #[arg(long)]
    device: Option<String>,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long)]
    dtype: Option<String>,

    /// Print one line for tools/peers/loading: the way, bytes, seconds, bytes of host memory.
    #[arg(long)]
    line: bool,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    program(run)
}

fn run(options: &Options) -> Result<()> {
    let gpu = Arc::new(Gpu::open(options.device.as_deref())?);
    let element = element(options.dtype.as_deref(), gpu.has_f16())?;
    let mut memory = Memory::new(Arc::clone(&gpu));
    let before = resident();
    let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let loaded = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // A software device's memory is the host's, and is not what is asked about.
                let device = gpu.allocated_bytes().filter(|_| gpu.is_software()).unwrap_or(0);
                most.fetch_max(resident().saturating_sub(device), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let loaded = load(options, element, &mut memory);
        let seconds = started.elapsed().as_secs_f64();
        let cores = cpu_seconds().zip(cpu).map(|(after, before)| after - before);
        stop.store(true, Ordering::Relaxed);
        loaded.map(|()| (seconds, cores))
    });
    let (seconds, cores) = loaded?;
    let (weights, most) = (memory.bytes(Purpose::Weights), most.load(Ordering::Relaxed));
    if options.line {
        println!("deepcache-{element} {weights} {seconds:.3} {most}");
        return Ok(());
    }
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{:.1} MiB of weights on {} in {seconds:.2} s, {} core-seconds",
        mebibytes(weights),
        gpu.description().name,
        cores.map_or("unknown".to_owned(), |cores| format!("{cores:.2}")),
    );
    println!(
        "host memory: {:.1} MiB before, at most {:.1} MiB while loading, that of a software device left out",
        mebibytes(before),
        mebibytes(most),
    );
    Ok(())
}

fn load(options: &Options, element: deepcache::tensor::ElementType, memory: &mut Memory) -> Result<()> {
    let config = UNetConfig::from_file(options.unet.join("config.json"))?;
    let weights = Checkpoint::open(&[options.unet.join("diffusion_pytorch_model.safetensors")])?;
    load_network(&weights, memory, Loader::new("unet", element), |file, loader| {
        UNet::load(config, file, loader)
    })?;
    memory.flush()
}

/// Bytes of the process's memory, mapped files among it; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    1024 * line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
}
