//! Classifier-free guidance.

use bytemuck::{Pod, Zeroable};

use super::{GRID_LIMIT, extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Shape, Tensor};

/// Joins both halves.
pub static GUIDANCE: Shader = Shader {
    name: "guidance",
    source: source!("guidance"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "factor", "output"],
    definitions: &[],
};

/// The factor of every image, where guidance is rescaled.
pub static RESCALE: Shader = Shader {
    name: "guidance_rescale",
    source: source!("guidance_rescale"),
    preludes: &[source!(shared "moments")],
    bindings: &["input", "factor"],
    definitions: &[],
};

/// The uniform of `guidance`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values of the output.
    pub count: u32,
    /// Values of one image.
    pub image_count: u32,
    /// How far to go from the output without the prompt towards, and beyond, the one with it.
    pub scale: f32,
}

/// The uniform of `guidance_rescale`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct RescaleParams {
    /// Number of images of the output.
    pub images: u32,
    /// Values of one image.
    pub count: u32,
    /// As [`Params::scale`].
    pub scale: f32,
    /// How much of the spread is brought back.
    pub rescale: f32,
}

/// How the outputs without and with the prompt are joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidanceConfig {
    /// How far to go from the output without the prompt towards, and beyond, the one with it.
    pub scale: f32,
    /// How much of the output's spread is brought back to that of the output with the prompt: 0 (not at all) to 1.
    pub rescale: f32,
}

/// Records `without + scale * (with - without)`, or a mere conversion to f32 if there is no guidance.
///
/// # Shapes
/// - `input`: `[2N, ..]`, the outputs without the prompt first; `[N, ..]` without guidance
/// - returns `[N, ..]`, f32
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there is guidance, and the first extent is odd.
///
/// Ho & Salimans, *Classifier-Free Diffusion Guidance*, 2022, <https://arxiv.org/abs/2207.12598>; the rescaling is
/// equations 15 and 16 of Lin et al., *Common Diffusion Noise Schedules and Sample Steps are Flawed*, 2023,
/// <https://arxiv.org/abs/2305.08891>.
pub fn guidance(
    recording: &mut Recording,
    input: &Tensor,
    config: Option<&GuidanceConfig>,
) -> Result<Tensor> {
    const NAME: &str = "guidance";
    let mut extents = input.shape().extents().to_vec();
    if config.is_some() {
        match extents.first_mut() {
            Some(images) if images.is_multiple_of(2) && *images > 0 => *images /= 2,
            _ => return Err(input.wrong(NAME, "input", "an even number of images")),
        }
    }
    extent(NAME, "input", input.shape().count())?;
    let images = extents.first().copied().unwrap_or(1);
    let shape = Shape::from(&extents[..]);
    let count = shape.count();
    let image_count = extent(NAME, "input", count / images.max(1))?.max(1);
    let factor = match config.filter(|config| config.rescale != 0.0) {
        Some(config) => Some(rescale(recording, input, images, image_count, config)?),
        None => None,
    };
    let output = recording.transient(shape, ElementType::F32);
    let params = Params {
        count: extent(NAME, "input", count)?,
        image_count,
        scale: config.map_or(1.0, |config| config.scale),
    };
    recording.dispatch(Dispatch {
        shader: &GUIDANCE,
        element: input.element(),
        definitions: &[],
        constants: &[
            ("GUIDED", f64::from(u8::from(config.is_some()))),
            ("HAS_FACTOR", f64::from(u8::from(factor.is_some()))),
        ],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (input, Access::Read),
            // An absent tensor needs something bound in its place: another that is only read.
            (factor.as_ref().unwrap_or(input), Access::Read),
            (&output, Access::Write),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}

fn rescale(
    recording: &mut Recording,
    input: &Tensor,
    images: usize,
    count: u32,
    config: &GuidanceConfig,
) -> Result<Tensor> {
    const NAME: &str = "guidance";
    if images > GRID_LIMIT as usize {
        return Err(input.wrong(NAME, "input", "fewer images"));
    }
    let images = extent(NAME, "input", images)?;
    let params = RescaleParams { images, count, scale: config.scale, rescale: config.rescale };
    let factor = recording.transient([images as usize], ElementType::F32);
    recording.dispatch(Dispatch {
        shader: &RESCALE,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (&factor, Access::Write)],
        grid: [images, 1, 1],
        multiply_accumulates: 0,
    });
    Ok(factor)
}
