//! Text to image: `cargo run --release --example generate -- "a large red circle on a blue background"`.
//!
//! Short on purpose: parse, build, save. The work is in the library.

#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a program talks to its user")]

mod cache;
mod options;
mod parameters;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use deepcache::deepcache::describe_branch;
use deepcache::gpu::list_adapters;
use deepcache::image::{check_writable, write_whole};
use deepcache::pipelines::{DiffusionPipeline, Generation, Latents, Progress, Request};
use deepcache::weights::ModelFiles;
use deepcache::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use options::{Options, check_names};
use parameters::parameters;

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Options::explain(&error));
            ExitCode::from(if matches!(error, Error::Option { .. }) { 2 } else { 1 })
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if options.list_devices {
        return list_devices();
    }
    let load_options = options.load_options()?;
    let mut request = options.request(ModelFiles::open(&options.model)?.kind())?;
    if let Some(path) = &options.latents {
        let latents = Latents::read(path)?;
        let count = latents.shape()[0];
        if request.count != 1 && request.count != count {
            let problem = format!("is {}, but {} holds {count}", request.count, path.display());
            return Err(Error::option("count", problem));
        }
        request.count = count;
        request.latents = Some(latents);
    }
    let ends =
        [0, request.count.saturating_sub(1)].map(|number| numbered(&options.output, number, request.count));
    let mut files: Vec<&PathBuf> = ends.iter().collect();
    for (option, path) in [("save-latents", &options.save_latents), ("stats", &options.stats)] {
        if let Some(path) = path {
            if files.contains(&path) {
                return Err(Error::option(option, format!("{} is another output already", path.display())));
            }
            files.push(path);
        }
    }
    for path in files {
        check_writable(path)?;
    }
    let mut pipeline = DiffusionPipeline::load(&options.model, &load_options)?;
    check_names(options, pipeline.classes())?;
    request.scheduler = request.scheduler.or(pipeline.own_scheduler());
    request.cache = options.cache.options(pipeline.layers_per_block())?;
    if options.profile {
        pipeline.start_profile();
    }
    if !options.quiet {
        let adapter = pipeline.gpu().description();
        let model = options.model.file_name().unwrap_or(options.model.as_os_str()).to_string_lossy();
        eprintln!("{model} ({}) on {} ({})", pipeline.storage(), adapter.name, adapter.backend);
        if let Some(cache) = &request.cache {
            eprintln!("DeepCache: {}", describe_branch(cache.branch, pipeline.layers_per_block()));
        }
        if pipeline.gpu().is_software() {
            eprintln!(
                "no GPU here: a software driver computes on the CPU, slowly; its first run compiles for a while"
            );
        }
    }

    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    // Without a handler Ctrl-C ends the program at once, which leaves no half file either.
    let _ = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
    let bar = progress_bar(options.quiet);
    let outcome = pipeline.generate(&request, |progress| {
        show(&bar, progress);
        if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    let generation = outcome?;
    for warning in &generation.warnings {
        eprintln!("warning: {warning}");
    }
    save(options, &request, &generation)?;
    if let Some(profile) = pipeline.profile() {
        eprintln!("{profile}");
    }
    Ok(())
}

fn save(options: &Options, request: &Request, generation: &Generation) -> Result<()> {
    for (number, picture) in generation.pictures.iter().enumerate() {
        let path = numbered(&options.output, number, generation.pictures.len());
        picture.save(&path, &[("parameters", &parameters(options, request, generation, number))])?;
        if !options.quiet {
            eprintln!("wrote {}", path.display());
        }
    }
    if let Some(path) = &options.save_latents {
        generation.latents.write(path)?;
    }
    let statistics = &generation.statistics;
    if let Some(path) = &options.stats {
        let mut text = serde_json::to_vec_pretty(statistics)
            .map_err(|error| Error::option("--stats", error.to_string()))?;
        text.push(b'\n');
        write_whole(path, &text)?;
    }
    if !options.quiet {
        eprintln!(
            "load {:.2} s, prompt {:.2} s, {} U-Net calls {:.2} s, decode {:.2} s; peak {:.1} MiB on the device",
            statistics.load_s,
            statistics.encode_s,
            statistics.steps.len(),
            statistics.denoise_s,
            statistics.decode_s,
            statistics.peak_bytes as f64 / f64::from(1 << 20),
        );
    }
    Ok(())
}

/// `out.png` for one picture; `out-0.png`, `out-1.png`, … for several.
fn numbered(path: &Path, number: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    path.with_file_name(format!("{stem}-{number}{}", extension.unwrap_or_default()))
}

fn list_devices() -> Result<()> {
    let adapters = list_adapters();
    if adapters.is_empty() {
        return Err(Error::NoAdapter { wanted: None, found: Vec::new() });
    }
    for adapter in adapters {
        println!("{adapter}");
    }
    Ok(())
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Waiting for something that cannot be counted.
fn waiting() -> ProgressStyle {
    style("{msg} [{elapsed}]")
}

fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet { ProgressBar::hidden() } else { ProgressBar::new(0).with_style(waiting()) }
}

fn show(bar: &ProgressBar, progress: Progress) {
    match progress {
        Progress::Encoding => bar.set_message("preparing and encoding the prompt"),
        Progress::Denoising { completed, of, .. } => {
            bar.set_style(style("denoising {wide_bar} {pos}/{len} [{elapsed} < {eta}]"));
            bar.set_length(of as u64);
            bar.set_position(completed as u64);
        }
        Progress::Decoding { .. } => {
            bar.set_style(waiting());
            bar.set_message("decoding");
        }
        _ => {}
    }
    bar.tick();
}
