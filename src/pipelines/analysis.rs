//! How a model's deep features change over an uncached run, and what reusing them would do.

use std::collections::HashMap;
use std::ops::ControlFlow;

use serde::Serialize;

use super::diffusion::Prepared;
use super::frame::Frame;
use super::{DiffusionPipeline, Latents, Progress, Request};
use crate::deepcache::gains;
use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Profile, Program, Purpose};
use crate::image::Picture;
use crate::kernels::similarity::{GROUPS, Similarity, similarity};
use crate::tensor::{ElementType, Tensor};

/// What an analysis looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisOptions {
    /// Skip branches whose features are kept and compared between all pairs of calls.
    pub branches: Vec<usize>,
    /// Those of them for which every call is also computed from every older feature, to see how much the model's
    /// output changes: as many shallow calls as there are pairs.
    pub probed: Vec<usize>,
}

/// What an analysis found in one uncached picture.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The picture.
    pub picture: Picture,
    /// The final latents.
    pub latents: Latents,
    /// Timesteps of the calls.
    pub timesteps: Vec<f64>,
    /// How much of a change of the model's output in each call is left in the final latents, if the model's other
    /// outputs stay the same: from the sampler alone.
    pub gains: Vec<f64>,
    /// One for every branch that was asked for.
    pub branches: Vec<BranchAnalysis>,
    /// Parts of a full call, in the order in which they run.
    pub stages: Vec<Stage>,
    /// Multiply-accumulates of a full call, both guidance halves.
    pub macs_full: u64,
}

/// A branch's feature over the calls of a run.
#[derive(Clone, Debug)]
pub struct BranchAnalysis {
    /// The skip index.
    pub branch: usize,
    /// Row `i`, column `j`: the cosine of the angle between the features of the calls `i` and `j`.
    pub cosine: Vec<Vec<f64>>,
    /// Row `i`, column `j`: the distance of the features of the calls `i` and `j`, relative to the later one.
    pub relative_l2: Vec<Vec<f64>>,
    /// Row `i`, column `j`, `j > i`: the change of the model's output in call `j` where the feature of call `i` stands
    /// in, as a root mean square in the space of the output; 0 elsewhere. Only for probed branches.
    pub errors: Option<Vec<Vec<f64>>>,
    /// Bytes of the kept feature.
    pub cache_bytes: u64,
    /// Multiply-accumulates of a shallow call, both guidance halves.
    pub macs_shallow: u64,
}

/// A part of a full call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its module: `down_blocks.0`.
    pub name: String,
    /// Share of the call's multiply-accumulates.
    pub macs: f64,
    /// Share of the call's time on the device; `None` where the adapter has no timestamps.
    pub time: Option<f64>,
}

impl DiffusionPipeline {
    /// Makes the first picture of a request with every call in full, and keeps the features of the branches on the
    /// device to compare them. The request's cache is ignored.
    ///
    /// The kept features take [`BranchAnalysis::cache_bytes`] for every call and branch.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`], and [`Error::Option`] if there is no such branch, or a branch is to be
    /// probed that is not looked at.
    pub fn analyze(
        &mut self,
        request: &Request,
        options: &AnalysisOptions,
        mut progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Analysis> {
        let request = Request { cache: None, ..request.clone() };
        let prepared = self.prepare(&request)?;
        for branch in &options.branches {
            self.model.unet.check_skip_index(*branch)?;
        }
        if let Some(branch) = options.probed.iter().find(|branch| !options.branches.contains(branch)) {
            let problem = format!("{branch} is to be probed, but is not among the branches");
            return Err(Error::option("cache branch", problem));
        }
        let study = Study::prepare(self, &prepared, options)?;
        let outcome = study.run(self, &request, &prepared, &mut progress);
        study.release(&mut self.memory);
        outcome
    }
}

/// An analysis on the device.
struct Study {
    frame: Frame,
    branches: Vec<Branch>,
    /// The model's output of the present call, `[1, h, w, C]`.
    output: Tensor,
    /// `[1, 64, 4]`.
    sums: Tensor,
    condition: Program,
    network: Program,
    update: Program,
    decode: Program,
    macs_full: u64,
}

/// One branch on the device.
struct Branch {
    index: usize,
    /// The feature of the present call, or the one that stands in for it.
    feature: Tensor,
    /// Features of all calls.
    bank: Vec<Tensor>,
    macs_shallow: u64,
    /// A shallow call from `feature`, and how far its output is from that of the full one.
    probe: Option<Program>,
    /// Similarities of all pairs of the bank, `[S, 64, 4]`: a program for every call, with the calls before it.
    pairs: Vec<Program>,
    pair_sums: Tensor,
}

impl Study {
    fn prepare(
        pipeline: &mut DiffusionPipeline,
        prepared: &Prepared,
        options: &AnalysisOptions,
    ) -> Result<Self> {
        let plan = prepared.plan(pipeline.storage);
        let calls = prepared.trajectory.calls.len();
        let DiffusionPipeline { memory, executor, model, .. } = pipeline;
        let frame = Frame::new(model, &plan);
        let [_, height, width, _] = frame.shape;
        let output = Tensor::external("model_output", frame.shape, ElementType::F32);
        let sums = Tensor::external("sums", [1, GROUPS, 4], ElementType::F32);
        let mut features = Vec::with_capacity(options.branches.len());
        for branch in &options.branches {
            features.push(model.unet.kept_feature(*branch, frame.copies, height, width)?);
        }

        // 1. a full call without its update, which keeps every feature
        let condition = frame.record_condition(model, executor)?;
        let mut network = executor.recording("full");
        let sample = frame.record_input(&mut network)?; // [N, h, w, C]
        let keep: Vec<(usize, &Tensor)> = options.branches.iter().copied().zip(&features).collect();
        let conditioning = &frame.conditioning;
        let flow = model.unet.record_full(&mut network.scope("unet"), &sample, conditioning, &keep)?;
        let guided = frame.record_guidance(&mut network, &flow.prediction)?; // [1, h, w, C]
        network.place(&guided, &output);
        let mut update = executor.recording("update");
        frame.record_update(&mut update, &output)?;
        let decode = frame.record_decode(model, executor)?;

        // 2. for every branch a shallow call, and the similarities between all calls
        let mut recordings = vec![condition, network, update, decode];
        let mut shallow_macs = Vec::with_capacity(features.len());
        for (branch, feature) in options.branches.iter().zip(&features) {
            let mut probe = executor.recording("probe");
            let sample = frame.record_input(&mut probe)?; // [N, h, w, C]
            let unet = &model.unet;
            let flow =
                unet.record_shallow(&mut probe.scope("unet"), &sample, conditioning, *branch, feature)?;
            let guided = frame.record_guidance(&mut probe, &flow.prediction)?; // [1, h, w, C]
            similarity(&mut probe, &output, &guided, &sums, 0)?;
            shallow_macs.push(probe.cost().multiply_accumulates);
            if options.probed.contains(branch) {
                recordings.push(probe);
            }
        }
        let mut banks = Vec::with_capacity(features.len());
        for feature in &features {
            let bank: Vec<Tensor> = (0..calls)
                .map(|call| {
                    let label = format!("feature of call {call}");
                    Tensor::external(label, feature.shape().clone(), feature.element())
                })
                .collect();
            let pair_sums = Tensor::external("pair_sums", [calls, GROUPS, 4], ElementType::F32);
            for later in 1..calls {
                let mut pairs: Recording = executor.recording("pairs");
                for earlier in 0..later {
                    // Relative to the later call, whose feature the earlier one would stand in for.
                    similarity(&mut pairs, &bank[later], &bank[earlier], &pair_sums, earlier)?;
                }
                recordings.push(pairs);
            }
            banks.push((bank, pair_sums));
        }

        let persistent: Vec<&Tensor> = frame.tensors().chain([&output, &sums]).collect();
        let kept: Vec<&Tensor> =
            banks.iter().flat_map(|(bank, sums)| bank.iter().chain([sums])).chain(&features).collect();
        let all: Vec<&Recording> = recordings.iter().collect();
        let macs_full = recordings[1].cost().multiply_accumulates;
        let programs = memory
            .check(&all)
            .and_then(|()| memory.allocate(persistent.iter().copied(), Purpose::Persistent))
            .and_then(|()| memory.allocate(kept.iter().copied(), Purpose::Cache))
            .and_then(|()| executor.prepare(memory, &all))
            .inspect_err(|_| {
                for tensor in persistent.iter().chain(&kept) {
                    memory.release(tensor);
                }
            })?;
        let mut programs = programs.into_iter();
        let mut next = || programs.next().expect("a program for every recording");
        let [condition, network, update, decode] = [next(), next(), next(), next()];
        let probes: Vec<Option<Program>> =
            options.branches.iter().map(|branch| options.probed.contains(branch).then(&mut next)).collect();
        let mut branches = Vec::with_capacity(features.len());
        for ((position, feature), (bank, pair_sums)) in features.into_iter().enumerate().zip(banks) {
            branches.push(Branch {
                index: options.branches[position],
                feature,
                bank,
                macs_shallow: shallow_macs[position],
                probe: None,
                pairs: (1..calls).map(|_| next()).collect(),
                pair_sums,
            });
        }
        for (branch, probe) in branches.iter_mut().zip(probes) {
            branch.probe = probe;
        }
        Ok(Self { frame, branches, output, sums, condition, network, update, decode, macs_full })
    }

    fn release(&self, memory: &mut Memory) {
        let own = [&self.output, &self.sums];
        let branches = self
            .branches
            .iter()
            .flat_map(|branch| branch.bank.iter().chain([&branch.feature, &branch.pair_sums]));
        for tensor in self.frame.tensors().chain(own).chain(branches) {
            memory.release(tensor);
        }
    }

    fn run(
        &self,
        pipeline: &mut DiffusionPipeline,
        request: &Request,
        prepared: &Prepared,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Analysis> {
        let DiffusionPipeline { memory, executor, model, .. } = &mut *pipeline;
        let trajectory = &prepared.trajectory;
        let calls = trajectory.calls.len();
        if progress(Progress::Encoding).is_break() {
            return Err(Error::Cancelled { completed: 0, steps: calls });
        }
        self.frame.begin(model, trajectory, memory)?;
        self.frame.write_condition(&prepared.ids[0], memory)?;
        executor.play(&self.condition)?;

        let mut source = request.generator.seeded(request.seed);
        let noise = match &request.latents {
            Some(latents) => latents.clone(),
            None => Latents::new(prepared.shape, source.normal(prepared.shape.iter().product()))?,
        };
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let sigma = trajectory.initial_sigma as f32;
        let sample: Vec<f32> = noise.channels_last(0).iter().map(|value| value * sigma).collect();
        self.frame.start(&sample, memory)?;

        let mut changes: Vec<Vec<Vec<PendingRead>>> = self.branches.iter().map(|_| Vec::new()).collect();
        for (call, plan) in trajectory.calls.iter().enumerate() {
            let noise = if plan.uses_noise {
                Some(Latents::new(noise.shape(), source.normal(noise.values().len()))?.channels_last(0))
            } else {
                None
            };
            self.frame.write_call(call, noise.as_deref(), memory)?;
            executor.play(&self.network)?;
            for branch in &self.branches {
                memory.copy(&branch.feature, &branch.bank[call])?;
            }
            for (branch, changes) in self.branches.iter().zip(&mut changes) {
                let Some(probe) = &branch.probe else { continue };
                let mut row = Vec::with_capacity(call);
                for earlier in &branch.bank[..call] {
                    memory.copy(earlier, &branch.feature)?;
                    executor.play(probe)?;
                    row.push(memory.read_later(&self.sums)?);
                }
                changes.push(row);
            }
            executor.play(&self.update)?;
            if progress(Progress::Denoising { completed: call + 1, of: calls, full: true }).is_break() {
                executor.finish()?;
                return Err(Error::Cancelled { completed: call + 1, steps: calls });
            }
        }
        executor.finish()?;
        let stages = stages(executor.time(&self.network)?.as_ref(), &self.network);
        let values = self.frame.denoised(memory)?;
        let [_, channels, height, width] = prepared.shape;
        let scaling = model.decoder.scaling_factor();
        let latents = Latents::from_channels_last([channels, height, width], std::slice::from_ref(&values))?;
        let scaled: Vec<f32> = values.iter().map(|value| value / scaling).collect();
        let (width, height, pixels) = self.frame.decode(&scaled, &self.decode, memory, executor)?;

        let mut branches = Vec::with_capacity(self.branches.len());
        for (branch, changes) in self.branches.iter().zip(changes) {
            branches.push(branch.gather(changes, calls, prepared, memory, executor)?);
        }
        Ok(Analysis {
            picture: Picture { width, height, pixels },
            latents,
            timesteps: trajectory.timesteps.clone(),
            gains: gains(trajectory),
            branches,
            stages,
            macs_full: self.macs_full,
        })
    }
}

impl Branch {
    /// Compares the features of all pairs of calls, and takes in what the probes measured.
    fn gather(
        &self,
        changes: Vec<Vec<PendingRead>>,
        calls: usize,
        prepared: &Prepared,
        memory: &Memory,
        executor: &mut Executor,
    ) -> Result<BranchAnalysis> {
        let mut cosine = vec![vec![1.0; calls]; calls];
        let mut relative_l2 = vec![vec![0.0; calls]; calls];
        for (later, program) in (1..calls).zip(&self.pairs) {
            executor.play(program)?;
            let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&self.pair_sums)?);
            for (earlier, sums) in sums.chunks_exact(4 * GROUPS).take(later).enumerate() {
                let found = Similarity::from_partial_sums(sums);
                (cosine[earlier][later], cosine[later][earlier]) = (found.cosine, found.cosine);
                (relative_l2[earlier][later], relative_l2[later][earlier]) =
                    (found.relative_l2, found.relative_l2);
            }
        }
        let errors = if self.probe.is_some() {
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
            let values = prepared.shape[1..].iter().product::<usize>() as f64;
            let mut errors = vec![vec![0.0; calls]; calls];
            for (later, row) in changes.into_iter().enumerate() {
                for (earlier, pending) in row.into_iter().enumerate() {
                    let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&pending.wait()?);
                    let distance = Similarity::from_partial_sums(&sums).distance;
                    errors[earlier][later] = distance / values.sqrt();
                }
            }
            Some(errors)
        } else {
            None
        };
        Ok(BranchAnalysis {
            branch: self.index,
            cosine,
            relative_l2,
            errors,
            cache_bytes: self.feature.bytes(),
            macs_shallow: self.macs_shallow,
        })
    }
}

/// The parts of a U-Net call with their shares of its cost and its time.
fn stages(profile: Option<&Profile>, program: &Program) -> Vec<Stage> {
    let mut stages: Vec<(String, f64, f64)> = Vec::new();
    let mut times: HashMap<String, f64> = HashMap::new();
    for row in profile.map(Profile::rows).unwrap_or_default() {
        *times.entry(stage_of(&row.label)).or_default() += row.seconds;
    }
    for (label, cost) in program.costs() {
        let name = stage_of(label);
        #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
        let macs = cost.multiply_accumulates as f64;
        match stages.iter_mut().find(|(other, ..)| *other == name) {
            Some(stage) => stage.1 += macs,
            None => {
                let time = times.get(&name).copied().unwrap_or_default();
                stages.push((name, macs, time));
            }
        }
    }
    let [all_macs, all_time] = [0, 1].map(|part| {
        let sum: f64 = stages.iter().map(|stage| if part == 0 { stage.1 } else { stage.2 }).sum();
        sum.max(f64::MIN_POSITIVE)
    });
    stages
        .into_iter()
        .map(|(name, macs, time)| Stage {
            name,
            macs: macs / all_macs,
            time: profile.map(|_| time / all_time),
        })
        .collect()
}

/// `full/unet/down_blocks.0/resnets.1/…` belongs to `down_blocks.0`, what is not of the U-Net to itself.
fn stage_of(label: &str) -> String {
    let mut parts = label.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("unet"), Some("conv_norm_out" | "conv_out")) => "head".to_owned(),
        (Some("unet"), Some(module)) => module.to_owned(),
        (Some(other), _) => other.to_owned(),
        (None, _) => label.to_owned(),
    }
}
