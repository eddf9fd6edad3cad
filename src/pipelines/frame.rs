//! What every run has on the device, whatever it does between a sample and its update.

use std::sync::Arc;

use crate::error::Result;
use crate::gpu::Memory;
use crate::gpu::choices::Choices;
use crate::gpu::recording::Recording;
use crate::kernels::blend_outside::blend_outside;
use crate::kernels::dynamic_threshold::dynamic_threshold;
use crate::kernels::finite::{Row, finite};
use crate::kernels::guidance::{GuidanceConfig, guidance};
use crate::kernels::scale_model_input::scale_model_input;
use crate::kernels::scheduler_step::scheduler_step;
use crate::models::unet::{Conditioning, Context};
use crate::pipelines::VaeTiling;
use crate::pipelines::checks::Sizes;
use crate::pipelines::model::{Encoded, Model};
use crate::pipelines::previews::Previews;
use crate::pipelines::source::Masking;
use crate::pipelines::table::{row_length, rows};
use crate::pipelines::wording::Wording;
use crate::schedulers::{Limit, Trajectory};
use crate::tensor::{ElementType, Tensor};

/// What decides the shapes of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// Height and width of the sample.
    pub(super) size: [usize; 2],
    pub(super) trajectory: &'a Trajectory,
    pub(super) guidance: Guidance,
    pub(super) element: ElementType,
    /// What a model that reads sizes is told about the picture.
    pub(super) sizes: Sizes,
    pub(super) tiling: VaeTiling,
    pub(super) previews: Option<Previews>,
    /// Whether only the weights that are needed are on the device.
    pub(super) staged: bool,
    /// Whether pictures are made in the end.
    pub(super) decodes: bool,
    pub(super) wording: Wording,
    /// Whether pictures are encoded before anything else.
    pub(super) encodes: bool,
    pub(super) masking: Masking,
}

/// How a run follows its condition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Guidance {
    /// The condition as it is.
    None,
    /// Classifier-free guidance: away from what the model makes without the condition.
    Free(GuidanceConfig),
    /// The network reads the scale, as distilled ones do.
    Read { scale: f32 },
}

impl Guidance {
    /// Samples of one call of the U-Net.
    fn copies(self) -> usize {
        if self.is_free() { 2 } else { 1 }
    }

    /// Whether every call has the sample twice.
    pub(super) fn is_free(self) -> bool {
        matches!(self, Self::Free(_))
    }

    pub(super) fn scale(self) -> Option<f32> {
        match self {
            Self::None => None,
            Self::Free(config) => Some(config.scale),
            Self::Read { scale } => Some(scale),
        }
    }

    fn of_predictions(&self) -> Option<&GuidanceConfig> {
        match self {
            Self::Free(config) => Some(config),
            Self::None | Self::Read { .. } => None,
        }
    }
}

/// The persistent tensors of a run, and the recordings that all runs share.
#[derive(Debug)]
pub(super) struct Frame {
    /// `[1, h, w, C]`.
    pub(super) shape: [usize; 4],
    /// Samples of one call of the U-Net: two with guidance.
    pub(super) copies: usize,
    pub(super) conditioning: Conditioning,
    pub(super) element: ElementType,
    /// What the context is made from, `[copies, ..]` each: what stands for no condition first. None for a model
    /// without a condition.
    inputs: Vec<Tensor>,
    wording: Wording,
    sizes: Sizes,
    /// The sample, and what the sampler keeps of earlier calls: `[1 + history, h * w * C]`.
    pub(super) state: Tensor,
    table: Tensor,
    /// `[S]`: 1 for every call whose output holds a value that is not finite.
    pub(super) faults: Tensor,
    /// Noise of the current call, `[1, h, w, C]`, for samplers that draw any.
    noise: Option<Tensor>,
    /// The model's output, `[1, h, w, C]`, f32, where previews are made of it.
    output: Option<Tensor>,
    guidance: Guidance,
    /// Ratio and largest bound of dynamic thresholding.
    quantile: Option<[f32; 2]>,
    /// What the U-Net reads beside the sample, `[1, h, w, E]`: a mask, and the latents of a masked picture.
    beside: Option<Tensor>,
    outside: Option<Outside>,
}

/// What is put back where a mask leaves the picture alone.
#[derive(Debug)]
struct Outside {
    /// The latents of the picture, `[1, h, w, C]`.
    clean: Tensor,
    /// The noise that was added to them, `[1, h, w, C]`.
    noise: Tensor,
    /// `[1, h, w, 1]`.
    mask: Tensor,
    /// Weights of latents and noise after each call, `[S, 2]`.
    levels: Tensor,
}

impl Outside {
    fn tensors(&self) -> [&Tensor; 4] {
        [&self.clean, &self.noise, &self.mask, &self.levels]
    }
}

impl Frame {
    pub(super) fn new(model: &Model, plan: &Plan<'_>) -> Self {
        let copies = plan.guidance.copies();
        let channels = model.latent_channels();
        let [height, width] = plan.size;
        let trajectory = plan.trajectory;
        let shape = [1, height, width, channels];
        let calls = trajectory.calls.len();

        let tokens = model.conditioner.tokens(&plan.wording);
        let planes = [1 + trajectory.history, height * width * channels];
        let row = row_length(trajectory);
        let external = |name: &str, shape: &[usize]| Tensor::external(name, shape, ElementType::F32);
        Self {
            shape,
            copies,
            conditioning: model.unet.conditioning(copies, tokens, calls),
            element: plan.element,
            inputs: model.conditioner.inputs(&plan.wording),
            wording: plan.wording,
            sizes: plan.sizes,
            state: Tensor::external("latents", planes, ElementType::F32),
            table: Tensor::external("scheduler_table", [calls, row], ElementType::F32),
            faults: Tensor::external("faults", [calls], ElementType::F32),
            noise: trajectory.draws_noise().then(|| Tensor::external("noise", shape, ElementType::F32)),
            output: plan.previews.map(|_| Tensor::external("output", shape, ElementType::F32)),
            guidance: plan.guidance,
            quantile: quantile(trajectory),
            beside: (plan.masking == Masking::Read)
                .then(|| external("beside", &[1, height, width, model.channels_beside()])),
            outside: (plan.masking == Masking::Blend).then(|| Outside {
                clean: external("clean_latents", &shape),
                noise: external("added_noise", &shape),
                mask: external("mask", &[1, height, width, 1]),
                levels: external("noise_levels", &[calls, 2]),
            }),
        }
    }

    /// Everything that is to be allocated.
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let own = [&self.state, &self.table, &self.faults];
        let masking = self.beside.iter().chain(self.outside.iter().flat_map(Outside::tensors));
        let calls = self.noise.iter().chain(&self.output);
        self.conditioning.tensors().chain(own).chain(calls).chain(&self.inputs).chain(masking)
    }

    /// The tables and inputs of sampler and condition.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Tensor> {
        let text_time = self.conditioning.text_time();
        let sizes = text_time.map(|text_time| [&text_time.sizes, &text_time.frequencies, &text_time.rows]);
        let steps =
            [self.conditioning.timesteps(), self.conditioning.frequencies(), self.conditioning.step()];
        let own = [&self.table, &self.faults].into_iter().chain(steps).chain(&self.inputs);
        let guidance = self.conditioning.guidance().into_iter().flatten();
        own.chain(sizes.into_iter().flatten()).chain(guidance)
    }

    /// Records the text encoders by themselves, and what they make, which outlives them.
    pub(super) fn record_text(
        &self,
        model: &Model,
        choices: &Arc<Choices>,
    ) -> Result<Option<(Recording, Encoded)>> {
        let mut recording = recording_of("text", choices);
        let encoded = model.conditioner.record_text(&mut recording, &self.inputs, &self.wording)?;
        Ok(encoded.map(|encoded| (recording, encoded)))
    }

    /// Records the condition, unless it was encoded before, and what follows from it once per run.
    pub(super) fn record_condition(
        &self,
        model: &Model,
        encoded: Option<&Encoded>,
        choices: &Arc<Choices>,
    ) -> Result<Recording> {
        let mut recording = recording_of("condition", choices);
        let own = match encoded {
            Some(_) => None,
            None => model.conditioner.record(&mut recording, &self.inputs, &self.wording)?,
        };
        let context = encoded.or(own.as_ref()).map_or_else(Context::default, Encoded::context);
        model.unet.record_conditioning(&mut recording.scope("unet"), context, &self.conditioning)?;
        Ok(recording)
    }

    /// Records the sample as the U-Net wants it: `[copies, h, w, C]`, or with more channels beside it.
    pub(super) fn record_input(&self, recording: &mut Recording) -> Result<Tensor> {
        let recording = &mut recording.scope("scheduler");
        let own = [&self.state, &self.table, self.conditioning.step()];
        scale_model_input(recording, own, self.beside.as_ref(), self.shape, self.copies, self.element)
    }

    /// Records guidance: a prediction `[copies, h, w, C]` to the model's output `[1, h, w, C]`, f32.
    pub(super) fn record_guidance(&self, recording: &mut Recording, prediction: &Tensor) -> Result<Tensor> {
        let output = guidance(&mut recording.scope("scheduler"), prediction, self.guidance.of_predictions())?;
        if let Some(place) = &self.output {
            recording.place(&output, place);
        }
        Ok(output)
    }

    /// Records the scheduler's update of the sample with the model's output `[1, h, w, C]`.
    pub(super) fn record_update(&self, recording: &mut Recording, output: &Tensor) -> Result<()> {
        let recording = &mut recording.scope("scheduler");
        let (state, table, step) = (&self.state, &self.table, self.conditioning.step());
        finite(recording, output, step, &self.faults, Row::Step)?;
        let threshold = match self.quantile {
            Some(limits) => Some(dynamic_threshold(recording, state, output, table, step, limits)?), // [1]
            None => None,
        };
        scheduler_step(recording, state, output, [self.noise.as_ref(), threshold.as_ref()], table, step)?;
        match &self.outside {
            Some(Outside { clean, noise, mask, levels }) => {
                blend_outside(recording, state, [clean, noise, mask], levels, step)
            }
            None => Ok(()),
        }
    }

    /// Writes what is constant over the run.
    pub(super) fn begin(&self, model: &Model, trajectory: &Trajectory, memory: &mut Memory) -> Result<()> {
        let timesteps = floats(&trajectory.timesteps);
        memory.write(self.conditioning.timesteps(), 0, bytemuck::cast_slice(&timesteps))?;
        let frequencies = model.unet.frequencies();
        memory.write(self.conditioning.frequencies(), 0, bytemuck::cast_slice(&frequencies))?;
        if let Some(text_time) = self.conditioning.text_time() {
            // What stands for no condition first, where there is guidance.
            let told = self.sizes[2 - self.copies..].iter().map(|sizes| &sizes[..text_time.told()]);
            let sizes: Vec<f32> = told.flatten().copied().collect();
            let frequencies = model.unet.size_frequencies();
            memory.write(&text_time.sizes, 0, bytemuck::cast_slice(&sizes))?;
            memory.write(&text_time.frequencies, 0, bytemuck::cast_slice(&frequencies))?;
            memory.write(&text_time.rows, 0, bytemuck::cast_slice(&text_time.row_values()))?;
        }
        if let (Some([scales, frequencies]), Guidance::Read { scale }) =
            (self.conditioning.guidance(), self.guidance)
        {
            let values = vec![1000.0 * (scale - 1.0); trajectory.timesteps.len()];
            memory.write(scales, 0, bytemuck::cast_slice(&values))?;
            memory.write(frequencies, 0, bytemuck::cast_slice(&model.unet.guidance_frequencies()))?;
        }
        if let Some(outside) = &self.outside {
            let after = trajectory.noise_levels.iter().skip(1).flat_map(|level| [level.signal, level.noise]);
            // The picture itself after the last call.
            let levels: Vec<f64> = after.chain([1.0, 0.0]).collect();
            memory.write(&outside.levels, 0, bytemuck::cast_slice(&floats(&levels)))?;
        }
        memory.write(&self.table, 0, bytemuck::cast_slice(&rows(trajectory)))
    }

    /// Writes a mask `[h, w]`, and what belongs to it: the latents `[h, w, C]` of the masked picture where the U-Net
    /// reads them.
    pub(super) fn write_mask(&self, mask: &[f32], masked: Option<&[f32]>, memory: &mut Memory) -> Result<()> {
        if let (Some(beside), Some(masked)) = (&self.beside, masked) {
            let pixels = mask.iter().zip(masked.chunks_exact(self.shape[3]));
            let values: Vec<f32> =
                pixels.flat_map(|(mask, latents)| [mask].into_iter().chain(latents)).copied().collect();
            memory.write(beside, 0, bytemuck::cast_slice(&values))?;
        }
        match &self.outside {
            Some(outside) => memory.write(&outside.mask, 0, bytemuck::cast_slice(mask)),
            None => Ok(()),
        }
    }

    /// Writes what is put back outside of the mask: latents and noise of one picture, `[h, w, C]` each.
    pub(super) fn write_outside(&self, clean: &[f32], noise: &[f32], memory: &mut Memory) -> Result<()> {
        let Some(outside) = &self.outside else { return Ok(()) };
        memory.write(&outside.clean, 0, bytemuck::cast_slice(clean))?;
        memory.write(&outside.noise, 0, bytemuck::cast_slice(noise))
    }

    /// Writes the inputs of a condition.
    pub(super) fn write_condition(&self, inputs: &[Vec<u32>], memory: &mut Memory) -> Result<()> {
        for (tensor, values) in self.inputs.iter().zip(inputs) {
            memory.write(tensor, 0, bytemuck::cast_slice(values))?;
        }
        Ok(())
    }

    /// Starts a picture from its initial sample, `[h, w, C]`, already of the scheduler's sigma.
    pub(super) fn start(&self, sample: &[f32], memory: &mut Memory) -> Result<()> {
        let planes = self.state.shape().extents()[0];
        let mut state = sample.to_vec();
        state.resize(planes * sample.len(), 0.0);
        let faults = vec![0.0_f32; self.faults.shape().count()];
        memory.write(&self.faults, 0, bytemuck::cast_slice(&faults))?;
        memory.write(&self.state, 0, bytemuck::cast_slice(&state))
    }

    /// Writes what belongs to one call.
    pub(super) fn write_call(&self, call: usize, noise: Option<&[f32]>, memory: &mut Memory) -> Result<()> {
        if let (Some(tensor), Some(values)) = (&self.noise, noise) {
            memory.write(tensor, 0, bytemuck::cast_slice(values))?;
        }
        let row = u32::try_from(call).unwrap_or(u32::MAX);
        memory.write(self.conditioning.step(), 0, bytemuck::bytes_of(&row))
    }

    /// The model's output in the last call, `[h, w, C]`, once everything submitted is done; only with previews.
    pub(super) fn output(&self, memory: &Memory) -> Result<Vec<f32>> {
        let output = self.output.as_ref().expect("a run with previews keeps the output");
        Ok(bytemuck::pod_collect_to_vec(&memory.read(output)?))
    }

    /// The denoised sample, `[h, w, C]`, once everything submitted is done.
    pub(super) fn denoised(&self, memory: &Memory) -> Result<Vec<f32>> {
        let mut values: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&self.state)?);
        values.truncate(self.state.shape().channels());
        Ok(values)
    }
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

/// A new recording whose kernels are chosen so.
pub(super) fn recording_of(name: &str, choices: &Arc<Choices>) -> Recording {
    Recording::new(name).with_choices(Arc::clone(choices))
}

/// What the device computes with.
pub(super) fn floats(values: &[f64]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    values.iter().map(|&value| value as f32).collect()
}
