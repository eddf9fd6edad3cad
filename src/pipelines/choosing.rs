//! How a loaded model's kernels are chosen, and how that is tuned.

use std::time::Duration;

use super::cache::CacheRun;
use super::prepared::prepare;
use super::recorded::Recorded;
use super::{DiffusionPipeline, Request, TunedProduct, Tuning, tune};
use crate::error::Result;
use crate::gpu::choices::{Choice, Tuned};
use crate::gpu::recording::Recording;

impl DiffusionPipeline {
    /// How every matrix product of a request is cut into workgroups, and why; nothing is run.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a request that cannot be honoured.
    pub fn choices(&self, request: &Request) -> Result<Vec<Choice>> {
        let recorded = self.record(request)?;
        let mut all: Vec<Choice> = Vec::new();
        for choice in recorded.recordings().into_iter().flat_map(Recording::chosen) {
            if !all.contains(choice) {
                all.push(*choice);
            }
        }
        Ok(all)
    }

    /// Finds out, in about `budget`, which way of cutting the products of a request is fastest on this device, and
    /// uses it from now on. `told` hears of every product when it is done.
    ///
    /// Sums are then added in another order, so that pictures change by rounding.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a request that cannot be honoured, and faults of the device.
    pub fn tune(
        &mut self,
        request: &Request,
        budget: Duration,
        told: impl FnMut(&TunedProduct),
    ) -> Result<Tuning> {
        let recorded = self.record(request)?;
        let tuning = tune(&self.gpu, &recorded.recordings(), budget, told)?;
        let mut tuned = self.executor.choices().tuned.clone();
        tuned.extend(tuning.tuned());
        self.executor.set_tuned(tuned);
        Ok(tuning)
    }

    /// From now on, products are cut as was found best for this device; what does not fit is left out.
    pub fn set_tuned(&mut self, tuned: Tuned) {
        self.executor.set_tuned(tuned);
    }

    /// Records a request's run without touching the device.
    fn record(&self, request: &Request) -> Result<Recorded> {
        let prepared = prepare(&self.model, request)?;
        let cache = match &request.cache {
            Some(options) => CacheRun::new(options, prepared.trajectory.calls.len())?,
            None => None,
        };
        let kept = cache.as_ref().map(CacheRun::plan);
        Recorded::new(
            &self.model,
            &prepared.plan(self.storage, self.weights.are_staged()),
            kept,
            self.gpu.binding_limit(),
            self.executor.choices(),
        )
    }
}
