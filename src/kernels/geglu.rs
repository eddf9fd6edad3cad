//! The gate of the transformers' feed-forward layers.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{Shape, Tensor};

/// The only variant.
pub static GEGLU: Shader = Shader {
    name: "geglu",
    source: source!("geglu"),
    preludes: &[source!(shared "activation"), source!(shared "linear_index")],
    bindings: &["input", "output"],
    definitions: &[],
};

/// The uniform of `geglu`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values of the output.
    pub count: u32,
    /// C.
    pub channels: u32,
}

/// Records `value * gelu(gate)`, where the gate lies behind the value in the channels.
///
/// # Shapes
/// - `input`: `[.., 2C]`
/// - returns `[.., C]`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the number of channels is odd.
///
/// Shazeer, *GLU Variants Improve Transformer*, 2020, <https://arxiv.org/abs/2002.05202>.
pub fn geglu(recording: &mut Recording, input: &Tensor) -> Result<Tensor> {
    const NAME: &str = "geglu";
    let channels = input.shape().channels() / 2;
    if channels == 0 || input.shape().channels() != 2 * channels {
        return Err(input.wrong(NAME, "input", "an even number of channels"));
    }
    extent(NAME, "input", input.shape().count())?;
    let mut extents = input.shape().extents().to_vec();
    if let Some(last) = extents.last_mut() {
        *last = channels;
    }
    let output = recording.transient(Shape::from(&extents[..]), input.element());
    let count = output.shape().count();
    let params = Params { count: extent(NAME, "input", count)?, channels: extent(NAME, "input", channels)? };
    recording.dispatch(Dispatch {
        shader: &GEGLU,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
