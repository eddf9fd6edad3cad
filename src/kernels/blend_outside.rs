//! What a mask leaves alone is put back after every step.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static BLEND_OUTSIDE: Shader = Shader {
    name: "blend_outside",
    source: source!("blend_outside"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["clean", "noise", "mask", "levels", "step", "state"],
    definitions: &[],
};

/// The uniform of `blend_outside`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of the sample.
    pub count: u32,
    /// Values of a pixel.
    pub channels: u32,
}

/// Records the exchange in place: outside of the mask, the sample becomes the clean one with noise.
///
/// # Shapes
/// - `state`: `[1 + K, h * w * C]`, f32; the sample is plane 0
/// - `clean`, `noise`: `[1, h, w, C]`, f32
/// - `mask`: `[1, h, w, 1]`, f32: 1 inside, where the sample stays
/// - `levels`: `[S, 2]`, f32: the weights of the clean sample and of the noise
/// - `step`: `[1]`, u32: the row of the levels
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together.
pub fn blend_outside(
    recording: &mut Recording,
    state: &Tensor,
    [clean, noise, mask]: [&Tensor; 3],
    levels: &Tensor,
    step: &Tensor,
) -> Result<()> {
    const NAME: &str = "blend_outside";
    let [images, height, width, channels] = clean.image_extents(NAME, "clean")?;
    let count = clean.shape().count();
    noise.expect(NAME, "noise", clean.shape().extents())?;
    mask.expect(NAME, "mask", &[images, height, width, 1])?;
    state.expect(NAME, "state", &[state.shape().rows(), count])?;
    levels.expect(NAME, "levels", &[levels.shape().rows(), 2])?;
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    let floats = [("state", state), ("clean", clean), ("noise", noise), ("mask", mask), ("levels", levels)];
    for (name, tensor) in floats {
        tensor.expect_element(NAME, name, ElementType::F32)?;
    }
    extent(NAME, "state", state.shape().count())?;
    let params = Params { count: extent(NAME, "clean", count)?, channels: extent(NAME, "clean", channels)? };
    recording.dispatch(Dispatch {
        shader: &BLEND_OUTSIDE,
        element: ElementType::F32,
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (clean, Access::Read),
            (noise, Access::Read),
            (mask, Access::Read),
            (levels, Access::Read),
            (step, Access::Read),
            (state, Access::ReadWrite),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(())
}
