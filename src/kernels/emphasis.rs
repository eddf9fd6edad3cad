//! Weights of single tokens of a prompt.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static EMPHASIS: Shader = Shader {
    name: "emphasis",
    source: source!("emphasis"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "weight", "output"],
    definitions: &[],
};

/// The uniform of `emphasis`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// N * T * C.
    pub count: u32,
    /// T * C.
    pub image: u32,
    /// C.
    pub channels: u32,
}

/// Records `input + (weight - 1) * (input - empty)`, `empty` being the last image of `input`: what a token was encoded
/// to moves away from the empty prompt with a weight above 1, towards it below.
///
/// # Shapes
/// - `input`: `[N + 1, T, C]`, the last image that of the empty prompt
/// - `weight`: `[N, T]`, f32
/// - returns `[N, T, C]`, same element type as `input`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the extents or element types do not fit together.
pub fn emphasis(recording: &mut Recording, input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    const NAME: &str = "emphasis";
    let [images, tokens, channels] = *input.shape().extents() else {
        return Err(input.wrong(NAME, "input", "[N + 1, T, C]"));
    };
    if images < 2 || tokens * channels == 0 {
        return Err(input.wrong(NAME, "input", "a prompt and the empty one"));
    }
    weight.expect(NAME, "weight", &[images - 1, tokens])?;
    weight.expect_element(NAME, "weight", ElementType::F32)?;
    extent(NAME, "input", input.shape().count())?;
    let output = recording.transient([images - 1, tokens, channels], input.element());
    let count = output.shape().count();
    let params = Params {
        count: extent(NAME, "input", count)?,
        image: extent(NAME, "input", tokens * channels)?,
        channels: extent(NAME, "input", channels)?,
    };
    recording.dispatch(Dispatch {
        shader: &EMPHASIS,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (weight, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
