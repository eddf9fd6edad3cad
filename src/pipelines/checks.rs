//! What a request may ask of a model: sizes, counts, scales, labels.

use super::frame::Guidance;
use super::model::{Conditioner, Decoder, Inputs, Model};
use super::wording::Wording;
use super::{Condition, Request};
use crate::error::{Error, Result};
use crate::image::Picture;
use crate::kernels::MOST_PIXELS;
use crate::kernels::guidance::GuidanceConfig;
use crate::models::unet::{REFINER_SIZES, SIZES};

/// Sides of a picture beyond this are taken for a mistake.
const LONGEST_SIDE: usize = 16_384;

/// Height and width of the sample where the model's configuration does not say: Stable Diffusion v1's.
const USUAL_SAMPLE: [usize; 2] = [64, 64];

/// More pictures than this in one call are taken for a mistake.
const MOST_PICTURES: usize = 1024;

/// A stronger guidance than this, to either side, is taken for a mistake.
const MOST_GUIDANCE: f64 = 1e6;

/// `[N, C, h, w]` of the request's latents, which decide size and number of the pictures.
pub(super) fn sample_shape(model: &Model, request: &Request) -> Result<[usize; 4]> {
    let unet = model.unet.config();
    let factor = model.decoder.upsampling();
    let step = side_step(model);
    if let Some(latents) = &request.latents {
        let [count, channels, height, width] = latents.shape();
        if channels != model.latent_channels() {
            let problem = format!("have {channels} channels, this model needs {}", model.latent_channels());
            return Err(Error::option("latents", problem));
        }
        check_count(count)?;
        for (option, wanted, side) in [("width", request.width, width), ("height", request.height, height)] {
            let side = side.saturating_mul(factor);
            if let Some(wanted) = wanted.filter(|wanted| *wanted != side) {
                let problem = format!("{wanted} is not that of the given latents, {side}");
                return Err(Error::option(option, problem));
            }
            if side > LONGEST_SIDE {
                let problem = format!("make the {option} {side}, at most {LONGEST_SIDE} is possible");
                return Err(Error::option("latents", problem));
            }
            if !side.is_multiple_of(step) {
                let problem = format!("make the {option} {side}, which is not a multiple of {step}");
                return Err(Error::option("latents", problem));
            }
        }
        check_pixels(height * factor, width * factor)?;
        return Ok(latents.shape());
    }
    check_count(request.count)?;
    let [own_height, own_width] = match &request.image {
        // As large as fits into the image.
        Some(image) => image.size().map(|side| side - side % step),
        None => unet.sample_size.unwrap_or(USUAL_SAMPLE).map(|extent| extent * factor),
    };
    if own_height == 0 || own_width == 0 {
        let [height, width] = request.image.as_ref().map(Picture::size).unwrap_or_default();
        let problem = format!("has {width}x{height} pixels, expected at least {step} on each side");
        return Err(Error::option("image", problem));
    }
    let side = |option: &str, wanted: Option<usize>, own: usize| {
        let side = wanted.unwrap_or(own);
        if side == 0 || !side.is_multiple_of(step) || side > LONGEST_SIDE {
            let problem = format!("{side} is not a multiple of {step} between {step} and {LONGEST_SIDE}");
            return Err(Error::option(option, problem));
        }
        Ok(side / factor)
    };
    let height = side("height", request.height, own_height)?;
    let width = side("width", request.width, own_width)?;
    check_pixels(height * factor, width * factor)?;
    Ok([request.count, model.latent_channels(), height, width])
}

/// What the sides of a picture are multiples of. A U-Net that pads its downsamplers on one side only makes half of
/// an odd extent disappear, so there every level must divide the sides.
fn side_step(model: &Model) -> usize {
    let unet = model.unet.config();
    let levels = if unet.downsample_padding == 0 { unet.downsampling() } else { 1 };
    model.decoder.upsampling() * levels
}

fn check_count(count: usize) -> Result<()> {
    if (1..=MOST_PICTURES).contains(&count) {
        return Ok(());
    }
    Err(Error::option("count", format!("{count} is not between 1 and {MOST_PICTURES}")))
}

fn check_pixels(height: usize, width: usize) -> Result<()> {
    let pixels = height * width;
    if pixels > MOST_PIXELS {
        let problem = format!("{width}x{height} are {pixels} pixels, at most {MOST_PIXELS} are possible");
        return Err(Error::option("width and height", problem));
    }
    Ok(())
}

/// What a model that reads sizes is told about the pictures, what guidance leads away from first: original size, crop,
/// and target size, or for a refiner an aesthetic score.
pub(super) type Sizes = [[f32; SIZES]; 2];

/// The scores of a picture, and of what it is led away from, where a request does not say: those of diffusers.
const USUAL_SCORES: [f64; 2] = [2.5, 6.0];

/// Scores beyond this are taken for a mistake.
const MOST_SCORE: f64 = 1000.0;

/// What a model that reads sizes is told about the pictures.
pub(super) fn sizes(model: &Model, request: &Request, shape: [usize; 4]) -> Result<Sizes> {
    let factor = model.decoder.upsampling();
    let own = [shape[2] * factor, shape[3] * factor];
    let told = model.unet.config().text_time.map_or(0, |text_time| text_time.sizes);
    let asked = [
        ("original size", request.original_size, own),
        ("crops coords top left", request.crops_coords_top_left, [0, 0]),
        ("target size", request.target_size, own),
    ];
    let mut sizes = [0.0; SIZES];
    for (place, (option, wanted, usual)) in asked.into_iter().enumerate() {
        if wanted.is_some() && told < 2 * place + 2 {
            let problem = if told == 0 { "this model is not told sizes" } else { "a refiner is not told it" };
            return Err(Error::option(option, format!("{problem}: leave it out")));
        }
        for (side, value) in wanted.unwrap_or(usual).into_iter().enumerate() {
            if value > LONGEST_SIDE {
                return Err(Error::option(option, format!("{value} is above {LONGEST_SIDE}")));
            }
            #[expect(clippy::cast_precision_loss, reason = "at most 16384")]
            let value = value as f32;
            sizes[2 * place + side] = value;
        }
    }
    let mut both = [sizes; 2];
    let scores = [
        ("negative aesthetic score", request.negative_aesthetic_score),
        ("aesthetic score", request.aesthetic_score),
    ];
    for (copy, (option, wanted)) in scores.into_iter().enumerate() {
        if told != REFINER_SIZES {
            if wanted.is_some() {
                let problem = "this model is no refiner of SDXL, which would be told one: leave it out";
                return Err(Error::option(option, problem));
            }
            continue;
        }
        let score = wanted.unwrap_or(USUAL_SCORES[copy]);
        if score.is_nan() || score.abs() > MOST_SCORE {
            return Err(Error::option(
                option,
                format!("expected a number up to {MOST_SCORE}, found {score}"),
            ));
        }
        both[copy][REFINER_SIZES - 1] = single(score);
    }
    Ok(both)
}

/// Scale and rescaling of guidance.
pub(super) fn guidance(model: &Model, request: &Request) -> Result<Guidance> {
    let reads = model.unet.config().guidance_channels.is_some();
    let usual = match &model.conditioner {
        _ if reads => 8.5,
        Conditioner::Text(_) => 7.5,
        Conditioner::TwoTexts(_) => 5.0,
        Conditioner::Classes(_) => 1.5,
        Conditioner::Nothing => 1.0,
    };
    let scale = request.guidance_scale.unwrap_or(usual);
    if scale.is_nan() || scale.abs() > MOST_GUIDANCE {
        let problem = format!("{scale} is not a number from -{MOST_GUIDANCE} to {MOST_GUIDANCE}");
        return Err(Error::option("guidance scale", problem));
    }
    let rescale = request.guidance_rescale;
    if !(0.0..=1.0).contains(&rescale) {
        return Err(Error::option("guidance rescale", format!("expected 0 to 1, found {rescale}")));
    }
    let unconditional = matches!(model.conditioner, Conditioner::Nothing);
    if unconditional && scale > 1.0 {
        let problem = format!("{scale} asks for guidance, but this model has no condition: leave it out");
        return Err(Error::option("guidance scale", problem));
    }
    if scale <= 1.0 || reads {
        if rescale > 0.0 {
            let problem = "there is no guidance to rescale: expected a guidance scale above 1, and a model that does not read it";
            return Err(Error::option("guidance rescale", problem));
        }
        return Ok(if reads { Guidance::Read { scale: single(scale) } } else { Guidance::None });
    }
    Ok(Guidance::Free(GuidanceConfig { scale: single(scale), rescale: single(rescale) }))
}

/// What the device computes with.
fn single(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "the device computes in f32")]
    let value = value as f32;
    value
}

/// What contexts are made from.
pub(super) struct Context {
    /// What the context of every picture is made from, what stands for no condition first where the run is guided. One
    /// entry serves all pictures where they share their condition.
    pub(super) inputs: Vec<Inputs>,
    pub(super) wording: Wording,
    /// What the caller should be told.
    pub(super) warnings: Vec<String>,
}

/// Checks the condition of a request for so many pictures.
pub(super) fn context(model: &Model, request: &Request, guided: bool, count: usize) -> Result<Context> {
    let (syntax, clip_skip) = (request.prompt_syntax, request.clip_skip);
    let without_text = Wording::without_text(if guided { 2 } else { 1 });
    if clip_skip > 0 && matches!(model.conditioner, Conditioner::Classes(_) | Conditioner::Nothing) {
        return Err(Error::option("clip skip", "this model has no text encoder: leave it out"));
    }
    match (&model.conditioner, &request.condition) {
        (
            conditioner @ (Conditioner::Text(_) | Conditioner::TwoTexts(_)),
            Condition::Prompt { prompt, negative_prompt },
        ) => {
            let prompts = [("negative prompt", negative_prompt.as_str()), ("prompt", prompt.as_str())];
            let prompts = if guided { &prompts[..] } else { &prompts[1..] };
            let (inputs, wording, warnings) = match conditioner {
                Conditioner::TwoTexts(texts) => texts.read(prompts, syntax, clip_skip)?,
                Conditioner::Text(text) => text.read(prompts, syntax, clip_skip)?,
                _ => unreachable!("one or two texts"),
            };
            Ok(Context { inputs: vec![inputs], wording, warnings })
        }
        (Conditioner::Classes(embedder), Condition::ClassLabels(labels)) => {
            if labels.len() != 1 && labels.len() != count {
                let problem =
                    format!("{} labels for {count} pictures: expected one, or as many", labels.len());
                return Err(Error::option("class label", problem));
            }
            let nothing = embedder.classes() - 1;
            let id = |label: &usize| match u32::try_from(*label) {
                Ok(id) if *label < nothing => Ok(id),
                _ => {
                    let problem = format!("expected 0 to {}, found {label}", nothing - 1);
                    Err(Error::option("class label", problem))
                }
            };
            let mut all = Vec::with_capacity(labels.len());
            for label in labels {
                let mut ids = Vec::new();
                if guided {
                    ids.push(u32::try_from(nothing).unwrap_or(u32::MAX));
                }
                ids.push(id(label)?);
                all.push(vec![ids]);
            }
            Ok(Context { inputs: all, wording: without_text, warnings: Vec::new() })
        }
        (Conditioner::Nothing, Condition::Nothing) => {
            Ok(Context { inputs: vec![Vec::new()], wording: without_text, warnings: Vec::new() })
        }
        (conditioner, condition) => Err(mismatch(conditioner, condition)),
    }
}

fn mismatch(conditioner: &Conditioner, condition: &Condition) -> Error {
    let option = match condition {
        Condition::Prompt { .. } => "prompt",
        Condition::ClassLabels(_) => "class label",
        Condition::Nothing => match conditioner {
            Conditioner::Classes(_) => "class label",
            _ => "prompt",
        },
    };
    let problem = match conditioner {
        Conditioner::Text(_) | Conditioner::TwoTexts(_) => {
            "this is a text-to-image model: expected a prompt".to_owned()
        }
        Conditioner::Classes(embedder) => {
            let last = embedder.classes() - 2;
            format!("this is a class-conditional model: expected a class label from 0 to {last}, no prompt")
        }
        Conditioner::Nothing => {
            "this is an unconditional model: expected neither a prompt nor a class label".to_owned()
        }
    };
    Error::option(option, problem)
}

/// Steps where the request does not say: those of the paper's experiments.
pub(super) fn usual_steps(model: &Model, is_ddpm: bool) -> usize {
    match (&model.conditioner, &model.decoder) {
        _ if model.unet.config().guidance_channels.is_some() => 4,
        (Conditioner::Text(_) | Conditioner::TwoTexts(_), _) => 50,
        (Conditioner::Classes(_), _) => 250,
        (Conditioner::Nothing, Decoder::Pixels { .. }) if is_ddpm => 1000,
        (Conditioner::Nothing, _) => 100,
    }
}
