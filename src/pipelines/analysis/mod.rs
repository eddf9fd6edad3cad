//! How a model's deep features change over an uncached run, and what reusing them would do.

mod branch;
mod stages;
mod study;
mod trials;
mod weights;

use std::ops::ControlFlow;

use serde::Serialize;

use self::study::Study;
use super::model::Model;
use super::prepared::{Prepared, prepare};
use super::{DiffusionPipeline, Latents, Progress, Request};
use crate::deepcache::{BranchProfile, CacheProfile, ProfileSubject};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::models::unet::UNetConfig;

/// What an analysis looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnalysisOptions {
    /// Skip branches whose features are kept and compared between all pairs of calls.
    pub branches: Vec<usize>,
    /// For so many calls of the run, spread over it, it is measured what a change of the model's output leaves in
    /// the final latents; it takes a whole run for every two of them. 0 leaves the weights out.
    pub probes: usize,
}

/// What an analysis found in one uncached picture.
#[derive(Clone, Debug)]
pub struct Analysis {
    /// The picture.
    pub picture: Picture,
    /// The final latents.
    pub latents: Latents,
    /// What the run was, for [`CacheProfile`](crate::deepcache::CacheProfile).
    pub subject: ProfileSubject,
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
    /// Row `i`, column `j`: that distance as a root mean square over the feature's values.
    pub distances: Vec<Vec<f64>>,
    /// For every call, what a distance of 1 between the feature and what stands for it leaves in the final latents,
    /// as a root mean square; measured in [some calls](AnalysisOptions::probes), interpolated between. 0 for the
    /// first call, which is always full. `None` without probes.
    pub weights: Option<Vec<f64>>,
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
    /// The kept features take [`BranchAnalysis::cache_bytes`] for every call and branch. There are no previews.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`], and [`Error::Option`] if there is no such branch, none at all or one twice.
    pub fn analyze(
        &mut self,
        request: &Request,
        options: &AnalysisOptions,
        mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Analysis> {
        let request = Request { cache: None, preview_every: None, ..request.clone() };
        let prepared = prepare(&self.model, &request)?;
        if prepared.source.is_some() {
            return Err(Error::option("image", "an analysis starts from noise: leave it out"));
        }
        if prepared.goes_on || !prepared.decodes {
            let option = if prepared.goes_on { "denoising start" } else { "denoising end" };
            return Err(Error::option(option, "an analysis is of a whole run: leave it out"));
        }
        if options.branches.is_empty() {
            return Err(Error::option("cache branch", "an analysis needs at least one"));
        }
        for (index, branch) in options.branches.iter().enumerate() {
            self.model.unet.check_skip_index(*branch)?;
            if options.branches[..index].contains(branch) {
                return Err(Error::option("cache branch", format!("{branch} is there twice")));
            }
        }
        let study = Study::prepare(self, &prepared, options)?;
        let outcome = study.run(self, &request, &prepared, &mut progress);
        study.release(&mut self.memory);
        outcome
    }
}

impl DiffusionPipeline {
    /// The kind of run that a request asks for, which a [`CacheProfile`] must be of.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::generate`] before anything runs.
    pub fn profile_subject(&self, request: &Request) -> Result<ProfileSubject> {
        subject_of(&self.model, request)
    }
}

/// The kind of run that a request asks a model for.
pub(super) fn subject_of(model: &Model, request: &Request) -> Result<ProfileSubject> {
    let request = Request { cache: None, ..request.clone() };
    Ok(subject(model.unet.config(), &prepare(model, &request)?))
}

fn subject(unet: &UNetConfig, prepared: &Prepared) -> ProfileSubject {
    ProfileSubject {
        in_channels: unet.in_channels,
        block_out_channels: unet.block_out_channels.clone(),
        layers_per_block: unet.layers_per_block,
        scheduler: prepared.scheduler.name().to_owned(),
        timesteps: prepared.trajectory.timesteps.clone(),
        guided: prepared.guidance.is_free(),
    }
}

impl Analysis {
    /// What later runs can plan with.
    ///
    /// # Errors
    /// [`Error::Option`] if the analysis had no [probes](AnalysisOptions::probes).
    pub fn profile(&self) -> Result<CacheProfile> {
        let branches: Result<Vec<BranchProfile>> =
            self.branches.iter().map(|branch| branch.profile(self)).collect();
        Ok(CacheProfile::new(self.subject.clone(), branches?))
    }
}

impl BranchAnalysis {
    fn profile(&self, analysis: &Analysis) -> Result<BranchProfile> {
        let Some(weights) = self.weights.clone() else {
            return Err(Error::option("probes", "a cache profile needs at least 1, found 0"));
        };
        let rows = self.distances.iter().enumerate();
        let distances = rows.map(|(call, row)| row[call + 1..].to_vec()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
        let shallow_cost = self.macs_shallow as f64 / analysis.macs_full as f64;
        Ok(BranchProfile { branch: self.branch, shallow_cost, weights, distances, trials: Vec::new() })
    }
}
