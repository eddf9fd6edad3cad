//! One run on the device: its memory, its recordings, its programs.

use crate::deepcache::Reuse;
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Play, Program, Purpose};
use crate::kernels::activation::{Activation, activation};
use crate::kernels::dynamic_threshold::dynamic_threshold;
use crate::kernels::forecast::{WEIGHTS, forecast};
use crate::kernels::guidance::{GuidanceConfig, guidance};
use crate::kernels::pixels::pixels;
use crate::kernels::scale_model_input::scale_model_input;
use crate::kernels::scheduler_step::scheduler_step;
use crate::kernels::similarity::{GROUPS, similarity};
use crate::models::unet::{Conditioning, Flow};
use crate::pipelines::model::Model;
use crate::pipelines::table::{row_length, rows};
use crate::schedulers::{Limit, Trajectory};
use crate::tensor::{ElementType, Tensor};

/// What decides the shapes of a run.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Height and width of the sample.
    pub(super) size: [usize; 2],
    pub(super) trajectory: &'a Trajectory,
    /// `None` without classifier-free guidance.
    pub(super) guidance: Option<GuidanceConfig>,
    pub(super) cache: Option<CachePlan>,
    pub(super) element: ElementType,
}

/// What a run keeps between its calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachePlan {
    /// Skip index of the kept feature.
    pub(super) branch: usize,
    pub(super) reuse: Reuse,
    /// Whether the drift of the deepest live skip tensor is measured.
    pub(super) measures: bool,
}

/// Everything of one run that lies on the device, except the weights.
#[derive(Debug)]
pub(super) struct Run {
    /// `[1 or 2, T]`: what stands for no condition first. `None` for a model without a condition.
    ids: Option<Tensor>,
    conditioning: Conditioning,
    /// `[1 + history, h * w * C]`.
    state: Tensor,
    table: Tensor,
    /// Noise of the current call, `[1, h, w, C]`, for samplers that draw any.
    noise: Option<Tensor>,
    cache: Option<Cache>,
    /// What is decoded, `[1, h, w, C]`.
    sample: Tensor,
    /// `[1, H, W]`, packed.
    pixels: Tensor,
    programs: Programs,
    pub(super) dispatches: [usize; 2],
    pub(super) multiply_accumulates: [u64; 2],
}

/// What outlives a call.
#[derive(Debug)]
struct Cache {
    /// Kept features of the last full calls, the newest first.
    features: Vec<Tensor>,
    /// Weights of the features in the current call, `[S, 3]`, where they are extrapolated.
    weights: Option<Tensor>,
    drift: Option<Drift>,
}

/// How far the deepest live skip tensor has moved since the last full call.
#[derive(Debug)]
struct Drift {
    /// The skip tensor of the last full call.
    reference: Tensor,
    /// `[1, 64, 4]`.
    sums: Tensor,
}

impl Cache {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let drift = self.drift.as_ref().map(|drift| [&drift.reference, &drift.sums]);
        self.features.iter().chain(&self.weights).chain(drift.into_iter().flatten())
    }
}

#[derive(Debug)]
struct Programs {
    condition: Program,
    full: Program,
    shallow: Option<Program>,
    decode: Program,
}

impl Run {
    /// Records the run, allocates what it keeps, and prepares its programs over one set of slots.
    pub(super) fn prepare(
        model: &Model,
        plan: &Plan<'_>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Self> {
        let copies = if plan.guidance.is_some() { 2 } else { 1 };
        let channels = model.unet.config().in_channels;
        let [height, width] = plan.size;
        let trajectory = plan.trajectory;
        let shape = [1, height, width, channels];
        let calls = trajectory.calls.len();

        let tokens = model.conditioner.tokens();
        let ids = (tokens > 0).then(|| Tensor::external("ids", [copies, tokens], ElementType::U32));
        let conditioning = model.unet.conditioning(copies, tokens, calls);
        let planes = [1 + trajectory.history, height * width * channels];
        let state = Tensor::external("latents", planes, ElementType::F32);
        let row = row_length(trajectory);
        let table = Tensor::external("scheduler_table", [calls, row], ElementType::F32);
        let draws = trajectory.calls.iter().any(|call| call.uses_noise);
        let noise = draws.then(|| Tensor::external("noise", shape, ElementType::F32));
        let stored = model.decoder.sample_element(plan.element);
        let sample = Tensor::external("decoded_sample", shape, stored);

        // 1. the condition, and what follows from it once per run
        let mut condition = executor.recording("condition");
        let context = match &ids {
            Some(ids) => model.conditioner.record(&mut condition, ids)?, // [N, T, D]
            None => None,
        };
        {
            let unet = &mut condition.scope("unet");
            model.unet.record_conditioning(unet, context.as_ref(), &conditioning)?;
        }

        // 2. a full and a shallow step, each with guidance and the scheduler's update at its end
        let step = Step { state: &state, table: &table, noise: noise.as_ref(), shape, copies, plan };
        let (full, shallow, cache) = step.record(model, &conditioning, executor)?;

        // 3. the picture
        let mut decode = executor.recording("decode");
        let image = model.decoder.record(&mut decode, &sample)?; // [1, H, W, 3]
        let packed = pixels(&mut decode, &image)?; // [1, H, W]
        let pixels = Tensor::external("pixels", packed.shape().clone(), ElementType::U32);
        decode.place(&packed, &pixels);

        let own = [&state, &table, &sample, &pixels];
        let persistent: Vec<&Tensor> = conditioning.tensors().chain(own).chain(&noise).chain(&ids).collect();
        let kept: Vec<&Tensor> = cache.iter().flat_map(Cache::tensors).collect();
        let mut recordings = vec![&condition, &full, &decode];
        recordings.extend(&shallow);
        // What is too large for this device is found before anything is allocated.
        let programs = memory
            .check(&recordings)
            .and_then(|()| memory.allocate(persistent.iter().copied(), Purpose::Persistent))
            .and_then(|()| memory.allocate(kept.iter().copied(), Purpose::Cache))
            .and_then(|()| executor.prepare(memory, &recordings))
            .inspect_err(|_| {
                for tensor in persistent.iter().chain(&kept) {
                    memory.release(tensor);
                }
            })?;
        let mut programs = programs.into_iter();
        let mut next = || programs.next().expect("a program for every recording");
        let programs = Programs {
            condition: next(),
            full: next(),
            decode: next(),
            shallow: shallow.is_some().then(next),
        };
        let shallow = programs.shallow.as_ref();
        Ok(Self {
            ids,
            state,
            table,
            noise,
            cache,
            sample,
            pixels,
            dispatches: [programs.full.dispatches(), shallow.map_or(0, Program::dispatches)],
            multiply_accumulates: [
                programs.full.cost().multiply_accumulates,
                shallow.map_or(0, |program| program.cost().multiply_accumulates),
            ],
            conditioning,
            programs,
        })
    }

    /// Gives the run's memory back.
    pub(super) fn release(&self, memory: &mut Memory) {
        let own = [&self.state, &self.table, &self.sample, &self.pixels];
        let cache = self.cache.iter().flat_map(Cache::tensors);
        for tensor in self.conditioning.tensors().chain(own).chain(&self.noise).chain(&self.ids).chain(cache)
        {
            memory.release(tensor);
        }
    }

    /// Writes what is constant over the run.
    pub(super) fn begin(&self, model: &Model, trajectory: &Trajectory, memory: &mut Memory) -> Result<()> {
        let timesteps = floats(&trajectory.timesteps);
        memory.write(self.conditioning.timesteps(), 0, bytemuck::cast_slice(&timesteps))?;
        let frequencies = model.unet.frequencies();
        memory.write(self.conditioning.frequencies(), 0, bytemuck::cast_slice(&frequencies))?;
        memory.write(&self.table, 0, bytemuck::cast_slice(&rows(trajectory)))
    }

    /// Encodes a condition, and computes what follows from it.
    pub(super) fn encode(&self, ids: &[u32], memory: &mut Memory, executor: &mut Executor) -> Result<()> {
        if let Some(tensor) = &self.ids {
            memory.write(tensor, 0, bytemuck::cast_slice(ids))?;
        }
        executor.play(&self.programs.condition)?;
        executor.finish()
    }

    /// Starts a picture from its initial sample, `[h, w, C]`, already of the scheduler's sigma.
    pub(super) fn start(&self, sample: &[f32], memory: &mut Memory) -> Result<()> {
        let planes = self.state.shape().extents()[0];
        let mut state = sample.to_vec();
        state.resize(planes * sample.len(), 0.0);
        memory.write(&self.state, 0, bytemuck::cast_slice(&state))
    }

    /// Submits one U-Net call, a shallow one where it is given the weights of the kept features.
    pub(super) fn step(
        &self,
        call: usize,
        shallow: Option<[f64; WEIGHTS]>,
        noise: Option<&[f32]>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Play> {
        if let (Some(tensor), Some(values)) = (&self.noise, noise) {
            memory.write(tensor, 0, bytemuck::cast_slice(values))?;
        }
        let row = u32::try_from(call).unwrap_or(u32::MAX);
        memory.write(self.conditioning.step(), 0, bytemuck::bytes_of(&row))?;
        let (Some(program), Some(weights)) = (&self.programs.shallow, shallow) else {
            return executor.play(&self.programs.full);
        };
        if let Some(tensor) = self.cache.as_ref().and_then(|cache| cache.weights.as_ref()) {
            let offset = u64::from(row) * (WEIGHTS * size_of::<f32>()) as u64;
            memory.write(tensor, offset, bytemuck::cast_slice(&floats(&weights)))?;
        }
        executor.play(program)
    }

    /// Asks for the drift that the last call measured, without waiting for it.
    ///
    /// # Errors
    /// Faults of the device.
    pub(super) fn read_drift(&self, memory: &Memory) -> Result<Option<PendingRead>> {
        let drift = self.cache.as_ref().and_then(|cache| cache.drift.as_ref());
        drift.map(|drift| memory.read_later(&drift.sums)).transpose()
    }

    /// The denoised sample, `[h, w, C]`, once everything submitted is done.
    pub(super) fn denoised(&self, memory: &Memory) -> Result<Vec<f32>> {
        let mut values: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&self.state)?);
        values.truncate(self.state.shape().channels());
        Ok(values)
    }

    /// Decodes a sample, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn decode(
        &self,
        sample: &[f32],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<(u32, u32, Vec<u8>)> {
        let bytes = match self.sample.element() {
            ElementType::F16 => {
                sample.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
            }
            _ => bytemuck::cast_slice(sample).to_vec(),
        };
        memory.write(&self.sample, 0, &bytes)?;
        executor.play(&self.programs.decode)?;
        let packed = memory.read(&self.pixels)?;
        let extents = self.pixels.shape().extents();
        let side = |index: usize| u32::try_from(extents[index]).unwrap_or(u32::MAX);
        let rgb = packed.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Ok((side(2), side(1), rgb))
    }
}

/// What the recordings of a step share.
struct Step<'a> {
    state: &'a Tensor,
    table: &'a Tensor,
    noise: Option<&'a Tensor>,
    shape: [usize; 4],
    copies: usize,
    plan: &'a Plan<'a>,
}

impl Step<'_> {
    /// Records a full step, a shallow one if there is a cache, and what lies between them.
    fn record(
        &self,
        model: &Model,
        conditioning: &Conditioning,
        executor: &Executor,
    ) -> Result<(Recording, Option<Recording>, Option<Cache>)> {
        let unet = &model.unet;
        let [_, height, width, _] = self.shape;
        let Some(plan) = self.plan.cache else {
            let full = self.around("full", conditioning, executor, |recording, sample| {
                let flow = unet.record_full(&mut recording.scope("unet"), sample, conditioning, &[])?;
                Ok(flow.prediction)
            })?;
            return Ok((full, None, None));
        };
        let branch = plan.branch;
        let mut features = Vec::with_capacity(plan.reuse.features());
        for _ in 0..plan.reuse.features() {
            features.push(unet.kept_feature(branch, self.copies, height, width)?);
        }
        let extrapolates = plan.reuse != Reuse::Hold;
        let calls = self.plan.trajectory.calls.len();
        let weights = extrapolates.then(|| Tensor::external("weights", [calls, WEIGHTS], ElementType::F32));
        let mut drift = None;
        let full = self.around("full", conditioning, executor, |recording, sample| {
            push(&mut recording.scope("cache"), &features)?;
            let keep = [(branch, &features[0])];
            let flow = unet.record_full(&mut recording.scope("unet"), sample, conditioning, &keep)?;
            if plan.measures {
                let skip = &flow.skips[branch];
                let (reference, sums) = (
                    Tensor::external("drift_reference", skip.shape().clone(), skip.element()),
                    Tensor::external("drift_sums", [1, GROUPS, 4], ElementType::F32),
                );
                let recording = &mut recording.scope("cache");
                similarity(recording, &reference, skip, &sums, 0)?;
                let copy = activation(recording, skip, Activation::None)?;
                recording.place(&copy, &reference);
                drift = Some(Drift { reference, sums });
            }
            Ok(flow.prediction)
        })?;
        let shallow = self.around("shallow", conditioning, executor, |recording, sample| {
            let feature = match &weights {
                Some(weights) => {
                    let recording = &mut recording.scope("cache");
                    forecast(recording, &features, weights, conditioning.step())? // [N, H, W, C]
                }
                None => features[0].clone(),
            };
            let Flow { prediction, skips } =
                unet.record_shallow(&mut recording.scope("unet"), sample, conditioning, branch, &feature)?;
            if let Some(drift) = &drift {
                let recording = &mut recording.scope("cache");
                similarity(recording, &drift.reference, &skips[branch], &drift.sums, 0)?;
            }
            Ok(prediction)
        })?;
        Ok((full, Some(shallow), Some(Cache { features, weights, drift })))
    }

    /// Records a network's call between the scheduler's halves of a step.
    fn around(
        &self,
        name: &str,
        conditioning: &Conditioning,
        executor: &Executor,
        network: impl FnOnce(&mut Recording, &Tensor) -> Result<Tensor>,
    ) -> Result<Recording> {
        let (state, table, step) = (self.state, self.table, conditioning.step());
        let mut recording = executor.recording(name);
        let sample = {
            let scheduler = &mut recording.scope("scheduler");
            let element = self.plan.element;
            scale_model_input(scheduler, state, table, step, self.shape, self.copies, element)? // [N, h, w, C]
        };
        let prediction = network(&mut recording, &sample)?; // [N, h, w, C]
        {
            let scheduler = &mut recording.scope("scheduler");
            let output = guidance(scheduler, &prediction, self.plan.guidance.as_ref())?; // [1, h, w, C]
            let threshold = match quantile(self.plan.trajectory) {
                Some(limits) => Some(dynamic_threshold(scheduler, state, &output, table, step, limits)?), // [1]
                None => None,
            };
            scheduler_step(scheduler, state, &output, [self.noise, threshold.as_ref()], table, step)?;
        }
        Ok(recording)
    }
}

/// Makes room for a new feature: each becomes the one before it.
fn push(recording: &mut Recording, features: &[Tensor]) -> Result<()> {
    for pair in features.windows(2).rev() {
        let copy = activation(recording, &pair[0], Activation::None)?;
        recording.place(&copy, &pair[1]);
    }
    Ok(())
}

/// Ratio and largest bound of dynamic thresholding, if the sampler does that.
fn quantile(trajectory: &Trajectory) -> Option<[f32; 2]> {
    let mut limits = trajectory.calls.iter().filter_map(|call| call.prediction.map(|found| found.limit));
    limits.find_map(|limit| match limit {
        Limit::Quantile { ratio, most } => {
            #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
            let limits = [ratio as f32, most as f32];
            Some(limits)
        }
        Limit::Clamp { .. } => None,
    })
}

/// What the device computes with.
pub(super) fn floats(values: &[f64]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    values.iter().map(|&value| value as f32).collect()
}
