//! Classifier-free guidance.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Shape, Tensor};

/// The only variant.
pub static GUIDANCE: Shader = Shader {
    name: "guidance",
    source: source!("guidance"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "output"],
    definitions: &[],
};

/// The uniform of `guidance`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values of the output.
    pub count: u32,
    /// How far to go from the output without the prompt towards, and beyond, the one with it.
    pub scale: f32,
}

/// Records `without + scale * (with - without)`, or a mere conversion to f32 if there is no scale.
///
/// # Shapes
/// - `input`: `[2N, ..]`, the outputs without the prompt first; `[N, ..]` if there is no scale
/// - returns `[N, ..]`, f32
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there is a scale, and the first extent is odd.
///
/// Ho & Salimans, *Classifier-Free Diffusion Guidance*, 2022, <https://arxiv.org/abs/2207.12598>.
pub fn guidance(recording: &mut Recording, input: &Tensor, scale: Option<f32>) -> Result<Tensor> {
    const NAME: &str = "guidance";
    let mut extents = input.shape().extents().to_vec();
    if scale.is_some() {
        match extents.first_mut() {
            Some(images) if images.is_multiple_of(2) => *images /= 2,
            _ => return Err(input.wrong(NAME, "input", "an even number of images")),
        }
    }
    extent(NAME, "input", input.shape().count())?;
    let output = recording.transient(Shape::from(&extents[..]), ElementType::F32);
    let count = output.shape().count();
    let params = Params { count: extent(NAME, "input", count)?, scale: scale.unwrap_or(1.0) };
    recording.dispatch(Dispatch {
        shader: &GUIDANCE,
        element: input.element(),
        definitions: &[],
        constants: &[("GUIDED", f64::from(u8::from(scale.is_some())))],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
