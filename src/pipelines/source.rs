//! The picture that a run starts from, and its mask, as the networks read them.

use super::Request;
use super::frame::Guidance;
use super::model::{Conditioner, Decoder, Model};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::schedulers::SchedulerKind;

/// What a mask does in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Masking {
    /// There is none.
    #[default]
    None,
    /// The U-Net reads it, with the picture that it leaves alone.
    Read,
    /// What it leaves alone is put back after every step.
    Blend,
}

/// A picture, and perhaps a mask.
#[derive(Debug)]
pub(super) struct Source {
    /// `[H, W, 3]`, -1 to 1.
    picture: Vec<f32>,
    mask: Option<Mask>,
    pub(super) masking: Masking,
    /// Whether nothing of the picture is in the first sample.
    pub(super) starts_from_noise: bool,
}

/// What is to be drawn anew.
#[derive(Debug)]
struct Mask {
    /// For every latent, 1 where it is drawn anew and 0 elsewhere, `[h, w]`.
    latents: Vec<f32>,
    /// The picture, 0 where it is drawn anew, `[H, W, 3]`.
    picture: Vec<f32>,
}

/// The part of a run's steps that are left to it where it starts from a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Start {
    /// Steps that are left out.
    pub(super) skipped: usize,
    /// See [`SamplerOptions`](crate::schedulers::SamplerOptions).
    pub(super) distillation_share: f64,
}

impl Source {
    /// The picture and mask of a request, for a sample of this height and width.
    ///
    /// # Panics
    /// If [`masking`] refuses the request.
    pub(super) fn new(model: &Model, request: &Request, masking: Masking, size: [usize; 2]) -> Option<Self> {
        let image = request.image.as_ref()?;
        let pixels = size.map(|extent| extent * model.decoder.upsampling());
        let resized = image.resized(pixels);
        let picture: Vec<f32> =
            resized.pixels.iter().map(|&byte| f32::from(byte) / 255.0 * 2.0 - 1.0).collect();
        let mask = request.mask_image.as_ref().map(|mask| {
            let brightness = mask.resized(pixels).brightness();
            let kept = |pixel: usize| brightness[pixel] < 128;
            let masked = picture.iter().enumerate();
            let factor = model.decoder.upsampling();
            let places = (0..size[0]).flat_map(|row| (0..size[1]).map(move |column| (row, column)));
            let place = |(row, column): (usize, usize)| row * factor * pixels[1] + column * factor;
            Mask {
                latents: places.map(|at| if kept(place(at)) { 0.0 } else { 1.0 }).collect(),
                picture: masked.map(|(at, &value)| if kept(at / 3) { value } else { 0.0 }).collect(),
            }
        });
        let starts_from_noise = mask.is_some() && strength(model, request) >= 1.0;
        Some(Self { picture, mask, masking, starts_from_noise })
    }

    /// The pictures that are encoded, in the order in which diffusers does it.
    pub(super) fn pictures(&self) -> Vec<&[f32]> {
        let whole = self.encodes_whole().then_some(&self.picture[..]);
        let masked = self.mask.as_ref().filter(|_| self.masking == Masking::Read);
        whole.into_iter().chain(masked.map(|mask| &mask.picture[..])).collect()
    }

    /// Whether the picture without a mask is encoded.
    pub(super) fn encodes_whole(&self) -> bool {
        self.masking != Masking::Read || !self.starts_from_noise
    }

    /// For every latent, 1 where it is drawn anew, `[h, w]`; empty where there is no mask.
    pub(super) fn mask(&self) -> &[f32] {
        self.mask.as_ref().map_or(&[], |mask| &mask.latents)
    }
}

/// What a request's mask does, if picture, mask and strength fit the model.
pub(super) fn masking(model: &Model, request: &Request) -> Result<Masking> {
    let reads = model.reads_mask();
    let Some(image) = &request.image else {
        if request.mask_image.is_some() {
            return Err(Error::option("mask", "is for a picture: expected an image too"));
        }
        if request.strength.is_some() {
            return Err(Error::option(
                "strength",
                "is how much of an image is changed: expected an image too",
            ));
        }
        if reads {
            let problem = "is missing: this is an inpainting model, whose U-Net reads a picture and its mask";
            return Err(Error::option("image", problem));
        }
        return Ok(Masking::None);
    };
    if !matches!(model.conditioner, Conditioner::Text(_) | Conditioner::TwoTexts(_))
        || !matches!(model.decoder, Decoder::Vae(_) | Decoder::Tiny(_))
    {
        return Err(Error::option("image", "only Stable Diffusion models start from one: leave it out"));
    }
    if model.encoder.is_none() {
        let problem = "this model's VAE has no encoder (encoder.*), and of tiny autoencoders only the decoder is run: give it a VAE that has one (--vae)";
        return Err(Error::option("image", problem));
    }
    expect_whole("image", image)?;
    let strength = strength(model, request);
    if !(0.0..=1.0).contains(&strength) {
        return Err(Error::option("strength", format!("expected 0 to 1, found {strength}")));
    }
    let Some(mask) = &request.mask_image else {
        if reads {
            let problem = "is missing: this is an inpainting model, whose U-Net reads a mask";
            return Err(Error::option("mask", problem));
        }
        return Ok(Masking::None);
    };
    expect_whole("mask", mask)?;
    if mask.size() != image.size() {
        let problem = format!(
            "has {}x{} pixels, expected the {}x{} of the image",
            mask.width, mask.height, image.width, image.height
        );
        return Err(Error::option("mask", problem));
    }
    Ok(if reads { Masking::Read } else { Masking::Blend })
}

fn expect_whole(option: &str, picture: &Picture) -> Result<()> {
    if picture.is_whole() {
        return Ok(());
    }
    let Picture { width, height, pixels } = picture;
    let problem = format!("{} bytes do not fill {width}x{height} RGB pixels", pixels.len());
    Err(Error::option(option, problem))
}

/// The strength of a request; the defaults are those of diffusers' pipelines.
pub(super) fn strength(model: &Model, request: &Request) -> f64 {
    let xl = matches!(model.conditioner, Conditioner::TwoTexts(_));
    request.strength.unwrap_or(match (request.mask_image.is_some(), xl) {
        (false, false) => 0.8,
        (false, true) => 0.3,
        (true, false) => 1.0,
        (true, true) => 0.9999,
    })
}

impl Start {
    /// Where the run of a request begins, of so many steps.
    ///
    /// As `get_timesteps` of diffusers; models that read the guidance scale take the strength as
    /// `LatentConsistencyModelImg2ImgPipeline` does, where every step is left, but of less noise.
    pub(super) fn new(
        model: &Model,
        request: &Request,
        kind: SchedulerKind,
        guidance: Guidance,
        steps: usize,
    ) -> Result<Self> {
        let whole = Self { skipped: 0, distillation_share: 1.0 };
        if request.image.is_none() {
            return Ok(whole);
        }
        let strength = strength(model, request);
        let of_consistency = kind == SchedulerKind::Lcm && matches!(guidance, Guidance::Read { .. });
        if of_consistency && request.mask_image.is_none() && strength > 0.0 {
            return Ok(Self { distillation_share: strength, ..whole });
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of steps")]
        let exact = steps as f64 * strength;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the steps")]
        let left = (exact as usize).min(steps);
        if left == 0 && steps > 0 {
            #[expect(clippy::cast_precision_loss, reason = "counts of steps")]
            let least = (steps as f64).recip();
            let problem = format!(
                "{strength} of {steps} steps is less than one, so nothing would be done: expected at least {least:.4}, \
                or more steps"
            );
            return Err(Error::option("strength", problem));
        }
        Ok(Self { skipped: steps - left, ..whole })
    }
}
