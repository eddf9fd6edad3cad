//! A second run, which finds the layer that made a value that is not finite.

use super::Latents;
use super::cache::CacheRun;
use super::diffusion::Play;
use super::faults::ADVICE;
use crate::error::{Error, Result};

impl Play<'_> {
    /// An error about a call whose output is not finite, with the layer that a second run finds.
    pub(super) fn explain(
        &mut self,
        fault: usize,
        cache: Option<&mut CacheRun>,
        sample: &[f32],
        (noises, picture): (&[Option<Latents>], usize),
    ) -> Error {
        let noise = |call: usize| noises[call].as_ref().map(|noise| noise.channels_last(picture));
        // Should the second run have no memory, or lose the device, the call is what is known.
        let layer = self.trace(fault, cache, sample, &noise).ok().flatten();
        let layer =
            layer.map_or("the output of the U-Net".to_owned(), |layer| format!("the output of {layer}"));
        let what = format!("{layer} in call {} of {}", fault + 1, noises.len());
        Error::NotFinite { what, advice: ADVICE }
    }

    /// Makes a picture again up to a call, and that one with every layer checked: the first whose output is not finite.
    fn trace(
        &mut self,
        fault: usize,
        mut cache: Option<&mut CacheRun>,
        sample: &[f32],
        noise: &dyn Fn(usize) -> Option<Vec<f32>>,
    ) -> Result<Option<String>> {
        self.pipeline.executor.finish()?;
        self.pipeline.executor.forget_durations();
        if let Some(layer) = self.run.trace_condition(self.pipeline)? {
            return Ok(Some(layer));
        }
        self.run.start(sample, &mut self.pipeline.memory)?;
        if let Some(cache) = &mut cache {
            cache.start();
        }
        for call in 0..fault {
            self.call(call, cache.as_deref_mut(), noise(call).as_deref())?;
        }
        let shallow = match &mut cache {
            Some(cache) => cache.next(fault)?,
            None => None,
        };
        self.run.trace_step(fault, shallow, noise(fault).as_deref(), self.pipeline)
    }
}
