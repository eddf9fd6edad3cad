//! A loaded model and its runs, from a request to pictures.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use super::cache::CacheRun;
use super::checks::usual_steps;
use super::drawn::Drawn;
use super::faults::{self, Watch};
use super::frame::Plan;
use super::model::Model;
use super::prepared::{Prepared, prepare};
use super::residency::ModelWeights;
use super::run::Run;
use super::source::Source;
use super::statistics::{Played, StepKind, Times};
use super::{Latents, Progress, Request, Statistics, StorageType};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Gpu, Memory, PlanMode, Profile};
use crate::image::Picture;
use crate::random::NoiseSource;
use crate::schedulers::SchedulerKind;
use crate::weights::{Lora, ModelKind, WeightStorage};

/// A loaded model on one GPU: Stable Diffusion v1, v2 or XL, latent diffusion on classes, or DDPM.
///
/// As diffusers' `DiffusionPipeline`, it finds out from the files which of them it is.
#[derive(Debug)]
pub struct DiffusionPipeline {
    pub(super) gpu: Arc<Gpu>,
    pub(super) memory: Memory,
    pub(super) executor: Executor,
    pub(super) model: Model,
    pub(super) weights: ModelWeights,
    pub(super) storage: StorageType,
    pub(super) weight_storage: WeightStorage,
    pub(super) load_seconds: f64,
    /// Those of the model's files, then those of its LoRAs.
    pub(super) warnings: Vec<String>,
    /// How many of them do not depend on the LoRAs.
    pub(super) own_warnings: usize,
    pub(super) loras: Vec<Lora>,
}

/// What a run made.
#[derive(Debug)]
pub struct Generation {
    /// The pictures; none where the run [ends early](Request::denoising_end).
    pub pictures: Vec<Picture>,
    /// The final latents, before they are divided by the autoencoder's scaling factor; the values of the pictures
    /// themselves, about -1 to 1, for a model without an autoencoder.
    pub latents: Latents,
    /// The scale of guidance that was used; `None` where there was none.
    pub guidance_scale: Option<f32>,
    /// What it took.
    pub statistics: Statistics,
    /// What the caller should tell its user: words of the prompt that were cut, a cache that cannot pay.
    pub warnings: Vec<String>,
}

impl DiffusionPipeline {
    /// What the caller should tell its user about the model's files, and those of its LoRAs.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The GPU that it runs on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// What the model makes pictures from.
    #[must_use]
    pub fn kind(&self) -> ModelKind {
        self.model.conditioner.kind()
    }

    /// Number of classes of a class-conditional model, without the one that stands for none; 0 for other models.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.model.conditioner.classes()
    }

    /// How weights and activations are stored, but for large matrices in 8 bits.
    #[must_use]
    pub fn storage(&self) -> StorageType {
        self.storage
    }

    /// How the matrices of U-Net and text encoders are stored.
    #[must_use]
    pub fn weight_storage(&self) -> WeightStorage {
        self.weight_storage
    }

    /// The sampler that the model's own configuration names, if it is one of ours.
    #[must_use]
    pub fn own_scheduler(&self) -> Option<SchedulerKind> {
        self.model.scheduler.kind()
    }

    /// Denoising steps of a request that does not say: those of the paper's experiments.
    #[must_use]
    pub fn usual_steps(&self, scheduler: Option<SchedulerKind>) -> usize {
        usual_steps(&self.model, scheduler.or_else(|| self.own_scheduler()) == Some(SchedulerKind::Ddpm))
    }

    /// Number of skip branches; DeepCache's branch is below it.
    #[must_use]
    pub fn skip_count(&self) -> usize {
        self.model.unet.skip_count()
    }

    /// Residual blocks of a down block, by which the published codes number their branches.
    #[must_use]
    pub fn layers_per_block(&self) -> usize {
        self.model.unet.config().layers_per_block
    }

    /// From now on every dispatch is timed by itself, which is slower.
    pub fn start_profile(&mut self) {
        self.executor.start_profile();
    }

    /// Time on the GPU by label since [`DiffusionPipeline::start_profile`].
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.executor.profile()
    }

    /// How the memory of the next run is planned; for finding faults.
    pub fn set_plan_mode(&mut self, mode: PlanMode) {
        self.executor.set_plan_mode(mode);
    }

    /// Makes the pictures of a request. `progress` is called between steps; when it answers
    /// [`ControlFlow::Break`] the run stops there.
    ///
    /// Pictures are made one after the other, so that memory does not grow with their number. Every run has kept
    /// features of its own: none outlives a change of shape, model, condition or guidance.
    ///
    /// # Errors
    /// [`Error::Option`] for a request that cannot be honoured, [`Error::Cancelled`],
    /// [`Error::Limit`] and [`Error::OutOfMemory`] if the picture is too large, [`Error::NotFinite`], and faults
    /// of the device.
    pub fn generate(
        &mut self,
        request: &Request,
        mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let started = Instant::now();
        let prepared = prepare(&self.model, request)?;
        let calls = prepared.trajectory.calls.len();
        let mut cache = match &request.cache {
            Some(options) => CacheRun::new(options, calls)?,
            None => None,
        };
        if progress(Progress::Encoding).is_break() {
            return Err(Error::Cancelled { completed: 0, steps: calls * prepared.shape[0] });
        }
        let plan = prepared.plan(self.storage, self.weights.are_staged());
        let kept = cache.as_ref().map(CacheRun::plan);
        let compiled = self.executor.compile_seconds();
        let pictures = prepared.source.as_ref().map(Source::pictures).unwrap_or_default();
        let mut run = Run::prepare(&plan, kept, &pictures, self)?;
        let compile = self.executor.compile_seconds() - compiled;
        // Drawn only now: a picture that the device cannot hold is refused before its noise is made.
        let mut source = request.generator.seeded(request.seed);
        let drawn = Drawn::new(&self.model, &run, &prepared, request.latents.as_ref(), &mut source);
        let outcome = drawn.and_then(|drawn| {
            let mut play =
                Play { pipeline: self, run: &mut run, prepared: &prepared, plan: &plan, started, compile };
            play.all(&mut cache, &drawn, source, &mut progress)
        });
        run.release(&mut self.memory);
        drop(run);
        if self.weights.are_staged() {
            self.weights.free(&mut self.memory);
            // Buffers are given back when the device is asked for something after their last user has gone.
            self.memory.flush().or_else(|error| outcome.as_ref().map_or(Ok(()), |_| Err(error)))?;
        }
        let (pictures, latents, statistics) = outcome?;
        let guidance_scale = prepared.guidance.scale();
        Ok(Generation { pictures, latents, guidance_scale, statistics, warnings: prepared.warnings })
    }
}

/// How values are stored: as is wanted, or as suits the device of this name.
pub(super) fn storage(
    name: &str,
    f16: bool,
    software: bool,
    wanted: Option<StorageType>,
) -> Result<StorageType> {
    expect_storable(name, f16, wanted)?;
    match wanted {
        Some(storage) => Ok(storage),
        None if f16 && !software => Ok(StorageType::F16),
        None => Ok(StorageType::F32),
    }
}

/// Refuses values of 16 bits where the device of this name cannot store them.
pub(super) fn expect_storable(name: &str, f16: bool, wanted: Option<StorageType>) -> Result<()> {
    if f16 || wanted != Some(StorageType::F16) {
        return Ok(());
    }
    let problem = format!("{name} cannot store 16-bit floats in shaders: use f32");
    Err(Error::option("dtype", problem))
}

/// The plays of one run.
pub(super) struct Play<'a> {
    pub(super) pipeline: &'a mut DiffusionPipeline,
    pub(super) run: &'a mut Run,
    prepared: &'a Prepared,
    plan: &'a Plan<'a>,
    /// When the run was asked for.
    started: Instant,
    /// Seconds that its pipelines were compiled in.
    compile: f64,
}

impl Play<'_> {
    fn all(
        &mut self,
        cache: &mut Option<CacheRun>,
        drawn: &Drawn,
        mut source: NoiseSource,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(Vec<Picture>, Latents, Statistics)> {
        let Self { prepared, started: asked, compile, .. } = *self;
        let trajectory = &prepared.trajectory;
        self.pipeline.executor.forget_durations();
        self.run.begin(trajectory, self.pipeline)?;
        let prepare = asked.elapsed().as_secs_f64();
        self.encode(0)?;
        let encode = asked.elapsed().as_secs_f64();

        let noise = &drawn.noise;
        let [count, channels, height, width] = noise.shape();
        let steps = count * trajectory.calls.len();
        // Drawn for all pictures at once, call after call, as diffusers does.
        let mut step_noise = Vec::new();
        for call in &trajectory.calls {
            step_noise.push(if call.uses_noise {
                Some(Latents::new(noise.shape(), source.normal(noise.values().len()))?)
            } else {
                None
            });
        }
        if let Some(source) = &prepared.source {
            let masked = drawn.masked.as_ref().map(|latents| latents.channels_last(0));
            self.run.write_mask(source.mask(), masked.as_deref(), &mut self.pipeline.memory)?;
        }
        let started = Instant::now();
        let mut finals = Vec::with_capacity(count);
        let mut played = Vec::with_capacity(steps);
        for picture in 0..count {
            if picture > 0 && prepared.inputs.len() > 1 {
                self.encode(picture)?;
            }
            let sample = drawn.sample(picture, prepared);
            self.run.start(&sample, &mut self.pipeline.memory)?;
            if let Some(clean) = &drawn.clean {
                let (clean, noise) = (clean.channels_last(0), noise.channels_last(picture));
                self.run.write_outside(&clean, &noise, &mut self.pipeline.memory)?;
            }
            let first = played.len();
            if let Some(cache) = cache {
                cache.start();
            }
            let mut watch = Watch::default();
            for (call, noise) in step_noise.iter().enumerate() {
                let noise = noise.as_ref().map(|noise| noise.channels_last(picture));
                let previews = prepared.previews.filter(|previews| previews.follow(call));
                let before = previews.map(|_| self.run.denoised(&self.pipeline.memory)).transpose()?;
                played.push(self.call(call, cache.as_mut(), noise.as_deref())?);
                let memory = &self.pipeline.memory;
                if let Some(fault) = watch.look(call, || self.run.read_faults(memory))? {
                    return Err(self.explain(fault, cache.as_mut(), &sample, (&step_noise, picture)));
                }
                let (completed, full) = (played.len(), played[played.len() - 1].kind == StepKind::Full);
                let mut stopped = progress(Progress::Denoising { completed, of: steps, full }).is_break();
                if let (Some(previews), Some(before), false) = (previews, before, stopped) {
                    let preview = previews.make(call, &before, prepared, self.run, self.pipeline)?;
                    stopped = preview.is_some_and(|preview| {
                        progress(Progress::Preview { picture, preview: &preview }).is_break()
                    });
                }
                if stopped {
                    self.pipeline.executor.finish()?;
                    return Err(Error::Cancelled { completed, steps });
                }
            }
            self.settle(&mut played[first..], cache.as_mut())?;
            if let Some(fault) = faults::first(&self.run.read_faults(&self.pipeline.memory)?.wait()?) {
                return Err(self.explain(fault, cache.as_mut(), &sample, (&step_noise, picture)));
            }
            finals.push(self.run.denoised(&self.pipeline.memory)?);
        }
        let latents = Latents::from_channels_last([channels, height, width], &finals)?;
        let denoise = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let scaling = self.pipeline.model.decoder.scaling_factor();
        let mut pictures = Vec::with_capacity(count);
        let decoded = finals.iter().filter(|_| prepared.decodes);
        for (picture, values) in decoded.enumerate() {
            if progress(Progress::Decoding { picture, of: count }).is_break() {
                return Err(Error::Cancelled { completed: steps, steps });
            }
            let scaled: Vec<f32> = values.iter().map(|&value| value / scaling).collect();
            let (width, height, pixels) = self.run.decode(&scaled, self.plan, self.pipeline)?;
            pictures.push(Picture { width, height, pixels });
        }
        let decode = started.elapsed().as_secs_f64();
        let times = Times { prepare, compile, encode, denoise, decode };
        let statistics = Statistics::gather(self.pipeline, self.run, trajectory, played, times);
        Ok((pictures, latents, statistics))
    }

    fn encode(&mut self, picture: usize) -> Result<()> {
        self.run.encode(&self.prepared.inputs[picture], self.plan, self.pipeline)
    }

    /// Decides and submits one U-Net call.
    pub(super) fn call(
        &mut self,
        call: usize,
        mut cache: Option<&mut CacheRun>,
        noise: Option<&[f32]>,
    ) -> Result<Played> {
        let DiffusionPipeline { memory, executor, weights, .. } = &mut *self.pipeline;
        let shallow = match &mut cache {
            Some(cache) => cache.next(call)?,
            None => None,
        };
        let play = self.run.step(call, shallow, noise, (weights, memory, executor))?;
        if let Some(cache) = cache {
            cache.measured(call, self.run.read_drift(memory)?);
        }
        let kind = if shallow.is_some() { StepKind::Shallow } else { StepKind::Full };
        Ok(Played { call, kind, play, gpu_seconds: None, drift: None })
    }

    /// Waits for a picture's calls, and notes what they took.
    fn settle(&mut self, played: &mut [Played], cache: Option<&mut CacheRun>) -> Result<()> {
        self.pipeline.executor.finish()?;
        let plays: Vec<_> = played.iter().map(|played| played.play.clone()).collect();
        let durations = self.pipeline.executor.durations(&plays)?;
        let drifts = cache.map(CacheRun::drifts).transpose()?.unwrap_or_default();
        for (index, (played, duration)) in played.iter_mut().zip(durations).enumerate() {
            played.gpu_seconds = duration;
            played.drift = drifts.get(index).copied().flatten();
        }
        Ok(())
    }
}
