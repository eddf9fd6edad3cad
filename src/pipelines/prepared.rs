//! A request, checked against a model, and its sampler planned.

use super::cache::warnings;
use super::checks::{Context, Sizes, context, guidance, sample_shape, sizes, usual_steps};
use super::frame::{Guidance, Plan};
use super::model::{Inputs, Model};
use super::previews::Previews;
use super::source::{Masking, Source, Start, masking};
use super::wording::Wording;
use super::{Request, StorageType, VaeTiling};
use crate::error::{Error, Result};
use crate::schedulers::{SamplerOptions, SchedulerKind, Trajectory};

/// A request that was found possible.
#[derive(Debug)]
pub(super) struct Prepared {
    /// `[N, C, h, w]`.
    pub(super) shape: [usize; 4],
    pub(super) scheduler: SchedulerKind,
    pub(super) trajectory: Trajectory,
    pub(super) guidance: Guidance,
    /// What the condition is made from, for every picture, or one for all.
    pub(super) inputs: Vec<Inputs>,
    /// What a model that reads sizes is told about the pictures.
    pub(super) sizes: Sizes,
    pub(super) wording: Wording,
    pub(super) tiling: VaeTiling,
    pub(super) previews: Option<Previews>,
    /// What a run that does not begin with noise alone begins with.
    pub(super) source: Option<Source>,
    /// Whether the run begins with the latents of the request as they are.
    pub(super) goes_on: bool,
    /// Whether pictures are made of its latents.
    pub(super) decodes: bool,
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    /// What decides the shapes of a run.
    pub(super) fn plan(&self, storage: StorageType, staged: bool) -> Plan<'_> {
        let [_, _, height, width] = self.shape;
        let element = storage.element();
        let size = [height, width];
        let &Self { ref trajectory, guidance, sizes, wording, tiling, previews, .. } = self;
        let masking = self.source.as_ref().map_or(Masking::None, |source| source.masking);
        let encodes = self.source.is_some();
        Plan {
            size,
            trajectory,
            guidance,
            element,
            sizes,
            wording,
            tiling,
            previews,
            staged,
            decodes: self.decodes,
            encodes,
            masking,
        }
    }
}

/// A run that goes on has the latents of another, and nothing else to begin with.
fn check_shares(request: &Request) -> Result<()> {
    const OPTION: &str = "denoising start";
    if request.denoising_start.is_none() {
        return Ok(());
    }
    if request.image.is_some() {
        return Err(Error::option(OPTION, "the run goes on with latents: expected no image"));
    }
    if request.latents.is_none() {
        let problem = "the run goes on with the latents of another: expected latents";
        return Err(Error::option(OPTION, problem));
    }
    Ok(())
}

/// Checks a request, and plans its sampler.
pub(super) fn prepare(model: &Model, request: &Request) -> Result<Prepared> {
    let masking = masking(model, request)?;
    let shape = sample_shape(model, request)?;
    let source = Source::new(model, request, masking, [shape[2], shape[3]]);
    let kind = request.scheduler.or_else(|| model.scheduler.kind()).ok_or_else(|| {
        let class = model.scheduler.class_name().unwrap_or("none");
        let names = SchedulerKind::ALL.map(SchedulerKind::name).join(", ");
        let problem = format!("the model's own, {class}, is not supported; choose one of {names}");
        Error::option("scheduler", problem)
    })?;
    let usual = usual_steps(model, kind == SchedulerKind::Ddpm);
    let guidance = guidance(model, request)?;
    let steps = request.steps.unwrap_or(usual);
    let start = Start::new(model, request, kind, guidance, steps)?;
    let options = SamplerOptions {
        kind,
        steps,
        eta: request.eta,
        sigmas: request.sigmas,
        timestep_spacing: request.timestep_spacing,
        distillation_share: start.distillation_share,
    };
    let mut trajectory = model.scheduler.trajectory(&options)?;
    check_shares(request)?;
    let mut calls =
        model.scheduler.calls_between(&trajectory, kind, request.denoising_start, request.denoising_end)?;
    calls.start = calls.start.max(start.skipped * kind.calls_per_step());
    if calls.is_empty() {
        let problem = "ends before the strength of the image lets the run begin: expected more of either";
        return Err(Error::option("denoising end", problem));
    }
    if calls != (0..trajectory.calls.len()) {
        trajectory = model.scheduler.trajectory_part(&options, calls)?;
    }
    if let Some(cache) = &request.cache {
        model.unet.check_skip_index(cache.branch)?;
    }
    let sizes = sizes(model, request, shape)?;
    let previews = Previews::of(model, request)?;
    let Context { inputs, wording, warnings: mut told } =
        context(model, request, guidance.is_free(), shape[0])?;
    told.extend(warnings(request, kind, &trajectory));
    let (tiling, warnings) = (request.vae_tiling, told);
    Ok(Prepared {
        shape,
        scheduler: kind,
        trajectory,
        guidance,
        inputs,
        sizes,
        wording,
        tiling,
        previews,
        source,
        goes_on: request.denoising_start.is_some(),
        decodes: request.denoising_end.is_none(),
        warnings,
    })
}
