//! What is drawn before a run: noise, and the latents of the pictures that it starts from.

use super::Latents;
use super::model::Model;
use super::prepared::Prepared;
use super::run::Run;
use super::source::{Masking, Source};
use crate::error::Result;
use crate::random::NoiseSource;

/// What the generator of a run draws before its first call, in the order of diffusers' pipelines.
#[derive(Debug)]
pub(super) struct Drawn {
    /// `[N, C, h, w]`.
    pub(super) noise: Latents,
    /// The latents of the picture that the run starts from, `[1, C, h, w]`.
    pub(super) clean: Option<Latents>,
    /// Those of the picture without what is drawn anew, `[1, C, h, w]`.
    pub(super) masked: Option<Latents>,
}

impl Drawn {
    pub(super) fn new(
        model: &Model,
        run: &Run,
        prepared: &Prepared,
        noise: Option<&Latents>,
        generator: &mut NoiseSource,
    ) -> Result<Self> {
        let count = prepared.shape.iter().product();
        let of_one = prepared.shape[1..].iter().product();
        let latents = |picture: usize, generator: &mut NoiseSource| {
            run.latents(picture, &generator.normal(of_one), model.decoder.scaling_factor())
        };
        let source = prepared.source.as_ref();
        let whole = source.is_some_and(Source::encodes_whole);
        let clean = if whole { Some(latents(0, generator)?) } else { None };
        let noise = match noise {
            Some(noise) => noise.clone(),
            None => Latents::new(prepared.shape, generator.normal(count))?,
        };
        let masked = match source.map_or(Masking::None, |source| source.masking) {
            Masking::None => None,
            Masking::Read => Some(latents(usize::from(whole), generator)?),
            Masking::Blend => {
                // diffusers also encodes the masked picture, and does nothing with it; what later calls draw depends on
                // that.
                generator.normal(of_one);
                None
            }
        };
        Ok(Self { noise, clean, masked })
    }

    /// The first sample of a picture, `[h, w, C]`.
    pub(super) fn sample(&self, picture: usize, prepared: &Prepared) -> Vec<f32> {
        let noise = self.noise.channels_last(picture);
        let trajectory = &prepared.trajectory;
        let starts_from_noise = prepared.source.as_ref().is_none_or(|source| source.starts_from_noise);
        #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
        let [sigma, signal, deviation] = {
            let level = trajectory.noise_levels[0];
            [trajectory.initial_sigma as f32, level.signal as f32, level.noise as f32]
        };
        match &self.clean {
            Some(clean) if !starts_from_noise => {
                let pairs = clean.channels_last(0).into_iter().zip(noise);
                pairs.map(|(clean, noise)| signal * clean + deviation * noise).collect()
            }
            _ if prepared.goes_on => noise,
            _ => noise.into_iter().map(|value| value * sigma).collect(),
        }
    }
}
