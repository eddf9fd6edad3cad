//! The recordings of a run, and the tensors that outlive them: no device is touched here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::VaeTiling;
use super::decoding::{DECODE, Decoding, attempts};
use super::encoding::{self, Encoding};
use super::frame::{Frame, Plan, recording_of};
use super::model::{Encoded, Model};
use crate::deepcache::Reuse;
use crate::error::Result;
use crate::gpu::choices::Choices;
use crate::gpu::recording::Recording;
use crate::kernels::activation::{Activation, activation};
use crate::kernels::forecast::{WEIGHTS, forecast};
use crate::kernels::similarity::{GROUPS, similarity};
use crate::models::unet::Flow;
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

/// What outlives a call.
#[derive(Debug)]
pub(super) struct Cache {
    /// Kept features of the last full calls, the newest first.
    pub(super) features: Vec<Tensor>,
    /// Weights of the features in every call, `[S, 3]`, where they are extrapolated.
    pub(super) weights: Option<Tensor>,
    pub(super) drift: Option<Drift>,
}

/// How far the deepest live skip tensor has moved since the last full call.
#[derive(Debug)]
pub(super) struct Drift {
    /// The skip tensor of the last full call.
    reference: Tensor,
    /// `[1, 64, 4]`.
    pub(super) sums: Tensor,
}

impl Cache {
    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let drift = self.drift.as_ref().map(|drift| [&drift.reference, &drift.sums]);
        self.features.iter().chain(&self.weights).chain(drift.into_iter().flatten())
    }
}

/// A run that has touched no device.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) frame: Frame,
    pub(super) decoding: Decoding,
    /// How pictures are encoded, where any are.
    pub(super) encoding: Option<Encoding>,
    /// What else could be tried where there is no memory for the encode: sides of tiles.
    smaller_encodes: VecDeque<Option<usize>>,
    /// What else could be tried where there is no memory for the decode: sides of tiles.
    smaller: VecDeque<Option<usize>>,
    pub(super) cache: Option<Cache>,
    /// What the text encoders make, where it outlives them.
    encoded: Option<Encoded>,
    pub(super) text: Option<Recording>,
    pub(super) condition: Recording,
    pub(super) full: Recording,
    pub(super) shallow: Option<Recording>,
    pub(super) decode: Vec<Recording>,
    pub(super) encode: Vec<Recording>,
    /// What decodes previews.
    pub(super) previews: Option<PreviewDecoding>,
}

/// The decode of previews.
#[derive(Debug)]
pub(super) struct PreviewDecoding {
    pub(super) decoding: Decoding,
    pub(super) recordings: Vec<Recording>,
}

/// What is ready on the device at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The encoder of pictures, where any are encoded; before all else.
    Encoding,
    /// Everything but that.
    Whole,
    /// The text encoders.
    Text,
    /// What follows from the condition, and the U-Net.
    Denoising,
    /// The decoder.
    Decoding,
}

impl Recorded {
    /// Records a run on a device that binds tensors of up to `limit` bytes.
    pub(super) fn new(
        model: &Model,
        plan: &Plan<'_>,
        cache: Option<CachePlan>,
        limit: u64,
        choices: &Arc<Choices>,
    ) -> Result<Self> {
        let frame = Frame::new(model, plan);
        let (text, encoded) = match plan.staged {
            true => frame.record_text(model, choices)?.unzip(),
            false => (None, None),
        };
        let condition = frame.record_condition(model, encoded.as_ref(), choices)?;
        let (full, shallow, cache) = match cache {
            Some(cache) => {
                let calls = plan.trajectory.calls.len();
                let (full, shallow, cache) = record_cached(&frame, model, cache, calls, choices)?;
                (full, Some(shallow), Some(cache))
            }
            None => (record_uncached(&frame, model, choices)?, None, None),
        };
        let mut smaller: VecDeque<_> = match plan.decodes {
            true => attempts(&model.decoder, plan.size, plan.tiling, limit, choices)?.into(),
            false => VecDeque::new(),
        };
        let decoding = match smaller.pop_front() {
            Some(side) => Decoding::new(&model.decoder, plan.size, side),
            None => Decoding::default(),
        };
        let decode = decoding.record(&model.decoder, DECODE, choices)?;
        let previews = record_previews(model, plan, limit, choices)?;
        let (size, tiling) = (plan.size, plan.tiling);
        let (encoding, encode, smaller_encodes) = match &model.encoder {
            Some(vae) if plan.encodes => {
                let mut smaller: VecDeque<_> = encoding::attempts(vae, size, tiling, limit, choices)?.into();
                let encoding = Encoding::new(vae, size, smaller.pop_front().flatten());
                let encode = encoding.record(vae, choices)?;
                (Some(encoding), encode, smaller)
            }
            _ => (None, Vec::new(), VecDeque::new()),
        };
        Ok(Self {
            frame,
            decoding,
            encoding,
            smaller_encodes,
            smaller,
            cache,
            encoded,
            text,
            condition,
            full,
            shallow,
            decode,
            previews,
            encode,
        })
    }

    /// Those that are ready in a stage.
    pub(super) fn of(&self, stage: Stage) -> Vec<&Recording> {
        let previews = || self.previews.iter().flat_map(|previews| &previews.recordings);
        let denoising = || [&self.condition, &self.full].into_iter().chain(&self.shallow).chain(previews());
        match stage {
            Stage::Whole => self.text.iter().chain(denoising()).chain(&self.decode).collect(),
            Stage::Encoding => self.encode.iter().collect(),
            Stage::Text => self.text.iter().collect(),
            Stage::Denoising => denoising().collect(),
            Stage::Decoding => self.decode.iter().collect(),
        }
    }

    pub(super) fn recordings(&self) -> Vec<&Recording> {
        let mut all = self.of(Stage::Encoding);
        all.extend(self.of(Stage::Whole));
        all
    }

    /// The tensors that live as long as the run, but those of the cache.
    pub(super) fn persistent(&self) -> impl Iterator<Item = &Tensor> {
        let encoded = self.encoded.iter().flat_map(Encoded::tensors);
        let previews = self.previews.iter().flat_map(|previews| previews.decoding.tensors());
        let encoding = self.encoding.iter().flat_map(Encoding::tensors);
        self.frame.tensors().chain(encoded).chain(self.decoding.tensors()).chain(previews).chain(encoding)
    }

    /// The tensors of the cache.
    pub(super) fn kept(&self) -> impl Iterator<Item = &Tensor> {
        self.cache.iter().flat_map(Cache::tensors)
    }

    /// Encodes in smaller pieces from now on. `None` if there are none; the tensors of the old pieces otherwise.
    pub(super) fn encode_smaller(
        &mut self,
        model: &Model,
        size: [usize; 2],
        choices: &Arc<Choices>,
    ) -> Result<Option<Encoding>> {
        let (Some(side), Some(vae)) = (self.smaller_encodes.pop_front(), &model.encoder) else {
            return Ok(None);
        };
        let encoding = Encoding::new(vae, size, side);
        self.encode = encoding.record(vae, choices)?;
        Ok(self.encoding.replace(encoding))
    }

    /// Decodes in smaller pieces from now on. `None` if there are none; the tensors of the old pieces otherwise.
    pub(super) fn decode_smaller(
        &mut self,
        model: &Model,
        size: [usize; 2],
        choices: &Arc<Choices>,
    ) -> Result<Option<Decoding>> {
        let Some(side) = self.smaller.pop_front() else { return Ok(None) };
        let decoding = Decoding::new(&model.decoder, size, side);
        self.decode = decoding.record(&model.decoder, DECODE, choices)?;
        Ok(Some(std::mem::replace(&mut self.decoding, decoding)))
    }
}

/// The decode of previews, if a decoder makes them: whole, or in the largest tiles that can be bound.
fn record_previews(
    model: &Model,
    plan: &Plan<'_>,
    limit: u64,
    choices: &Arc<Choices>,
) -> Result<Option<PreviewDecoding>> {
    let (Some(decoder), true) = (&model.preview, plan.previews.is_some_and(|wanted| wanted.are_decoded()))
    else {
        return Ok(None);
    };
    let sides = attempts(decoder, plan.size, VaeTiling::Auto, limit, choices)?;
    let decoding = Decoding::new(decoder, plan.size, sides.first().copied().flatten());
    let recordings = decoding.record(decoder, "preview", choices)?;
    Ok(Some(PreviewDecoding { decoding, recordings }))
}

/// A full step: input, U-Net, guidance, the scheduler's update.
fn record_uncached(frame: &Frame, model: &Model, choices: &Arc<Choices>) -> Result<Recording> {
    let mut recording = recording_of("full", choices);
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
    choices: &Arc<Choices>,
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
    let mut full = recording_of("full", choices);
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
    let mut shallow = recording_of("shallow", choices);
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
