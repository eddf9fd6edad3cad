//! A second model that goes on with a run: SDXL's refiner.

use std::path::PathBuf;

use clap::Args;
use deepcache::pipelines::{DiffusionPipeline, Generation, Latents, Planner, Request};
use deepcache::{Error, Result};

use crate::command::ModelOptions;
use crate::options::Options;

/// What is done with a part of a run.
#[derive(Debug, Args)]
#[command(next_help_heading = "SDXL")]
pub(crate) struct Refining {
    /// SDXL's refiner, or another model for the last part of the run: it goes on with the latents of --model, which
    /// leaves the device before. LoRAs are not added to it. With --plan, what --model takes is printed alone.
    #[arg(long, value_name = "PATH")]
    pub(crate) refiner: Option<PathBuf>,

    /// The share of the noise schedule, between 0 (all noise) and 1 (none), from which on the refiner draws.
    #[arg(long, value_name = "SHARE", default_value_t = 0.8, requires = "refiner")]
    refiner_start: f64,

    /// How beautiful the refiner is told that the picture is, about 1 to 10 [default: 6].
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    aesthetic_score: Option<f64>,

    /// How beautiful that is which guidance leads the refiner away from [default: 2.5].
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    negative_aesthetic_score: Option<f64>,

    /// Stop at this share of the noise schedule: no picture is made, but the latents can be written for another model.
    #[arg(long, value_name = "SHARE", requires = "save_latents", conflicts_with = "refiner")]
    denoising_end: Option<f64>,

    /// Begin at this share of the noise schedule, with the latents of --latents as they are, which another run wrote that
    /// stopped there.
    #[arg(long, value_name = "SHARE", requires = "latents", conflicts_with = "refiner")]
    denoising_start: Option<f64>,
}

/// The refiner of a run, found possible before the base has begun.
#[derive(Debug)]
pub(crate) struct Refiner {
    model: ModelOptions,
    start: f64,
    scores: [Option<f64>; 2],
}

impl Refining {
    /// The request of the model that begins.
    pub(crate) fn first(&self, request: Request) -> Request {
        if self.refiner.is_some() {
            return Request { denoising_end: Some(self.refiner_start), ..request };
        }
        Request {
            denoising_end: self.denoising_end,
            denoising_start: self.denoising_start,
            aesthetic_score: self.aesthetic_score,
            negative_aesthetic_score: self.negative_aesthetic_score,
            ..request
        }
    }

    /// The share that a refiner takes over at, and its name.
    pub(crate) fn described(&self) -> Option<(String, f64)> {
        let name = self.refiner.as_ref()?.file_name()?;
        Some((name.to_string_lossy().into_owned(), self.refiner_start))
    }

    /// The refiner, whose files are checked: not its weights.
    pub(crate) fn refiner(&self, options: &Options, request: &Request) -> Result<Option<Refiner>> {
        let Some(path) = &self.refiner else { return Ok(None) };
        if !(self.refiner_start > 0.0 && self.refiner_start < 1.0) {
            let problem = format!("expected more than 0 and less than 1, found {}", self.refiner_start);
            return Err(Error::option("refiner start", problem));
        }
        let model = options.model.of_refiner(path.clone());
        let blamed = |error| match error {
            Error::Option { option, problem } if option == "model" => Error::option("refiner", problem),
            other => other,
        };
        let planner: Planner = model.planner().map_err(blamed)?;
        options.cache.choose(&planner, request)?;
        let scores = [self.aesthetic_score, self.negative_aesthetic_score];
        Ok(Some(Refiner { model, start: self.refiner_start, scores }))
    }
}

impl Refiner {
    /// Goes on with what another model has begun.
    pub(crate) fn go_on(
        &self,
        options: &Options,
        request: &Request,
        latents: Latents,
        draw: impl FnOnce(&mut DiffusionPipeline, &Request) -> Result<Generation>,
    ) -> Result<Generation> {
        let mut pipeline = self.model.load()?;
        if !options.quiet {
            self.model.introduce(&pipeline);
        }
        let [aesthetic_score, negative_aesthetic_score] = self.scores;
        let request =
            Request { aesthetic_score, negative_aesthetic_score, ..request.refining(latents, self.start) };
        let cache = options.cache.choose(&pipeline, &request)?.map(|cache| cache.options);
        draw(&mut pipeline, &Request { cache, ..request })
    }
}
