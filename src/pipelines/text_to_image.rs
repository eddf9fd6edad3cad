//! Stable Diffusion: a prompt to pictures.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::loading::{check_fit, load_model};
use super::run::{Models, Plan, Run, full_calls};
use super::{LoadOptions, Progress, Statistics, StepKind, StepStatistics, StorageType, TextToImageRequest};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Gpu, Memory, PlanMode, Play, Profile, Purpose};
use crate::image::Picture;
use crate::kernels::MOST_PIXELS;
use crate::models::clip::{ClipConfig, ClipTextModel};
use crate::models::unet::{UNet, UNetConfig};
use crate::models::vae::{VaeConfig, VaeDecoder};
use crate::pipelines::Latents;
use crate::random::TorchGenerator;
use crate::schedulers::{SamplerOptions, SchedulerConfig, SchedulerKind, Trajectory};
use crate::tokenizer::ClipTokenizer;
use crate::weights::ModelDirectory;

/// Sides of a picture beyond this are taken for a mistake.
const LONGEST_SIDE: usize = 16_384;

/// Height and width of the latents where the model's configuration does not say: Stable Diffusion v1's.
const USUAL_LATENTS: [usize; 2] = [64, 64];

/// More pictures than this in one call are taken for a mistake.
const MOST_PICTURES: usize = 1024;

/// A stronger guidance than this, to either side, is taken for a mistake.
const MOST_GUIDANCE: f64 = 1e6;

/// A loaded Stable Diffusion v1 model on one GPU.
///
/// diffusers' `StableDiffusionPipeline`.
#[derive(Debug)]
pub struct TextToImage {
    gpu: Arc<Gpu>,
    memory: Memory,
    executor: Executor,
    tokenizer: ClipTokenizer,
    models: Models,
    scheduler: SchedulerConfig,
    storage: StorageType,
    load_seconds: f64,
}

/// What a run made.
#[derive(Debug)]
pub struct Generation {
    /// The pictures.
    pub pictures: Vec<Picture>,
    /// The final latents, before they are divided by the VAE's scaling factor.
    pub latents: Latents,
    /// What it took.
    pub statistics: Statistics,
    /// What the caller should tell its user: words of the prompt that were cut.
    pub warnings: Vec<String>,
}

impl TextToImage {
    /// Loads a model from a directory of the diffusers layout.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Config`] and [`Error::Weights`] for files that are missing, damaged or
    /// unsupported; [`Error::NoAdapter`], [`Error::OutOfMemory`] and [`Error::Device`] from the device.
    pub fn load(directory: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(options.device.as_deref())?);
        Self::load_on(gpu, directory, options.storage)
    }

    /// Loads a model onto a GPU that is already open.
    ///
    /// # Errors
    /// As [`TextToImage::load`].
    pub fn load_on(gpu: Arc<Gpu>, directory: impl AsRef<Path>, storage: Option<StorageType>) -> Result<Self> {
        let started = Instant::now();
        let directory = ModelDirectory::open(directory)?;
        let storage = match storage {
            Some(StorageType::F16) if !gpu.has_f16() => {
                let name = &gpu.description().name;
                return Err(Error::option(
                    "dtype",
                    format!("{name} cannot store 16-bit floats in shaders: use f32"),
                ));
            }
            Some(storage) => storage,
            None if gpu.has_f16() && !gpu.is_software() => StorageType::F16,
            None => StorageType::F32,
        };
        let tokenizer = ClipTokenizer::open(&directory.tokenizer)?;
        let scheduler = SchedulerConfig::from_file(&directory.scheduler)?;
        let clip_config = ClipConfig::from_file(&directory.text_encoder.config)?;
        let unet_config = UNetConfig::from_file(&directory.unet.config)?;
        let vae_config = VaeConfig::from_file(&directory.vae.config)?;
        check_fit(&directory, &tokenizer, &clip_config, &unet_config, &vae_config)?;

        let mut memory = Memory::new(Arc::clone(&gpu));
        let element = storage.element();
        let clip =
            load_model(&directory.text_encoder, &mut memory, "text_encoder", element, |file, loader| {
                ClipTextModel::load(clip_config, file, loader)
            })?;
        let unet = load_model(&directory.unet, &mut memory, "unet", element, |file, loader| {
            UNet::load(unet_config, file, loader)
        })?;
        let vae = load_model(&directory.vae, &mut memory, "vae", element, |file, loader| {
            VaeDecoder::load(vae_config, file, loader)
        })?;
        memory.flush()?;
        let executor = Executor::new(Arc::clone(&gpu));
        Ok(Self {
            gpu,
            memory,
            executor,
            tokenizer,
            models: Models { clip, unet, vae },
            scheduler,
            storage,
            load_seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// The GPU that it runs on.
    #[must_use]
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// How weights and activations are stored.
    #[must_use]
    pub fn storage(&self) -> StorageType {
        self.storage
    }

    /// The sampler that the model's own configuration names, if it is one of ours.
    #[must_use]
    pub fn own_scheduler(&self) -> Option<SchedulerKind> {
        self.scheduler.kind()
    }

    /// Number of skip branches; DeepCache's branch is below it.
    #[must_use]
    pub fn skip_count(&self) -> usize {
        self.models.unet.skip_count()
    }

    /// From now on every dispatch is timed by itself, which is slower.
    pub fn start_profile(&mut self) {
        self.executor.start_profile();
    }

    /// Time on the GPU by label since [`TextToImage::start_profile`].
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
    /// Pictures are made one after the other, so that memory does not grow with their number.
    ///
    /// # Errors
    /// [`Error::Option`] for a request that cannot be honoured, [`Error::Cancelled`],
    /// [`Error::Limit`] and [`Error::OutOfMemory`] if the picture is too large, [`Error::NotFinite`], and faults
    /// of the device.
    pub fn generate(
        &mut self,
        request: &TextToImageRequest,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let started = Instant::now();
        let shape = self.latents_shape(request)?;
        let kind = self.scheduler_kind(request)?;
        let options = SamplerOptions { eta: request.eta, ..SamplerOptions::new(kind, request.steps) };
        let trajectory = self.scheduler.trajectory(&options)?;
        let calls = full_calls(request.cache.as_ref().map(|cache| &cache.schedule), trajectory.calls.len())?;
        let guided = request.guidance_scale > 1.0;
        let (ids, warnings) = self.tokenize(request, guided)?;

        if progress(Progress::Encoding).is_break() {
            return Err(Error::Cancelled { completed: 0, steps: calls.len() });
        }
        let [_, _, height, width] = shape;
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let plan = Plan {
            size: [height, width],
            tokens: self.tokenizer.max_length(),
            trajectory: &trajectory,
            guidance_scale: guided.then_some(request.guidance_scale as f32),
            branch: request.cache.as_ref().map(|cache| cache.branch),
            element: self.storage.element(),
        };
        let run = Run::prepare(&self.models, &plan, &mut self.memory, &mut self.executor)?;
        // Drawn only now: a picture that the device cannot hold is refused before its noise is made.
        let mut generator = TorchGenerator::new(request.seed);
        let noise = match &request.latents {
            Some(latents) => Ok(latents.clone()),
            None => Latents::new(shape, generator.normal(shape.iter().product())),
        };
        let outcome = noise.and_then(|noise| {
            self.play(&run, &trajectory, &calls, &ids, &noise, generator, started, &mut progress)
        });
        run.release(&mut self.memory);
        let (pictures, latents, statistics) = outcome?;
        Ok(Generation { pictures, latents, statistics, warnings })
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one run, made just before the only call")]
    fn play(
        &mut self,
        run: &Run,
        trajectory: &Trajectory,
        calls: &[bool],
        ids: &[u32],
        noise: &Latents,
        mut generator: TorchGenerator,
        started: Instant,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(Vec<Picture>, Latents, Statistics)> {
        let (memory, executor) = (&mut self.memory, &mut self.executor);
        run.encode(&self.models, trajectory, ids, memory, executor)?;
        let encode_s = started.elapsed().as_secs_f64();

        let [count, channels, height, width] = noise.shape();
        let steps = count * calls.len();
        // Drawn for all pictures at once, call after call, as diffusers does.
        let mut step_noise = Vec::new();
        for call in &trajectory.calls {
            step_noise.push(if call.uses_noise {
                Some(Latents::new(noise.shape(), generator.normal(noise.values().len()))?)
            } else {
                None
            });
        }
        let started = Instant::now();
        let mut finals = Vec::with_capacity(count);
        let mut plays = Vec::with_capacity(steps);
        let mut durations = Vec::with_capacity(steps);
        for picture in 0..count {
            #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
            let sigma = trajectory.initial_sigma as f32;
            let latents: Vec<f32> = noise.channels_last(picture).iter().map(|value| value * sigma).collect();
            run.start(&latents, memory)?;
            let first = plays.len();
            for (call, &full) in calls.iter().enumerate() {
                let noise = step_noise[call].as_ref().map(|noise| noise.channels_last(picture));
                plays.push(run.step(call, full, noise.as_deref(), memory, executor)?);
                let completed = plays.len();
                if progress(Progress::Denoising { completed, of: steps, full }).is_break() {
                    executor.finish()?;
                    return Err(Error::Cancelled { completed, steps });
                }
            }
            executor.finish()?;
            durations.extend(executor.durations(&plays[first..])?);
            finals.push(run.latents(memory)?);
        }
        let latents = Latents::from_channels_last([channels, height, width], &finals)?;
        let denoise_s = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let scaling = self.models.vae.config().scaling_factor;
        let mut pictures = Vec::with_capacity(count);
        for (picture, values) in finals.iter().enumerate() {
            if progress(Progress::Decoding { picture, of: count }).is_break() {
                return Err(Error::Cancelled { completed: steps, steps });
            }
            let scaled: Vec<f32> = values.iter().map(|&value| value / scaling).collect();
            let (width, height, pixels) = run.decode(&scaled, memory, executor)?;
            pictures.push(Picture { width, height, pixels });
        }
        let decode_s = started.elapsed().as_secs_f64();
        let times = [encode_s, denoise_s, decode_s];
        let statistics = self.statistics(run, trajectory, calls, &plays, &durations, times);
        Ok((pictures, latents, statistics))
    }

    fn scheduler_kind(&self, request: &TextToImageRequest) -> Result<SchedulerKind> {
        request.scheduler.or_else(|| self.scheduler.kind()).ok_or_else(|| {
            let class = self.scheduler.class_name().unwrap_or("none");
            let names = SchedulerKind::ALL.map(SchedulerKind::name).join(", ");
            let problem =
                format!("the model's own scheduler, {class}, is not supported; choose one of {names}");
            Error::option("scheduler", problem)
        })
    }

    /// `[N, C, h, w]` of the request's latents, which decide size and number of the pictures.
    fn latents_shape(&self, request: &TextToImageRequest) -> Result<[usize; 4]> {
        let (unet, vae) = (self.models.unet.config(), self.models.vae.config());
        let factor = vae.upsampling();
        if request.guidance_scale.is_nan() || request.guidance_scale.abs() > MOST_GUIDANCE {
            let problem = format!(
                "{} is not a number from -{MOST_GUIDANCE} to {MOST_GUIDANCE}",
                request.guidance_scale
            );
            return Err(Error::option("guidance scale", problem));
        }
        let in_range = |count: usize| {
            if count == 0 || count > MOST_PICTURES {
                let problem = format!("{count} is not between 1 and {MOST_PICTURES}");
                return Err(Error::option("count", problem));
            }
            Ok(())
        };
        if let Some(latents) = &request.latents {
            let [count, channels, height, width] = latents.shape();
            if channels != unet.in_channels {
                let problem = format!("have {channels} channels, this model needs {}", unet.in_channels);
                return Err(Error::option("latents", problem));
            }
            in_range(count)?;
            for (option, wanted, side) in
                [("width", request.width, width), ("height", request.height, height)]
            {
                let side = side.saturating_mul(factor);
                if let Some(wanted) = wanted.filter(|wanted| *wanted != side) {
                    let problem = format!("{wanted} is not that of the given latents, {side}");
                    return Err(Error::option(option, problem));
                }
                if side > LONGEST_SIDE {
                    let problem = format!("make the {option} {side}, at most {LONGEST_SIDE} is possible");
                    return Err(Error::option("latents", problem));
                }
            }
            check_pixels(height * factor, width * factor)?;
            return Ok(latents.shape());
        }
        in_range(request.count)?;
        let [own_height, own_width] = unet.sample_size.unwrap_or(USUAL_LATENTS).map(|extent| extent * factor);
        let side = |option: &str, wanted: Option<usize>, own: usize| {
            let side = wanted.unwrap_or(own);
            if side == 0 || !side.is_multiple_of(factor) || side > LONGEST_SIDE {
                let problem =
                    format!("{side} is not a multiple of {factor} between {factor} and {LONGEST_SIDE}");
                return Err(Error::option(option, problem));
            }
            Ok(side / factor)
        };
        let height = side("height", request.height, own_height)?;
        let width = side("width", request.width, own_width)?;
        check_pixels(height * factor, width * factor)?;
        Ok([request.count, unet.in_channels, height, width])
    }

    /// Token ids, the negative prompt's first, and what was cut.
    fn tokenize(&self, request: &TextToImageRequest, guided: bool) -> Result<(Vec<u32>, Vec<String>)> {
        let mut ids = Vec::new();
        let mut warnings = Vec::new();
        let negative = guided.then_some(("negative prompt", &request.negative_prompt));
        for (name, text) in negative.into_iter().chain([("prompt", &request.prompt)]) {
            let encoded = self.tokenizer.encode(text)?;
            if let Some(cut) = encoded.truncated {
                let most = self.tokenizer.max_length() - 2;
                warnings.push(format!(
                    "the {name} is longer than {most} tokens; this part has no effect: \"{cut}\""
                ));
            }
            ids.extend(encoded.ids);
        }
        Ok((ids, warnings))
    }

    fn statistics(
        &self,
        run: &Run,
        trajectory: &Trajectory,
        calls: &[bool],
        plays: &[Play],
        durations: &[Option<f64>],
        [encode_s, denoise_s, decode_s]: [f64; 3],
    ) -> Statistics {
        let steps = plays.iter().zip(durations).enumerate().map(|(position, (play, gpu))| {
            let index = position % calls.len();
            StepStatistics {
                index,
                timestep: trajectory.timesteps[index],
                kind: if calls[index] { StepKind::Full } else { StepKind::Shallow },
                gpu_ms: gpu.map(|seconds| 1e3 * seconds),
                cpu_ms: 1e3 * play.encode_seconds,
            }
        });
        let adapter = self.gpu.description();
        let plan = self.executor.plan();
        let bytes = |purpose| self.memory.bytes(purpose);
        let [weights_bytes, persistent_bytes, cache_bytes] =
            [bytes(Purpose::Weights), bytes(Purpose::Persistent), bytes(Purpose::Cache)];
        Statistics {
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            driver: adapter.driver.clone(),
            dtype: self.storage.to_string(),
            load_s: self.load_seconds,
            encode_s,
            denoise_s,
            decode_s,
            steps: steps.collect(),
            submissions: plays.iter().map(|play| play.submissions).sum(),
            dispatches_full: run.dispatches[0],
            dispatches_shallow: run.dispatches[1],
            macs_full: run.multiply_accumulates[0],
            macs_shallow: run.multiply_accumulates[1],
            weights_bytes,
            activation_bytes: plan.bytes(),
            largest_live_bytes: plan.largest_live_set,
            persistent_bytes,
            cache_bytes,
            peak_bytes: weights_bytes + persistent_bytes + cache_bytes + plan.bytes(),
        }
    }
}

fn check_pixels(height: usize, width: usize) -> Result<()> {
    let pixels = height * width;
    if pixels > MOST_PIXELS {
        let problem = format!("{width}x{height} are {pixels} pixels, at most {MOST_PIXELS} are possible");
        return Err(Error::option("width and height", problem));
    }
    Ok(())
}
