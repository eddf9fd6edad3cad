//! One run on the device: its memory, its recordings, its programs.

use super::frame::{Frame, Plan, floats};
use super::model::Model;
use crate::deepcache::Reuse;
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Play, Program, Purpose};
use crate::kernels::activation::{Activation, activation};
use crate::kernels::forecast::{WEIGHTS, forecast};
use crate::kernels::similarity::{GROUPS, similarity};
use crate::models::unet::Flow;
use crate::schedulers::Trajectory;
use crate::tensor::{ElementType, Tensor};

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
    frame: Frame,
    cache: Option<Cache>,
    programs: Programs,
    pub(super) dispatches: [usize; 2],
    pub(super) multiply_accumulates: [u64; 2],
}

/// What outlives a call.
#[derive(Debug)]
struct Cache {
    /// Kept features of the last full calls, the newest first.
    features: Vec<Tensor>,
    /// Weights of the features in every call, `[S, 3]`, where they are extrapolated.
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

/// A run that has touched no device.
#[derive(Debug)]
pub(super) struct Recorded {
    frame: Frame,
    cache: Option<Cache>,
    condition: Recording,
    full: Recording,
    shallow: Option<Recording>,
    decode: Recording,
}

impl Recorded {
    pub(super) fn new(
        model: &Model,
        plan: &Plan<'_>,
        cache: Option<CachePlan>,
        executor: &Executor,
    ) -> Result<Self> {
        let frame = Frame::new(model, plan);
        let condition = frame.record_condition(model, executor)?;
        let (full, shallow, cache) = match cache {
            Some(cache) => {
                let calls = plan.trajectory.calls.len();
                let (full, shallow, cache) = record_cached(&frame, model, cache, calls, executor)?;
                (full, Some(shallow), Some(cache))
            }
            None => (record_uncached(&frame, model, executor)?, None, None),
        };
        let decode = frame.record_decode(model, executor)?;
        Ok(Self { frame, cache, condition, full, shallow, decode })
    }

    pub(super) fn recordings(&self) -> Vec<&Recording> {
        [&self.condition, &self.full, &self.decode].into_iter().chain(&self.shallow).collect()
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
        cache: Option<CachePlan>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Self> {
        let Recorded { frame, cache, condition, full, shallow, decode } =
            Recorded::new(model, plan, cache, executor)?;

        let kept: Vec<&Tensor> = cache.iter().flat_map(Cache::tensors).collect();
        let mut recordings = vec![&condition, &full, &decode];
        recordings.extend(&shallow);
        // What is too large for this device is found before anything is allocated.
        let programs = memory
            .check(&recordings)
            .and_then(|()| memory.allocate(frame.tensors(), Purpose::Persistent))
            .and_then(|()| memory.allocate(kept.iter().copied(), Purpose::Cache))
            .and_then(|()| executor.prepare(memory, &recordings))
            .inspect_err(|_| {
                for tensor in frame.tensors().chain(kept.iter().copied()) {
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
            frame,
            cache,
            dispatches: [programs.full.dispatches(), shallow.map_or(0, Program::dispatches)],
            multiply_accumulates: [
                programs.full.cost().multiply_accumulates,
                shallow.map_or(0, |program| program.cost().multiply_accumulates),
            ],
            programs,
        })
    }

    /// Gives the run's memory back.
    pub(super) fn release(&self, memory: &mut Memory) {
        let cache = self.cache.iter().flat_map(Cache::tensors);
        for tensor in self.frame.tensors().chain(cache) {
            memory.release(tensor);
        }
    }

    /// Writes what is constant over the run.
    pub(super) fn begin(&self, model: &Model, trajectory: &Trajectory, memory: &mut Memory) -> Result<()> {
        self.frame.begin(model, trajectory, memory)
    }

    /// Encodes a condition, and computes what follows from it.
    pub(super) fn encode(
        &self,
        inputs: &[Vec<u32>],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<()> {
        self.frame.write_condition(inputs, memory)?;
        executor.play(&self.programs.condition)?;
        executor.finish()
    }

    /// Starts a picture from its initial sample, `[h, w, C]`, already of the scheduler's sigma.
    pub(super) fn start(&self, sample: &[f32], memory: &mut Memory) -> Result<()> {
        self.frame.start(sample, memory)
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
        self.frame.write_call(call, noise, memory)?;
        let (Some(program), Some(weights)) = (&self.programs.shallow, shallow) else {
            return executor.play(&self.programs.full);
        };
        if let Some(tensor) = self.cache.as_ref().and_then(|cache| cache.weights.as_ref()) {
            let offset = (call * WEIGHTS * size_of::<f32>()) as u64;
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
        self.frame.denoised(memory)
    }

    /// Decodes a sample, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn decode(
        &self,
        sample: &[f32],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<(u32, u32, Vec<u8>)> {
        self.frame.decode(sample, &self.programs.decode, memory, executor)
    }
}

/// A full step: input, U-Net, guidance, the scheduler's update.
fn record_uncached(frame: &Frame, model: &Model, executor: &Executor) -> Result<Recording> {
    let mut recording = executor.recording("full");
    let sample = frame.record_input(&mut recording)?; // [N, h, w, C]
    let conditioning = &frame.conditioning;
    let flow = model.unet.record_full(&mut recording.scope("unet"), &sample, conditioning, &[])?;
    let output = frame.record_guidance(&mut recording, &flow.prediction)?; // [1, h, w, C]
    frame.record_update(&mut recording, &output)?;
    Ok(recording)
}

/// A full and a shallow step, and what lies between them.
fn record_cached(
    frame: &Frame,
    model: &Model,
    plan: CachePlan,
    calls: usize,
    executor: &Executor,
) -> Result<(Recording, Recording, Cache)> {
    let (unet, conditioning) = (&model.unet, &frame.conditioning);
    let [_, height, width, _] = frame.shape;
    let branch = plan.branch;
    let mut features = Vec::with_capacity(plan.reuse.features());
    for _ in 0..plan.reuse.features() {
        features.push(unet.kept_feature(branch, frame.copies, height, width)?);
    }
    let extrapolates = plan.reuse != Reuse::Hold;
    let weights = extrapolates.then(|| Tensor::external("weights", [calls, WEIGHTS], ElementType::F32));

    // 1. full: the features move on, the new one is kept, the drift is measured against the old reference
    let mut full = executor.recording("full");
    let sample = frame.record_input(&mut full)?; // [N, h, w, C]
    push(&mut full.scope("cache"), &features)?;
    let keep = [(branch, &features[0])];
    let flow = unet.record_full(&mut full.scope("unet"), &sample, conditioning, &keep)?;
    let drift = if plan.measures {
        let skip = &flow.skips[branch];
        let reference = Tensor::external("drift_reference", skip.shape().clone(), skip.element());
        let sums = Tensor::external("drift_sums", [1, GROUPS, 4], ElementType::F32);
        let recording = &mut full.scope("cache");
        similarity(recording, &reference, skip, &sums, 0)?;
        let copy = activation(recording, skip, Activation::None)?;
        recording.place(&copy, &reference);
        Some(Drift { reference, sums })
    } else {
        None
    };
    let output = frame.record_guidance(&mut full, &flow.prediction)?; // [1, h, w, C]
    frame.record_update(&mut full, &output)?;

    // 2. shallow: only what lies outside of the cut, around the kept or the extrapolated feature
    let mut shallow = executor.recording("shallow");
    let sample = frame.record_input(&mut shallow)?; // [N, h, w, C]
    let feature = match &weights {
        Some(weights) => {
            forecast(&mut shallow.scope("cache"), &features, weights, conditioning.step())? // [N, H, W, C]
        }
        None => features[0].clone(),
    };
    let Flow { prediction, skips } =
        unet.record_shallow(&mut shallow.scope("unet"), &sample, conditioning, branch, &feature)?;
    if let Some(drift) = &drift {
        similarity(&mut shallow.scope("cache"), &drift.reference, &skips[branch], &drift.sums, 0)?;
    }
    let output = frame.record_guidance(&mut shallow, &prediction)?; // [1, h, w, C]
    frame.record_update(&mut shallow, &output)?;
    Ok((full, shallow, Cache { features, weights, drift }))
}

/// Makes room for a new feature: each becomes the one before it.
fn push(recording: &mut Recording, features: &[Tensor]) -> Result<()> {
    for pair in features.windows(2).rev() {
        let copy = activation(recording, &pair[0], Activation::None)?;
        recording.place(&copy, &pair[1]);
    }
    Ok(())
}
