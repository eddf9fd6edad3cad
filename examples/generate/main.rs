//! Text to image: `cargo run --release --example generate -- "a large red circle on a blue background"`.
//!
//! Short on purpose: parse, build, save. The work is in the library.

#![expect(clippy::print_stderr, reason = "a program talks to its user")]

mod cache;
#[path = "../support/command/mod.rs"]
mod command;
mod options;
mod parameters;
mod refining;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use command::{check_names, interrupt, list_devices, program, progress_bar, save_pipelines, tune};
use deepcache::files::{check_writable, write_whole};
use deepcache::pipelines::{DiffusionPipeline, Generation, Latents, Progress, Request, Statistics};
use deepcache::{Error, Result};
use options::Options;
use parameters::parameters;

fn main() -> ExitCode {
    program(run)
}

fn run(options: &Options) -> Result<()> {
    if options.model.list_devices {
        return list_devices();
    }
    options.model.load_options()?;
    let budget = options.budget()?;
    let mut request = options.request(options.model.kind()?)?;
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
    let others =
        [("save-latents", &options.save_latents), ("stats", &options.stats), ("preview", &options.preview)];
    for (option, path) in others {
        if let Some(path) = path {
            if files.contains(&path) {
                return Err(Error::option(option, format!("{} is another output already", path.display())));
            }
            files.push(path);
        }
    }
    if options.plan {
        return plan(options, request);
    }
    for path in files {
        check_writable(path)?;
    }
    let refiner = options.refining.refiner(options, &request)?;
    let mut pipeline = options.model.load()?;
    check_names(&options.conditions, pipeline.classes())?;
    request.scheduler = request.scheduler.or(pipeline.own_scheduler());
    // A part of a run has the steps of the whole.
    request.steps = request.steps.or_else(|| Some(pipeline.usual_steps(request.scheduler)));
    let cache = options.cache.choose(&pipeline, &request)?;
    request.cache = cache.as_ref().map(|cache| cache.options.clone());
    if let Some(budget) = budget {
        tune(&mut pipeline, &request, budget, options.quiet)?;
    }
    if options.choices {
        for choice in pipeline.choices(&request)? {
            eprintln!("{choice}");
        }
    }
    if options.profile {
        pipeline.start_profile();
    }
    let stopped = interrupt();
    if !options.quiet {
        options.model.introduce(&pipeline);
        if let Some(cache) = &cache {
            cache.introduce(pipeline.layers_per_block());
        }
    }

    let draw =
        |pipeline: &mut DiffusionPipeline, request: &Request| draw(pipeline, request, options, &stopped);
    let generation = draw(&mut pipeline, &request)?;
    if let Some(profile) = pipeline.profile() {
        eprintln!("{profile}");
    }
    let Some(refiner) = refiner else {
        return save(options, &request, &generation, None);
    };
    drop(pipeline);
    let refined = refiner.go_on(options, &request, generation.latents, draw)?;
    save(options, &request, &refined, Some(&generation.statistics))
}

/// Makes the pictures of a request.
fn draw(
    pipeline: &mut DiffusionPipeline,
    request: &Request,
    options: &Options,
    stopped: &dyn Fn() -> bool,
) -> Result<Generation> {
    let bar = progress_bar(options.quiet);
    let mut unwritten = Ok(());
    let outcome = pipeline.generate(request, |progress| {
        bar.show(progress);
        if let (Progress::Preview { preview, .. }, Some(path)) = (progress, &options.preview) {
            unwritten = preview.save(path, &[]);
        }
        if stopped() || unwritten.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish();
    save_pipelines(pipeline.gpu());
    unwritten?;
    let generation = outcome?;
    for warning in &generation.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(generation)
}

/// Says what a run would take on the device.
fn plan(options: &Options, mut request: Request) -> Result<()> {
    let planner = options.model.planner()?;
    check_names(&options.conditions, planner.classes())?;
    request.scheduler = request.scheduler.or(planner.own_scheduler());
    request.cache = options.cache.choose(&planner, &request)?.map(|cache| cache.options);
    command::print(planner.plan(&request)?)
}

/// Writes the files; `base` is what the part of the run took that another model has made.
fn save(
    options: &Options,
    request: &Request,
    generation: &Generation,
    base: Option<&Statistics>,
) -> Result<()> {
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
        let text = match base {
            Some(base) => {
                serde_json::to_vec_pretty(&serde_json::json!({ "base": base, "refiner": statistics }))
            }
            None => serde_json::to_vec_pretty(statistics),
        };
        let mut text = text.map_err(|error| Error::option("--stats", error.to_string()))?;
        text.push(b'\n');
        write_whole(path, &text)?;
    }
    if !options.quiet {
        eprintln!(
            "load {:.2} s, {} pipelines {:.2} s, prompt {:.2} s, {} U-Net calls {:.2} s, decode {:.2} s; peak {:.1} MiB on the device",
            statistics.load_s,
            statistics.pipelines,
            statistics.prepare_s,
            statistics.encode_s - statistics.prepare_s,
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
