//! One run on the device: its memory and its programs.

use super::decoding::advise;
use super::encoding::Encoding;
use super::faults::trace;
use super::frame::{Plan, floats};
use super::recorded::{CachePlan, Recorded, Stage};
use super::residency::ModelWeights;
use super::streaming::NetworkCall;
use super::{DiffusionPipeline, Latents};
use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Play, Program, Purpose};
use crate::kernels::forecast::WEIGHTS;
use crate::schedulers::Trajectory;
use crate::tensor::Tensor;

/// Everything of one run that lies on the device, except the weights.
#[derive(Debug)]
pub(super) struct Run {
    recorded: Recorded,
    programs: Programs,
    /// Of every picture that was encoded, `[h, w, 2C]`.
    moments: Vec<Vec<f32>>,
    /// Whether only what a stage needs is on the device.
    staged: bool,
    pub(super) footprints: Vec<Footprint>,
    pub(super) dispatches: [usize; 2],
    pub(super) multiply_accumulates: [u64; 2],
}

/// Bytes on the device in one stage of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footprint {
    pub(super) weights: u64,
    pub(super) activations: u64,
    /// The most of them that are alive at once.
    pub(super) largest_live: u64,
    pub(super) persistent: u64,
    pub(super) cache: u64,
}

impl Footprint {
    pub(super) fn total(&self) -> u64 {
        self.weights + self.activations + self.persistent + self.cache
    }
}

/// Those of the present stage.
#[derive(Debug, Default)]
struct Programs {
    text: Option<Program>,
    condition: Option<Program>,
    full: Option<Program>,
    shallow: Option<Program>,
    previews: Vec<Program>,
    decode: Vec<Program>,
    encode: Vec<Program>,
}

impl Programs {
    /// In the order of [`Recorded::of`].
    fn new(recorded: &Recorded, stage: Stage, programs: Vec<Program>) -> Self {
        if stage == Stage::Encoding {
            return Self { encode: programs, ..Self::default() };
        }
        let (mut found, mut programs) = (Self::default(), programs.into_iter());
        if [Stage::Whole, Stage::Text].contains(&stage) && recorded.text.is_some() {
            found.text = programs.next();
        }
        if [Stage::Whole, Stage::Denoising].contains(&stage) {
            found.condition = programs.next();
            found.full = programs.next();
            found.shallow = recorded.shallow.is_some().then(|| programs.next()).flatten();
            let previews = recorded.previews.as_ref().map_or(0, |previews| previews.recordings.len());
            found.previews = programs.by_ref().take(previews).collect();
        }
        found.decode = programs.collect();
        found
    }
}

impl Run {
    /// Records the run, allocates what it keeps and encodes pictures, `[H, W, 3]` each, whose moments it keeps; unless it
    /// goes in stages, its other programs are then prepared over one set of slots.
    pub(super) fn prepare(
        plan: &Plan<'_>,
        cache: Option<CachePlan>,
        pictures: &[&[f32]],
        pipeline: &mut DiffusionPipeline,
    ) -> Result<Self> {
        let DiffusionPipeline { gpu, memory, executor, model, .. } = &mut *pipeline;
        let recorded = Recorded::new(model, plan, cache, gpu.binding_limit(), executor.choices())?;
        // What is too large for this device is found before anything is allocated.
        memory
            .check(&recorded.recordings())
            .map_err(|error| advise(error, plan.tiling))
            .and_then(|()| memory.allocate(recorded.persistent(), Purpose::Persistent))
            .and_then(|()| memory.allocate(recorded.kept(), Purpose::Cache))
            .inspect_err(|_| release(&recorded, memory))?;
        let cost = |recording: &Recording| recording.cost().multiply_accumulates;
        let shallow = recorded.shallow.as_ref();
        let mut run = Self {
            dispatches: [
                recorded.full.commands().len(),
                shallow.map_or(0, |recording| recording.commands().len()),
            ],
            multiply_accumulates: [cost(&recorded.full), shallow.map_or(0, cost)],
            recorded,
            programs: Programs::default(),
            moments: Vec::new(),
            staged: plan.staged,
            footprints: Vec::new(),
        };
        run.encode_pictures(pictures, plan, pipeline)
            .and_then(|()| if run.staged { Ok(()) } else { run.enter(Stage::Whole, plan, pipeline) })
            .inspect_err(|_| {
                run.release(&mut pipeline.memory);
                pipeline.weights.free(&mut pipeline.memory);
            })?;
        Ok(run)
    }

    fn encode_pictures(
        &mut self,
        pictures: &[&[f32]],
        plan: &Plan<'_>,
        pipeline: &mut DiffusionPipeline,
    ) -> Result<()> {
        if pictures.is_empty() {
            return Ok(());
        }
        self.enter(Stage::Encoding, plan, pipeline)?;
        let DiffusionPipeline { memory, executor, .. } = pipeline;
        let encoding = self.recorded.encoding.as_ref().expect("pictures are encoded where that is recorded");
        for picture in pictures {
            self.moments.push(encoding.encode(
                picture,
                &self.programs.encode,
                &self.recorded.encode,
                memory,
                executor,
            )?);
        }
        Ok(())
    }

    /// The latents `[1, C, h, w]` of a picture that was encoded, drawn with the noise of one draw.
    pub(super) fn latents(&self, picture: usize, noise: &[f32], scaling_factor: f32) -> Result<Latents> {
        let encoding = self.recorded.encoding.as_ref().expect("a picture was encoded");
        encoding.sample(&self.moments[picture], noise, scaling_factor)
    }

    /// Writes a mask `[h, w]`, and the latents `[h, w, C]` of the masked picture where the U-Net reads them.
    pub(super) fn write_mask(&self, mask: &[f32], masked: Option<&[f32]>, memory: &mut Memory) -> Result<()> {
        self.recorded.frame.write_mask(mask, masked, memory)
    }

    /// Writes what is put back outside of a mask: latents and noise of one picture, `[h, w, C]` each.
    pub(super) fn write_outside(&self, clean: &[f32], noise: &[f32], memory: &mut Memory) -> Result<()> {
        self.recorded.frame.write_outside(clean, noise, memory)
    }

    /// Makes a stage ready, and takes from the device what it does not need.
    fn enter(&mut self, stage: Stage, plan: &Plan<'_>, pipeline: &mut DiffusionPipeline) -> Result<()> {
        let DiffusionPipeline { memory, executor, model, weights, .. } = pipeline;
        self.programs = Programs::default();
        executor.finish()?;
        weights.enter(stage, &self.recorded, memory)?;
        let programs = loop {
            match executor.prepare(memory, &self.recorded.of(stage)) {
                Err(Error::OutOfMemory { what, bytes }) if stage == Stage::Encoding => {
                    let choices = executor.choices();
                    let Some(old) = self.recorded.encode_smaller(model, plan.size, choices)? else {
                        return Err(Error::OutOfMemory { what, bytes });
                    };
                    old.tensors().for_each(|tensor| memory.release(tensor));
                    let new = self.recorded.encoding.iter().flat_map(Encoding::tensors);
                    memory.allocate(new, Purpose::Persistent)?;
                }
                Err(Error::OutOfMemory { what, bytes })
                    if [Stage::Whole, Stage::Decoding].contains(&stage) =>
                {
                    let choices = executor.choices();
                    let Some(old) = self.recorded.decode_smaller(model, plan.size, choices)? else {
                        return Err(Error::OutOfMemory { what, bytes });
                    };
                    old.tensors().for_each(|tensor| memory.release(tensor));
                    memory.allocate(self.recorded.decoding.tensors(), Purpose::Persistent)?;
                }
                other => break other?,
            }
        };
        self.programs = Programs::new(&self.recorded, stage, programs);
        let slots = executor.plan();
        self.footprints.push(Footprint {
            weights: memory.bytes(Purpose::Weights),
            activations: slots.bytes(),
            largest_live: slots.largest_live_set,
            persistent: memory.bytes(Purpose::Persistent),
            cache: memory.bytes(Purpose::Cache),
        });
        Ok(())
    }

    /// The side of the tiles that pictures are decoded in, in latents.
    pub(super) fn tile_side(&self) -> Option<usize> {
        self.recorded.decoding.side()
    }

    /// The side of the tiles that pictures were encoded in, in latents.
    pub(super) fn encoder_tile_side(&self) -> Option<usize> {
        self.recorded.encoding.as_ref().and_then(Encoding::side)
    }

    /// Gives the run's memory back.
    pub(super) fn release(&self, memory: &mut Memory) {
        release(&self.recorded, memory);
    }

    /// Writes what is constant over the run.
    pub(super) fn begin(&self, trajectory: &Trajectory, pipeline: &mut DiffusionPipeline) -> Result<()> {
        self.recorded.frame.begin(&pipeline.model, trajectory, &mut pipeline.memory)
    }

    /// Encodes a condition, and computes what follows from it; from then on the U-Net is ready.
    pub(super) fn encode(
        &mut self,
        inputs: &[Vec<u32>],
        plan: &Plan<'_>,
        pipeline: &mut DiffusionPipeline,
    ) -> Result<()> {
        if self.staged && self.recorded.text.is_some() {
            self.enter(Stage::Text, plan, pipeline)?;
        }
        self.recorded.frame.write_condition(inputs, &mut pipeline.memory)?;
        if let Some(text) = &self.programs.text {
            pipeline.executor.play(text)?;
            pipeline.executor.finish()?;
        }
        if self.staged && self.programs.condition.is_none() {
            self.enter(Stage::Denoising, plan, pipeline)?;
        }
        let condition = self.programs.condition.as_ref().expect("the stage has it");
        let DiffusionPipeline { memory, executor, weights, .. } = pipeline;
        weights.play(NetworkCall::Condition, condition, None, memory, executor)?;
        executor.finish()
    }

    /// Starts a picture from its initial sample, `[h, w, C]`, already of the scheduler's sigma.
    pub(super) fn start(&self, sample: &[f32], memory: &mut Memory) -> Result<()> {
        self.recorded.frame.start(sample, memory)
    }

    /// Submits one U-Net call, a shallow one where it is given the weights of the kept features.
    pub(super) fn step(
        &self,
        call: usize,
        shallow: Option<[f64; WEIGHTS]>,
        noise: Option<&[f32]>,
        (weights, memory, executor): (&mut ModelWeights, &mut Memory, &mut Executor),
    ) -> Result<Play> {
        self.write_call(call, shallow, noise, memory)?;
        let (Some(program), Some(_)) = (&self.programs.shallow, shallow) else {
            let program = self.programs.full.as_ref().expect("a condition was encoded before");
            return weights.play(NetworkCall::Full, program, None, memory, executor);
        };
        weights.play(NetworkCall::Shallow, program, None, memory, executor)
    }

    fn write_call(
        &self,
        call: usize,
        shallow: Option<[f64; WEIGHTS]>,
        noise: Option<&[f32]>,
        memory: &mut Memory,
    ) -> Result<()> {
        self.recorded.frame.write_call(call, noise, memory)?;
        let table = self.recorded.cache.as_ref().and_then(|cache| cache.weights.as_ref());
        if let (Some(table), Some(features)) = (table, shallow) {
            let offset = (call * WEIGHTS * size_of::<f32>()) as u64;
            memory.write(table, offset, bytemuck::cast_slice(&floats(&features)))?;
        }
        Ok(())
    }

    /// Asks which calls have made values that are not finite, without waiting.
    pub(super) fn read_faults(&self, memory: &Memory) -> Result<PendingRead> {
        memory.read_later(&self.recorded.frame.faults)
    }

    /// Plays the condition again with every layer checked: the label of the first that makes such values.
    pub(super) fn trace_condition(&self, pipeline: &mut DiffusionPipeline) -> Result<Option<String>> {
        let DiffusionPipeline { memory, executor, weights, .. } = pipeline;
        let network = Some((NetworkCall::Condition, weights));
        trace(&self.recorded.condition, self.recorded.frame.conditioning.step(), network, memory, executor)
    }

    /// The same of a call, which is given what [`step`](Self::step) would be.
    pub(super) fn trace_step(
        &self,
        call: usize,
        shallow: Option<[f64; WEIGHTS]>,
        noise: Option<&[f32]>,
        pipeline: &mut DiffusionPipeline,
    ) -> Result<Option<String>> {
        let DiffusionPipeline { memory, executor, weights, .. } = pipeline;
        self.write_call(call, shallow, noise, memory)?;
        let (recording, network) = match (&self.recorded.shallow, shallow) {
            (Some(recording), Some(_)) => (recording, NetworkCall::Shallow),
            _ => (&self.recorded.full, NetworkCall::Full),
        };
        let step = self.recorded.frame.conditioning.step();
        trace(recording, step, Some((network, weights)), memory, executor)
    }

    /// Asks for the drift that the last call measured, without waiting for it.
    ///
    /// # Errors
    /// Faults of the device.
    pub(super) fn read_drift(&self, memory: &Memory) -> Result<Option<PendingRead>> {
        let drift = self.recorded.cache.as_ref().and_then(|cache| cache.drift.as_ref());
        drift.map(|drift| memory.read_later(&drift.sums)).transpose()
    }

    /// The model's output in the last call, `[h, w, C]`; only with previews.
    pub(super) fn output(&self, memory: &Memory) -> Result<Vec<f32>> {
        self.recorded.frame.output(memory)
    }

    /// Decodes a preview of a sample, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn preview(
        &self,
        sample: &[f32],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<(u32, u32, Vec<u8>)> {
        let previews = self.recorded.previews.as_ref().expect("a decoder for previews was recorded");
        let (programs, recordings) = (&self.programs.previews, &previews.recordings);
        previews.decoding.decode(sample, programs, recordings, memory, executor)
    }

    /// The denoised sample, `[h, w, C]`, once everything submitted is done.
    pub(super) fn denoised(&self, memory: &Memory) -> Result<Vec<f32>> {
        self.recorded.frame.denoised(memory)
    }

    /// Decodes a sample, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn decode(
        &mut self,
        sample: &[f32],
        plan: &Plan<'_>,
        pipeline: &mut DiffusionPipeline,
    ) -> Result<(u32, u32, Vec<u8>)> {
        if self.programs.decode.is_empty() {
            self.enter(Stage::Decoding, plan, pipeline)?;
        }
        let DiffusionPipeline { memory, executor, .. } = pipeline;
        let (programs, recordings) = (&self.programs.decode, &self.recorded.decode);
        self.recorded.decoding.decode(sample, programs, recordings, memory, executor)
    }
}

fn release(recorded: &Recorded, memory: &mut Memory) {
    recorded.persistent().chain(recorded.kept()).for_each(|tensor: &Tensor| memory.release(tensor));
}
