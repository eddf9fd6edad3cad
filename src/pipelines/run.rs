//! One run on the device: its memory, its recordings, its programs.

use crate::deepcache::CacheSchedule;
use crate::error::{Error, Result};
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, Program, Purpose};
use crate::kernels::guidance::{GuidanceConfig, guidance};
use crate::kernels::pixels::pixels;
use crate::kernels::scale_model_input::scale_model_input;
use crate::kernels::scheduler_step::scheduler_step;
use crate::models::clip::ClipTextModel;
use crate::models::unet::{Conditioning, UNet};
use crate::models::vae::VaeDecoder;
use crate::schedulers::{Limit, Trajectory};
use crate::tensor::{ElementType, Tensor};

/// The models that a run plays.
#[derive(Debug)]
pub(super) struct Models {
    pub(super) clip: ClipTextModel,
    pub(super) unet: UNet,
    pub(super) vae: VaeDecoder,
}

/// What decides the shapes of a run.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Height and width of the latents.
    pub(super) size: [usize; 2],
    /// Tokens of a prompt.
    pub(super) tokens: usize,
    pub(super) trajectory: &'a Trajectory,
    /// `None` without classifier-free guidance.
    pub(super) guidance_scale: Option<f32>,
    /// Skip index of the kept feature.
    pub(super) branch: Option<usize>,
    pub(super) element: ElementType,
}

/// Everything of one run that lies on the device, except the weights.
#[derive(Debug)]
pub(super) struct Run {
    /// `[1 or 2, T]`: the negative prompt first.
    ids: Tensor,
    conditioning: Conditioning,
    /// `[1 + history, h * w * C]`.
    state: Tensor,
    table: Tensor,
    /// Noise of the current call, `[1, h, w, C]`, for samplers that draw any.
    noise: Option<Tensor>,
    kept: Option<Tensor>,
    /// Latents that are decoded, `[1, h, w, C]`.
    scaled: Tensor,
    /// `[1, H, W]`, packed.
    pixels: Tensor,
    programs: Programs,
    pub(super) dispatches: [usize; 2],
    pub(super) multiply_accumulates: [u64; 2],
}

#[derive(Debug)]
struct Programs {
    prompt: Program,
    full: Program,
    shallow: Option<Program>,
    decode: Program,
}

impl Run {
    /// Records the run, allocates what it keeps, and prepares its programs over one set of slots.
    pub(super) fn prepare(
        models: &Models,
        plan: &Plan<'_>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<Self> {
        let copies = if plan.guidance_scale.is_some() { 2 } else { 1 };
        let channels = models.unet.config().in_channels;
        let [height, width] = plan.size;
        let trajectory = plan.trajectory;
        let values = height * width * channels;
        let row = table_row_length(trajectory);

        let ids = Tensor::external("token_ids", [copies, plan.tokens], ElementType::U32);
        let conditioning = models.unet.conditioning(copies, plan.tokens, trajectory.calls.len());
        let state = Tensor::external("latents", [1 + trajectory.history, values], ElementType::F32);
        let table = Tensor::external("scheduler_table", [trajectory.calls.len(), row], ElementType::F32);
        let shape = [1, height, width, channels];
        let draws = trajectory.calls.iter().any(|call| call.uses_noise);
        let noise = draws.then(|| Tensor::external("noise", shape, ElementType::F32));
        let scaled = Tensor::external("scaled_latents", shape, plan.element);

        // 1. the prompt, and what follows from it once per run
        let mut prompt = executor.recording("prompt");
        let encoded = models.clip.record(&mut prompt.scope("text_encoder"), &ids)?; // [N, T, D]
        models.unet.record_conditioning(&mut prompt.scope("unet"), Some(&encoded), &conditioning)?;

        // 2. a full and a shallow step, each with guidance and the scheduler's update at its end
        let kept = match plan.branch {
            Some(branch) => Some((branch, models.unet.kept_feature(branch, copies, height, width)?)),
            None => None,
        };
        let step = conditioning.step();
        let record_step = |name: &str, network: &dyn Fn(&mut Recording, &Tensor) -> Result<Tensor>| {
            let mut recording = executor.recording(name);
            let sample = {
                let scheduler = &mut recording.scope("scheduler");
                scale_model_input(scheduler, &state, &table, step, shape, copies, plan.element)? // [N, h, w, C]
            };
            let output = network(&mut recording, &sample)?; // [N, h, w, C]
            {
                let scheduler = &mut recording.scope("scheduler");
                let output = guidance(scheduler, &output, plan.guidance_scale.map(|scale| GuidanceConfig{scale, rescale: 0.0}).as_ref())?; // [1, h, w, C]
                scheduler_step(scheduler, &state, &output, [noise.as_ref(), None], &table, step)?;
            }
            Ok::<_, Error>(recording)
        };
        let full = record_step("full", &|recording, sample| {
            let keep = kept.as_ref().map(|(branch, kept)| (*branch, kept));
            models.unet.record_full(&mut recording.scope("unet"), sample, &conditioning, keep)
        })?;
        let shallow = match &kept {
            Some((branch, kept)) => Some(record_step("shallow", &|recording, sample| {
                models.unet.record_shallow(&mut recording.scope("unet"), sample, &conditioning, *branch, kept)
            })?),
            None => None,
        };

        // 3. the picture
        let mut decode = executor.recording("decode");
        let image = models.vae.record(&mut decode.scope("vae"), &scaled)?; // [1, H, W, 3]
        let packed = pixels(&mut decode.scope("vae"), &image)?; // [1, H, W]
        let pixels = Tensor::external("pixels", packed.shape().clone(), ElementType::U32);
        decode.place(&packed, &pixels);

        let kept = kept.map(|(_, kept)| kept);
        let own = [&ids, &state, &table, &scaled, &pixels];
        let persistent: Vec<&Tensor> = conditioning.tensors().chain(own).chain(&noise).collect();
        let mut recordings = vec![&prompt, &full, &decode];
        recordings.extend(&shallow);
        // What is too large for this device is found before anything is allocated.
        let programs = memory
            .check(&recordings)
            .and_then(|()| memory.allocate(persistent.iter().copied(), Purpose::Persistent))
            .and_then(|()| memory.allocate(&kept, Purpose::Cache))
            .and_then(|()| executor.prepare(memory, &recordings))
            .inspect_err(|_| {
                for tensor in persistent.iter().copied().chain(&kept) {
                    memory.release(tensor);
                }
            })?;
        let mut programs = programs.into_iter();
        let mut next = || programs.next().expect("a program for every recording");
        let programs =
            Programs { prompt: next(), full: next(), decode: next(), shallow: shallow.is_some().then(next) };
        let shallow = programs.shallow.as_ref();
        Ok(Self {
            ids,
            state,
            table,
            noise,
            kept,
            scaled,
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
        let own = [&self.ids, &self.state, &self.table, &self.scaled, &self.pixels];
        for tensor in self.conditioning.tensors().chain(own).chain(&self.noise).chain(&self.kept) {
            memory.release(tensor);
        }
    }

    /// Encodes the prompts and computes what is constant over the run.
    pub(super) fn encode(
        &self,
        models: &Models,
        trajectory: &Trajectory,
        ids: &[u32],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<()> {
        memory.write(&self.ids, 0, bytemuck::cast_slice(ids))?;
        memory.write(
            self.conditioning.timesteps(),
            0,
            bytemuck::cast_slice(&floats(&trajectory.timesteps)),
        )?;
        memory.write(self.conditioning.frequencies(), 0, bytemuck::cast_slice(&models.unet.frequencies()))?;
        memory.write(&self.table, 0, bytemuck::cast_slice(&table_rows(trajectory)?))?;
        executor.play(&self.programs.prompt)?;
        executor.finish()
    }

    /// Starts a picture from its initial latents, `[h, w, C]`, already of the scheduler's sigma.
    pub(super) fn start(&self, latents: &[f32], memory: &mut Memory) -> Result<()> {
        let planes = self.state.shape().extents()[0];
        let mut state = latents.to_vec();
        state.resize(planes * latents.len(), 0.0);
        memory.write(&self.state, 0, bytemuck::cast_slice(&state))
    }

    /// Submits one U-Net call.
    pub(super) fn step(
        &self,
        call: usize,
        full: bool,
        noise: Option<&[f32]>,
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<crate::gpu::Play> {
        if let (Some(tensor), Some(values)) = (&self.noise, noise) {
            memory.write(tensor, 0, bytemuck::cast_slice(values))?;
        }
        let row = u32::try_from(call).unwrap_or(u32::MAX);
        memory.write(self.conditioning.step(), 0, bytemuck::bytes_of(&row))?;
        match &self.programs.shallow {
            Some(shallow) if !full => executor.play(shallow),
            _ => executor.play(&self.programs.full),
        }
    }

    /// The latents, `[h, w, C]`, once everything submitted is done.
    pub(super) fn latents(&self, memory: &Memory) -> Result<Vec<f32>> {
        let mut values: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&self.state)?);
        values.truncate(self.state.shape().channels());
        Ok(values)
    }

    /// Decodes latents, `[h, w, C]`, already divided by the scaling factor: width, height, RGB.
    pub(super) fn decode(
        &self,
        latents: &[f32],
        memory: &mut Memory,
        executor: &mut Executor,
    ) -> Result<(u32, u32, Vec<u8>)> {
        let bytes = match self.scaled.element() {
            ElementType::F16 => {
                latents.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()
            }
            _ => bytemuck::cast_slice(latents).to_vec(),
        };
        memory.write(&self.scaled, 0, &bytes)?;
        executor.play(&self.programs.decode)?;
        let packed = memory.read(&self.pixels)?;
        let extents = self.pixels.shape().extents();
        let side = |index: usize| u32::try_from(extents[index]).unwrap_or(u32::MAX);
        let rgb = packed.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        Ok((side(2), side(1), rgb))
    }
}

/// Which calls are full; all of them without a cache.
pub(super) fn full_calls(schedule: Option<&CacheSchedule>, calls: usize) -> Result<Vec<bool>> {
    schedule.map_or_else(|| Ok(vec![true; calls]), |schedule| schedule.full_calls(calls))
}

fn table_row_length(trajectory: &Trajectory) -> usize {
    let rows = 1 + trajectory.history;
    4 + rows * (4 + trajectory.history)
}

/// The rows that `scale_model_input` and `scheduler_step` read.
///
/// # Errors
/// [`Error::Option`] if the scheduler's file asks for dynamic thresholding, which the kernel does not do.
fn table_rows(trajectory: &Trajectory) -> Result<Vec<f32>> {
    let mut rows = Vec::with_capacity(trajectory.calls.len() * table_row_length(trajectory));
    for call in &trajectory.calls {
        let clipped = call.prediction.as_ref();
        let range = match clipped.map(|clipped| clipped.limit) {
            None => 0.0,
            Some(Limit::Clamp { range }) => range,
            Some(Limit::Quantile { .. }) => {
                let problem = "\"thresholding\" is not supported on the device: expected false, found true";
                return Err(Error::option("scheduler", problem));
            }
        };
        rows.extend(floats(&[
            call.input_scale,
            clipped.map_or(0.0, |clipped| clipped.sample_weight),
            clipped.map_or(0.0, |clipped| clipped.output_weight),
            range,
        ]));
        rows.extend(floats(&call.matrix));
    }
    Ok(rows)
}

fn floats(values: &[f64]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    values.iter().map(|&value| value as f32).collect()
}
