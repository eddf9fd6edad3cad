//! An analysis on the device: one uncached run, and runs in which a single call is shallow.

use std::ops::ControlFlow;

use super::branch::{Branch, BranchPrograms, root_mean_square};
use super::stages::stages;
use super::weights::{gains, probed_calls, weights};
use super::{Analysis, AnalysisOptions};
use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Program, Purpose};
use crate::image::Picture;
use crate::kernels::similarity::{GROUPS, similarity};
use crate::pipelines::decoding::{DECODE, Decoding, attempts};
use crate::pipelines::frame::Frame;
use crate::pipelines::latents::distance;
use crate::pipelines::model::Model;
use crate::pipelines::prepared::Prepared;
use crate::pipelines::recorded::Stage;
use crate::pipelines::{DiffusionPipeline, Latents, Progress, Request};
use crate::tensor::{ElementType, Tensor};

/// Everything of an analysis that lies on the device.
#[derive(Debug)]
pub(super) struct Study {
    frame: Frame,
    decoding: Decoding,
    /// What its programs were made from.
    decode: Vec<Recording>,
    tensors: StudyTensors,
    branches: Vec<Branch>,
    programs: Programs,
    /// Calls that are replayed as shallow ones, in a run that is full otherwise.
    probes: Vec<usize>,
    macs_full: u64,
}

#[derive(Debug)]
struct StudyTensors {
    /// The model's output of the present call, `[1, h, w, C]`.
    output: Tensor,
    /// Partial sums of what changes in the output, `[1, 64, 4]`.
    output_sums: Tensor,
    /// The sampler's state before every call, `[planes, h * w * C]` each.
    states: Vec<Tensor>,
}

impl StudyTensors {
    fn new(frame: &Frame, calls: usize, replays: bool) -> Self {
        let shape = frame.state.shape();
        let states = if replays { calls } else { 0 };
        let state = |call: usize| {
            Tensor::external(format!("state before call {call}"), shape.clone(), ElementType::F32)
        };
        Self {
            output: Tensor::external("model_output", frame.shape, ElementType::F32),
            output_sums: Tensor::external("output_sums", [1, GROUPS, 4], ElementType::F32),
            states: (0..states).map(state).collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Tensor> {
        self.states.iter().chain([&self.output, &self.output_sums])
    }
}

#[derive(Debug)]
struct Programs {
    condition: Program,
    /// A full call, without its update.
    network: Program,
    update: Program,
    decode: Vec<Program>,
    /// A shallow call of the first branch, with its update.
    shallow: Program,
    branches: Vec<BranchPrograms>,
}

impl Study {
    pub(super) fn prepare(
        pipeline: &mut DiffusionPipeline,
        prepared: &Prepared,
        options: &AnalysisOptions,
    ) -> Result<Self> {
        let plan = prepared.plan(pipeline.storage, false);
        let calls = prepared.trajectory.calls.len();
        let DiffusionPipeline { gpu, memory, executor, model, weights, .. } = pipeline;
        weights.keep_only(Stage::Whole, memory)?;
        let choices = executor.choices();
        let probes = probed_calls(calls, options.probes);
        let frame = Frame::new(model, &plan);
        let tensors = StudyTensors::new(&frame, calls, !probes.is_empty());
        let [_, height, width, _] = frame.shape;
        let mut branches = Vec::with_capacity(options.branches.len());
        for branch in &options.branches {
            let feature = model.unet.kept_feature(*branch, frame.copies, height, width)?;
            branches.push(Branch::new(*branch, feature, calls));
        }

        // 1. a full call, apart from its update, and what every run has
        let mut recordings = vec![
            frame.record_condition(model, None, choices)?,
            record_network(&frame, model, &branches, &tensors.output, executor)?,
            record_update(&frame, &tensors.output, executor)?,
            record_shallow(&frame, model, &branches[0], executor)?,
        ];
        // 2. what is measured for every branch
        for branch in &mut branches {
            let probe = record_probe(&frame, model, branch, &tensors, executor)?;
            branch.macs_shallow = probe.cost().multiply_accumulates;
            if !probes.is_empty() {
                recordings.push(probe);
            }
            recordings.extend(branch.record_pairs(executor)?);
        }
        let macs_full = recordings[1].cost().multiply_accumulates;
        let attempts = attempts(&model.decoder, plan.size, plan.tiling, gpu.binding_limit(), choices)?;
        let decoding = Decoding::new(&model.decoder, plan.size, attempts[0]);
        recordings.extend(decoding.record(&model.decoder, DECODE, choices)?);

        let recordings: Vec<&Recording> = recordings.iter().collect();
        let persistent = || frame.tensors().chain(tensors.all()).chain(decoding.tensors());
        let kept = || branches.iter().flat_map(Branch::tensors);
        let programs = memory
            .check(&recordings)
            .and_then(|()| memory.allocate(persistent(), Purpose::Persistent))
            .and_then(|()| memory.allocate(kept(), Purpose::Cache))
            .and_then(|()| executor.prepare(memory, &recordings))
            .inspect_err(|_| persistent().chain(kept()).for_each(|tensor| memory.release(tensor)))?;
        let mut programs = programs.into_iter();
        let mut next = || programs.next().expect("a program for every recording");
        let programs = Programs {
            condition: next(),
            network: next(),
            update: next(),
            shallow: next(),
            branches: branches
                .iter()
                .map(|_| BranchPrograms {
                    probe: (!probes.is_empty()).then(&mut next),
                    pairs: (1..calls).map(|_| next()).collect(),
                })
                .collect(),
            decode: programs.collect(),
        };
        let decode = decoding.record(&model.decoder, DECODE, executor.choices())?;
        Ok(Self { frame, decoding, decode, tensors, branches, programs, probes, macs_full })
    }

    pub(super) fn release(&self, memory: &mut Memory) {
        let branches = self.branches.iter().flat_map(Branch::tensors);
        for tensor in
            self.frame.tensors().chain(self.tensors.all()).chain(self.decoding.tensors()).chain(branches)
        {
            memory.release(tensor);
        }
    }

    pub(super) fn run(
        &self,
        pipeline: &mut DiffusionPipeline,
        request: &Request,
        prepared: &Prepared,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Analysis> {
        let DiffusionPipeline { memory, executor, model, .. } = &mut *pipeline;
        let trajectory = &prepared.trajectory;
        let calls = trajectory.calls.len();
        let replayed: usize = self.probes.iter().map(|call| calls - call).sum();
        let mut steps = Steps { completed: 0, of: calls + replayed, progress };
        if (steps.progress)(Progress::Encoding).is_break() {
            return Err(Error::Cancelled { completed: 0, steps: steps.of });
        }
        self.frame.begin(model, trajectory, memory)?;
        self.frame.write_condition(&prepared.inputs[0], memory)?;
        executor.play(&self.programs.condition)?;

        // 1. the run, and for every call what the feature of the call before would change in its output
        let noises = self.start(request, prepared, memory)?;
        let mut changes: Vec<Vec<PendingRead>> = self.branches.iter().map(|_| Vec::new()).collect();
        for (call, noise) in noises.iter().enumerate() {
            self.keep_state(call, memory)?;
            self.frame.write_call(call, noise.as_deref(), memory)?;
            executor.play(&self.programs.network)?;
            let branches = self.branches.iter().zip(&self.programs.branches).zip(&mut changes);
            for ((branch, programs), changes) in branches {
                memory.copy(&branch.feature, &branch.bank[call])?;
                if let (Some(probe), true) = (&programs.probe, call > 0) {
                    memory.copy(&branch.bank[call - 1], &branch.feature)?;
                    executor.play(probe)?;
                    changes.push(memory.read_later(&self.tensors.output_sums)?);
                }
            }
            executor.play(&self.programs.update)?;
            steps.report(true, executor)?;
        }
        executor.finish()?;
        let values = self.frame.denoised(memory)?;
        let stages = stages(executor.time(&self.programs.network)?.as_ref(), &self.programs.network);

        // 2. how the features differ, and what a change of the output leaves at the end
        let mut branches = Vec::with_capacity(self.branches.len());
        for (branch, programs) in self.branches.iter().zip(&self.programs.branches) {
            branches.push(branch.gather(programs, memory, executor)?);
        }
        let size: usize = prepared.shape[1..].iter().product();
        if !self.probes.is_empty() {
            let changes = settle(changes, size)?;
            let mut measured = Vec::with_capacity(self.probes.len());
            for &probe in &self.probes {
                let end = self.replay(probe, &noises, memory, executor, &mut steps)?;
                measured.push((probe, distance(&end, &values), changes[0][probe - 1]));
            }
            let gains = gains(&measured, calls);
            for (branch, changes) in branches.iter_mut().zip(&changes) {
                branch.weights = Some(weights(&gains, changes, &branch.distances));
            }
        }

        // 3. the picture
        let [_, channels, height, width] = prepared.shape;
        let scaling = model.decoder.scaling_factor();
        let latents = Latents::from_channels_last([channels, height, width], std::slice::from_ref(&values))?;
        let scaled: Vec<f32> = values.iter().map(|value| value / scaling).collect();
        let (width, height, pixels) =
            self.decoding.decode(&scaled, &self.programs.decode, &self.decode, memory, executor)?;
        Ok(Analysis {
            picture: Picture { width, height, pixels },
            latents,
            subject: super::subject(model.unet.config(), prepared),
            branches,
            stages,
            macs_full: self.macs_full,
        })
    }

    /// Starts the run: the noise of every call, where it has any.
    fn start(
        &self,
        request: &Request,
        prepared: &Prepared,
        memory: &mut Memory,
    ) -> Result<Vec<Option<Vec<f32>>>> {
        let trajectory = &prepared.trajectory;
        let count = prepared.shape.iter().product();
        let mut source = request.generator.seeded(request.seed);
        let noise = match &request.latents {
            Some(latents) => latents.clone(),
            None => Latents::new(prepared.shape, source.normal(count))?,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let sigma = trajectory.initial_sigma as f32;
        let sample: Vec<f32> = noise.channels_last(0).iter().map(|value| value * sigma).collect();
        self.frame.start(&sample, memory)?;
        let mut draw = |uses_noise: bool| {
            let drawn = uses_noise.then(|| Latents::new(prepared.shape, source.normal(count)));
            Ok(drawn.transpose()?.map(|noise| noise.channels_last(0)))
        };
        trajectory.calls.iter().map(|call| draw(call.uses_noise)).collect()
    }

    fn keep_state(&self, call: usize, memory: &mut Memory) -> Result<()> {
        match self.tensors.states.get(call) {
            Some(kept) => memory.copy(&self.frame.state, kept),
            None => Ok(()),
        }
    }

    /// The denoised sample, `[h, w, C]`, of the run once more from a call, which is shallow with the feature of the
    /// call before.
    fn replay(
        &self,
        from: usize,
        noises: &[Option<Vec<f32>>],
        memory: &mut Memory,
        executor: &mut Executor,
        steps: &mut Steps<'_>,
    ) -> Result<Vec<f32>> {
        let branch = &self.branches[0];
        memory.copy(&self.tensors.states[from], &self.frame.state)?;
        for (call, noise) in noises.iter().enumerate().skip(from) {
            self.frame.write_call(call, noise.as_deref(), memory)?;
            if call == from {
                memory.copy(&branch.bank[from - 1], &branch.feature)?;
                executor.play(&self.programs.shallow)?;
            } else {
                executor.play(&self.programs.network)?;
                executor.play(&self.programs.update)?;
            }
            steps.report(call > from, executor)?;
        }
        executor.finish()?;
        self.frame.denoised(memory)
    }
}

/// Counts calls, and tells the caller.
struct Steps<'a> {
    completed: usize,
    of: usize,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
}

impl Steps<'_> {
    fn report(&mut self, full: bool, executor: &mut Executor) -> Result<()> {
        self.completed += 1;
        let (completed, of) = (self.completed, self.of);
        if (self.progress)(Progress::Denoising { completed, of, full }).is_break() {
            executor.finish()?;
            return Err(Error::Cancelled { completed, steps: of });
        }
        Ok(())
    }
}

/// The changes that partial sums stand for, as root mean squares of outputs of `size` values.
fn settle(changes: Vec<Vec<PendingRead>>, size: usize) -> Result<Vec<Vec<f64>>> {
    let one = |read: PendingRead| root_mean_square(read, size);
    changes.into_iter().map(|branch| branch.into_iter().map(one).collect()).collect()
}

/// A full call, which keeps the feature of every branch.
fn record_network(
    frame: &Frame,
    model: &Model,
    branches: &[Branch],
    output: &Tensor,
    executor: &Executor,
) -> Result<Recording> {
    let mut recording = executor.recording("full");
    let sample = frame.record_input(&mut recording)?; // [N, h, w, C]
    let keep: Vec<(usize, &Tensor)> = branches.iter().map(|branch| (branch.index, &branch.feature)).collect();
    let unet = &model.unet;
    let flow = unet.record_full(&mut recording.scope("unet"), &sample, &frame.conditioning, &keep)?;
    let guided = frame.record_guidance(&mut recording, &flow.prediction)?; // [1, h, w, C]
    recording.place(&guided, output);
    Ok(recording)
}

fn record_update(frame: &Frame, output: &Tensor, executor: &Executor) -> Result<Recording> {
    let mut recording = executor.recording("update");
    frame.record_update(&mut recording, output)?;
    Ok(recording)
}

/// The model's output `[1, h, w, C]` of a shallow call.
fn shallow_output(
    frame: &Frame,
    model: &Model,
    branch: &Branch,
    recording: &mut Recording,
) -> Result<Tensor> {
    let sample = frame.record_input(recording)?; // [N, h, w, C]
    let unet = &mut recording.scope("unet");
    let conditioning = &frame.conditioning;
    let flow = model.unet.record_shallow(unet, &sample, conditioning, branch.index, &branch.feature)?;
    frame.record_guidance(unet, &flow.prediction)
}

/// A shallow call with its update.
fn record_shallow(frame: &Frame, model: &Model, branch: &Branch, executor: &Executor) -> Result<Recording> {
    let mut recording = executor.recording("shallow");
    let output = shallow_output(frame, model, branch, &mut recording)?;
    frame.record_update(&mut recording, &output)?;
    Ok(recording)
}

/// A shallow call, whose output is compared with that of the full one.
fn record_probe(
    frame: &Frame,
    model: &Model,
    branch: &Branch,
    tensors: &StudyTensors,
    executor: &Executor,
) -> Result<Recording> {
    let mut recording = executor.recording("probe");
    let output = shallow_output(frame, model, branch, &mut recording)?;
    similarity(&mut recording, &tensors.output, &output, &tensors.output_sums, 0)?;
    Ok(recording)
}
