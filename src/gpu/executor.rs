//! Turns recordings into programs over shared slots, and plays them.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::choices::{Choices, Tuned};
use super::context::Gpu;
use super::memory::{Memory, read_buffer};
use super::pipelines::Pipelines;
use super::profiler::Profile;
use super::program::{Binder, Prepared, Program, slot};
use super::recording::{Cost, Recording};
use super::slots::{PlanMode, SlotPlan, plan_slots};
use crate::error::Result;

/// No submission should keep a GPU busy for longer than this: Windows resets one after two seconds.
const SUBMISSION_SECONDS: f64 = 0.2;

/// Cost units per second that a weak GPU reaches; the first measurement replaces it.
const CAUTIOUS_RATE: f64 = 1e11;

/// A submission is not cut below this many cost units.
const LEAST_SUBMISSION: f64 = 1e10;

/// Submissions that the device may have at once: one runs while the next is encoded.
const IN_FLIGHT: usize = 2;

/// Timestamps of one run.
const QUERIES: u32 = 4096;

/// What one play took.
#[derive(Clone, Debug, Default)]
pub struct Play {
    /// Time that the CPU was busy with encoding and submitting, in seconds.
    pub encode_seconds: f64,
    /// Command buffers submitted.
    pub submissions: usize,
    /// First and last timestamp, if the adapter has any to spare.
    queries: Option<(u32, u32)>,
}

impl Play {
    /// This play and the one after it as one.
    #[must_use]
    pub fn join(self, next: Self) -> Self {
        let queries = match (self.queries, next.queries) {
            (Some((begin, _)), Some((_, end))) => Some((begin, end)),
            (queries, None) | (None, queries) => queries,
        };
        Self {
            encode_seconds: self.encode_seconds + next.encode_seconds,
            submissions: self.submissions + next.submissions,
            queries,
        }
    }
}

#[derive(Debug)]
struct InFlight {
    submission: wgpu::SubmissionIndex,
    submitted: Instant,
    units: f64,
}

/// Plays recordings on one GPU.
#[derive(Debug)]
pub struct Executor {
    gpu: Arc<Gpu>,
    choices: Arc<Choices>,
    pipelines: Pipelines,
    mode: PlanMode,
    plan: SlotPlan,
    queries: Option<wgpu::QuerySet>,
    next_query: u32,
    in_flight: VecDeque<InFlight>,
    rate: f64,
    last_done: Option<Instant>,
    profile: Option<Profile>,
}

impl Executor {
    /// An executor without programs.
    #[must_use]
    pub fn new(gpu: Arc<Gpu>) -> Self {
        let queries = gpu.has_timestamps().then(|| query_set(&gpu, QUERIES));
        Self {
            choices: Arc::new(gpu.choices()),
            gpu,
            pipelines: Pipelines::default(),
            mode: PlanMode::default(),
            plan: SlotPlan::default(),
            queries,
            next_query: 0,
            in_flight: VecDeque::new(),
            rate: CAUTIOUS_RATE,
            last_done: None,
            profile: None,
        }
    }

    /// A new recording whose kernels suit this GPU.
    #[must_use]
    pub fn recording(&self, name: &str) -> Recording {
        Recording::new(name).with_choices(Arc::clone(&self.choices))
    }

    /// What the next recordings' kernels are chosen by.
    #[must_use]
    pub fn choices(&self) -> &Arc<Choices> {
        &self.choices
    }

    /// From the next recording on, products are cut as was found best by tuning.
    pub fn set_tuned(&mut self, tuned: Tuned) {
        Arc::make_mut(&mut self.choices).tuned = tuned;
    }

    /// How the next [`Executor::prepare`] plans memory.
    pub fn set_plan_mode(&mut self, mode: PlanMode) {
        self.mode = mode;
    }

    /// From now on every dispatch is timed by itself, which is slower.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// What was timed since [`Executor::start_profile`].
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Plays a program once with every dispatch timed by itself; `None` where the adapter has no timestamps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) and other faults of the device.
    pub fn time(&mut self, program: &Program) -> Result<Option<Profile>> {
        if !self.gpu.has_timestamps() {
            return Ok(None);
        }
        let running = self.profile.replace(Profile::default());
        let outcome = self.play_profiled(program, 0..program.dispatches.len());
        let timed = std::mem::replace(&mut self.profile, running);
        outcome.map(|_| timed)
    }

    /// The memory plan of the last [`Executor::prepare`].
    #[must_use]
    pub fn plan(&self) -> &SlotPlan {
        &self.plan
    }

    /// Pipelines compiled so far.
    #[must_use]
    pub fn pipeline_count(&self) -> usize {
        self.pipelines.count()
    }

    /// Seconds spent on compiling them, on several cores at once. Some drivers compile only when a pipeline is first
    /// used: their time is part of the first play.
    #[must_use]
    pub fn compile_seconds(&self) -> f64 {
        self.pipelines.seconds()
    }

    /// Prepares recordings that are never played at the same time: they share slots.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if a tensor is too large to bind,
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and [`Error::Device`](crate::Error::Device) if a shader
    /// does not compile.
    ///
    /// # Panics
    /// If a recording uses external memory that was not allocated.
    pub fn prepare(&mut self, memory: &Memory, recordings: &[&Recording]) -> Result<Vec<Program>> {
        memory.check(recordings)?;
        let commands = recordings.iter().flat_map(|recording| recording.commands());
        self.pipelines.make(&self.gpu, commands)?;
        let plan = plan_slots(recordings, self.mode);
        let mut slots = Vec::with_capacity(plan.slots.len());
        for (index, &bytes) in plan.slots.iter().enumerate() {
            slots.push(slot(&self.gpu, index, bytes)?);
        }
        let mut programs = Vec::with_capacity(recordings.len());
        for (recording, assignment) in recordings.iter().zip(&plan.assignment) {
            let binder = Binder { gpu: &self.gpu, memory, recording, assignment, slots: &slots };
            programs.push(binder.program(&self.pipelines)?);
        }
        self.plan = plan;
        Ok(programs)
    }

    /// Encodes and submits one play; returns before the device has finished it.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) and other faults of the device, possibly those of an earlier
    /// play.
    ///
    /// # Panics
    /// Only if this crate hands out a pair of queries without a query set: no input leads there.
    pub fn play(&mut self, program: &Program) -> Result<Play> {
        self.play_part(program, 0..program.dispatches.len())
    }

    /// Encodes and submits some dispatches of a program, as [`Executor::play`].
    ///
    /// # Errors
    /// As [`Executor::play`].
    ///
    /// # Panics
    /// As [`Executor::play`], or if the program has fewer dispatches.
    pub fn play_part(&mut self, program: &Program, part: Range<usize>) -> Result<Play> {
        if self.profile.is_some() && self.gpu.has_timestamps() {
            return self.play_profiled(program, part);
        }
        let mut play = Play::default();
        for chunk in self.chunks(program, part) {
            let started = Instant::now();
            let pair = self.query_pair();
            let writes = pair.map(|(begin, end)| wgpu::ComputePassTimestampWrites {
                query_set: self.queries.as_ref().expect("a pair is from the set"),
                beginning_of_pass_write_index: Some(begin),
                end_of_pass_write_index: Some(end),
            });
            let command_buffer = self.encode(&program.name, &program.dispatches[chunk.clone()], writes);
            play.encode_seconds += started.elapsed().as_secs_f64();
            self.throttle()?;
            let started = Instant::now();
            let submission = self.gpu.queue.submit([command_buffer]);
            // A software driver may do an earlier submission's work in here, which is not the CPU's part.
            if !self.gpu.is_software() {
                play.encode_seconds += started.elapsed().as_secs_f64();
            }
            let units = program.dispatches[chunk].iter().map(|dispatch| units(dispatch.cost)).sum();
            self.in_flight.push_back(InFlight { submission, submitted: Instant::now(), units });
            play = play.join(Play { encode_seconds: 0.0, submissions: 1, queries: pair });
        }
        self.gpu.check()?;
        Ok(play)
    }

    /// Waits for everything that was submitted.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) and other faults of the device.
    pub fn finish(&mut self) -> Result<()> {
        self.in_flight.clear();
        self.gpu.wait(None)
    }

    /// A new run: forgets the plays whose [durations](Executor::durations) nobody has asked for, since only so many
    /// are kept.
    pub fn forget_durations(&mut self) {
        self.next_query = 0;
    }

    /// Seconds on the GPU of each play since the last call; `None` where the adapter has no timestamps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) and other faults of the device.
    pub fn durations(&mut self, plays: &[Play]) -> Result<Vec<Option<f64>>> {
        let times = match (&self.queries, std::mem::take(&mut self.next_query)) {
            (Some(queries), count @ 1..) => self.timestamps(queries, count)?,
            _ => Vec::new(),
        };
        let time = |index: u32| times.get(index as usize).copied();
        Ok(plays
            .iter()
            .map(|play| {
                let (begin, end) = play.queries?;
                Some(time(end)? - time(begin)?)
            })
            .collect())
    }

    /// Cuts a program into submissions that stay short on a GPU with a watchdog.
    fn chunks(&self, program: &Program, part: Range<usize>) -> Vec<Range<usize>> {
        let most = if self.gpu.is_software() {
            f64::INFINITY
        } else {
            (self.rate * SUBMISSION_SECONDS).max(LEAST_SUBMISSION)
        };
        let mut chunks = Vec::new();
        let (mut start, mut sum) = (part.start, 0.0);
        for (index, dispatch) in part.clone().zip(&program.dispatches[part.clone()]) {
            let cost = units(dispatch.cost);
            if sum + cost > most && index > start {
                chunks.push(start..index);
                (start, sum) = (index, 0.0);
            }
            sum += cost;
        }
        if start < part.end {
            chunks.push(start..part.end);
        }
        chunks
    }

    /// Waits until the device has room for one more submission, and learns how fast it is.
    fn throttle(&mut self) -> Result<()> {
        while self.in_flight.len() >= IN_FLIGHT {
            let Some(oldest) = self.in_flight.pop_front() else { break };
            self.gpu.wait(Some(oldest.submission))?;
            let now = Instant::now();
            let begun = self.last_done.map_or(oldest.submitted, |done| done.max(oldest.submitted));
            let seconds = now.duration_since(begun).as_secs_f64();
            if oldest.units >= LEAST_SUBMISSION && seconds > 0.0 {
                self.rate = 0.5 * (self.rate + oldest.units / seconds);
            }
            self.last_done = Some(now);
        }
        Ok(())
    }

    fn query_pair(&mut self) -> Option<(u32, u32)> {
        self.queries.as_ref()?;
        let begin = self.next_query;
        if begin + 2 > QUERIES {
            return None;
        }
        self.next_query += 2;
        Some((begin, begin + 1))
    }

    fn encode(
        &self,
        name: &str,
        dispatches: &[Prepared],
        timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
    ) -> wgpu::CommandBuffer {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(name) };
        let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
        let mut pass =
            encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some(name), timestamp_writes });
        for dispatch in dispatches {
            record(&mut pass, dispatch);
        }
        drop(pass);
        encoder.finish()
    }

    /// One pass per dispatch, each between two timestamps; waits for the result.
    fn play_profiled(&mut self, program: &Program, part: Range<usize>) -> Result<Play> {
        let started = Instant::now();
        let mut submissions = 0;
        for dispatches in program.dispatches[part].chunks(QUERIES as usize / 2) {
            let queries = query_set(&self.gpu, QUERIES);
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some(&program.name) };
            let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
            for (begin, dispatch) in (0..).step_by(2).zip(dispatches) {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                    label: Some(&dispatch.label),
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(begin),
                        end_of_pass_write_index: Some(begin + 1),
                    }),
                });
                record(&mut pass, dispatch);
            }
            self.gpu.queue.submit([encoder.finish()]);
            submissions += 1;
            let count = u32::try_from(2 * dispatches.len()).unwrap_or(QUERIES);
            let times = self.timestamps(&queries, count)?;
            let Some(profile) = &mut self.profile else { continue };
            for (pair, dispatch) in times.chunks_exact(2).zip(dispatches) {
                profile.add(&dispatch.label, pair[1] - pair[0], dispatch.cost.multiply_accumulates);
            }
        }
        Ok(Play { encode_seconds: started.elapsed().as_secs_f64(), submissions, queries: None })
    }

    /// The first `count` timestamps of a set, in seconds.
    fn timestamps(&self, queries: &wgpu::QuerySet, count: u32) -> Result<Vec<f64>> {
        let size = u64::from(count) * 8;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let descriptor =
            wgpu::BufferDescriptor { label: Some("timestamps"), size, usage, mapped_at_creation: false };
        let buffer = self.gpu.guarded("timestamps", size, || self.gpu.device.create_buffer(&descriptor))?;
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("timestamps") };
        let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
        encoder.resolve_query_set(queries, 0..count, &buffer, 0);
        self.gpu.queue.submit([encoder.finish()]);
        let bytes = read_buffer(&self.gpu, &buffer, 0, size)?;
        let period = f64::from(self.gpu.queue.get_timestamp_period()) * 1e-9;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        let first = ticks.first().copied().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "differences within one run are small")]
        let seconds = ticks.iter().map(|tick| tick.wrapping_sub(first) as i64 as f64 * period).collect();
        Ok(seconds)
    }
}

fn record(pass: &mut wgpu::ComputePass<'_>, dispatch: &Prepared) {
    pass.set_pipeline(&dispatch.pipeline.pipeline);
    pass.set_bind_group(0, &dispatch.bind_group, &[]);
    let [x, y, z] = dispatch.grid;
    pass.dispatch_workgroups(x, y, z);
}

fn query_set(gpu: &Gpu, count: u32) -> wgpu::QuerySet {
    gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("timestamps"),
        ty: wgpu::QueryType::Timestamp,
        count,
    })
}

/// One number for the work of a dispatch: a byte of traffic is worth several multiply-accumulates.
fn units(cost: Cost) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let units = cost.multiply_accumulates as f64 + 8.0 * cost.bytes as f64;
    units
}
