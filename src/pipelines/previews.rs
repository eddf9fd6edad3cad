//! Small pictures of what a run predicts meanwhile.
//!
//! After some calls the sample and the model's output are read, and with them the clean sample that the model predicts
//! at this moment is computed. A tiny autoencoder decodes it where the pipeline has one for that; otherwise the channels
//! of a latent pixel become its colour by a matrix, which is enough to see what the picture will show.

use super::decoding::byte;
use super::model::{Conditioner, Decoder, Model};
use super::prepared::Prepared;
use super::run::Run;
use super::{DiffusionPipeline, Request};
use crate::error::{Error, Result};
use crate::image::Picture;

/// How often previews are made, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Previews {
    every: usize,
    maker: Maker,
}

/// What makes a picture of a predicted sample.
#[derive(Clone, Copy, Debug)]
enum Maker {
    /// The decoder that the pipeline has for this.
    Decoder,
    /// A matrix, and a picture as large as the latents.
    Colours(&'static Colours),
    /// The sample is a picture.
    Pixels,
}

/// Colours of -1 to 1 as linear functions of four latent channels.
#[derive(Debug)]
struct Colours {
    /// Channels of the latents to red, green, blue.
    factors: [[f32; 3]; 4],
    offsets: [f32; 3],
}

/// Of the released autoencoder of Stable Diffusion 1 and 2: Turner (keturn), 2022,
/// <https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204/2>.
const STABLE_DIFFUSION: Colours = Colours {
    factors: [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]],
    offsets: [0.0; 3],
};

/// Of that of SDXL: `latents_to_rgb` in the documentation of diffusers, "Pipeline callbacks", from
/// <https://huggingface.co/blog/TimothyAlexisVass/explaining-the-sdxl-latent-space>; there from 0 to 255.
const XL: Colours = Colours {
    factors: [
        [60.0 / 127.5, 60.0 / 127.5, 60.0 / 127.5],
        [-60.0 / 127.5, -5.0 / 127.5, 10.0 / 127.5],
        [25.0 / 127.5, 15.0 / 127.5, -5.0 / 127.5],
        [-70.0 / 127.5, -50.0 / 127.5, -35.0 / 127.5],
    ],
    offsets: [150.0 / 127.5 - 1.0, 140.0 / 127.5 - 1.0, 130.0 / 127.5 - 1.0],
};

impl Previews {
    /// What a request asks for.
    pub(super) fn of(model: &Model, request: &Request) -> Result<Option<Self>> {
        let Some(every) = request.preview_every else { return Ok(None) };
        if every == 0 {
            return Err(Error::option("preview every", "expected at least 1, found 0"));
        }
        let maker = if model.preview.is_some() {
            Maker::Decoder
        } else if matches!(model.decoder, Decoder::Pixels { .. }) {
            Maker::Pixels
        } else if let Some(colours) = colours(model) {
            Maker::Colours(colours)
        } else {
            let problem = "it is not known which colours the latents of this model stand for, only those of the released \
                autoencoders of Stable Diffusion 1, 2 and XL: give a tiny autoencoder (--preview-vae)";
            return Err(Error::option("preview every", problem));
        };
        Ok(Some(Self { every, maker }))
    }

    /// Whether there is one after a call.
    pub(super) fn follow(&self, call: usize) -> bool {
        (call + 1).is_multiple_of(self.every)
    }

    /// Whether a decoder makes them.
    pub(super) fn are_decoded(&self) -> bool {
        matches!(self.maker, Maker::Decoder)
    }

    /// The preview after a call: `sample` is what the call was given, `[h, w, C]`. None where the prediction is not
    /// finite, as at a timestep without any signal.
    pub(super) fn make(
        &self,
        call: usize,
        sample: &[f32],
        prepared: &Prepared,
        run: &Run,
        pipeline: &mut DiffusionPipeline,
    ) -> Result<Option<Picture>> {
        let DiffusionPipeline { memory, executor, model, .. } = pipeline;
        let level = prepared.trajectory.noise_levels[call];
        let [of_sample, of_output] = model.scheduler.clean_weights(prepared.scheduler, level)?;
        let output = run.output(memory)?;
        #[expect(clippy::cast_possible_truncation, reason = "a preview")]
        let weigh = |(&sample, &output): (&f32, &f32)| {
            (of_sample * f64::from(sample) + of_output * f64::from(output)) as f32
        };
        let clean: Vec<f32> = sample.iter().zip(&output).map(weigh).collect();
        if clean.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let [_, channels, height, width] = prepared.shape;
        let size = |extent: usize| u32::try_from(extent).unwrap_or(u32::MAX);
        let pixels = match (self.maker, &model.preview) {
            (Maker::Decoder, Some(decoder)) => {
                let scaling = decoder.scaling_factor();
                let scaled: Vec<f32> = clean.iter().map(|value| value / scaling).collect();
                let (width, height, pixels) = run.preview(&scaled, memory, executor)?;
                return Ok(Some(Picture { width, height, pixels }));
            }
            (Maker::Colours(colours), _) => {
                clean.chunks_exact(channels).flat_map(|latent| colours.of(latent)).map(byte).collect()
            }
            _ => clean.chunks_exact(channels).flat_map(grey_or_coloured).map(byte).collect(),
        };
        Ok(Some(Picture { width: size(width), height: size(height), pixels }))
    }
}

impl Colours {
    fn of(&self, latent: &[f32]) -> [f32; 3] {
        let mut colour = self.offsets;
        for (value, factors) in latent.iter().zip(&self.factors) {
            colour.iter_mut().zip(factors).for_each(|(sum, factor)| *sum += value * factor);
        }
        colour
    }
}

/// Red, green and blue of a pixel of one or three channels.
fn grey_or_coloured(pixel: &[f32]) -> [f32; 3] {
    [pixel[0], pixel[pixel.len() / 2], pixel[pixel.len() - 1]]
}

/// The matrix for the latents of a model, if its autoencoder is one of the released shape and scale.
fn colours(model: &Model) -> Option<&'static Colours> {
    let (scaling_factor, colours) = match &model.conditioner {
        Conditioner::Text(_) => (0.18215, &STABLE_DIFFUSION),
        Conditioner::TwoTexts(_) => (0.13025, &XL),
        Conditioner::Classes(_) | Conditioner::Nothing => return None,
    };
    let is_released = match &model.decoder {
        Decoder::Vae(vae) => {
            let config = vae.config();
            let near = (config.scaling_factor - scaling_factor).abs() < 1e-6;
            near && config.latent_channels == 4 && config.block_out_channels == [128, 256, 512, 512]
        }
        // It reads the same latents, unscaled.
        Decoder::Tiny(tiny) => {
            let config = tiny.config();
            config.latent_channels == 4 && config.channels == 64 && config.levels() == 4
        }
        Decoder::Vq(_) | Decoder::Pixels { .. } => false,
    };
    is_released.then_some(colours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_sources() {
        let latent = [1.0, -0.5, 2.0, 0.25];
        let [red, ..] = STABLE_DIFFUSION.of(&latent);
        assert!((red - (0.298 - 0.5 * 0.187 - 2.0 * 0.158 - 0.25 * 0.184)).abs() < 1e-6, "{red}");
        let [red, green, blue] = XL.of(&latent).map(|value| (value + 1.0) * 127.5);
        for (found, expected) in [
            (red, 60.0 + 30.0 + 50.0 - 17.5 + 150.0),
            (green, 60.0 + 2.5 + 30.0 - 12.5 + 140.0),
            (blue, 60.0 - 5.0 - 10.0 - 8.75 + 130.0),
        ] {
            assert!((found - expected).abs() < 1e-3, "{found}, expected {expected}");
        }
    }

    #[test]
    fn grey_pixels_become_three_channels() {
        assert_eq!(grey_or_coloured(&[0.5]), [0.5; 3], "grey");
        assert_eq!(grey_or_coloured(&[0.1, 0.2, 0.3]), [0.1, 0.2, 0.3], "coloured");
    }
}
