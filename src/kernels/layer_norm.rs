//! Layer normalisation over the channels.

use bytemuck::{Pod, Zeroable};

use super::{Affine, extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::choices::Family;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::Tensor;

/// Every GPU: a row for each workgroup.
pub static LAYER_NORM: Shader = Shader {
    name: "layer_norm",
    source: source!("layer_norm"),
    preludes: &[source!(shared "moments")],
    bindings: &["input", "weight", "bias", "output"],
    definitions: &[],
};

/// Every GPU whose subgroups can be added up in registers, whatever their size.
pub static SUBGROUP: Shader = Shader {
    name: "layer_norm_subgroup",
    source: source!("layer_norm_subgroup"),
    preludes: LAYER_NORM.preludes,
    bindings: LAYER_NORM.bindings,
    definitions: &[],
};

/// The `broadcast` family: a row for each of 8 lanes, weights broadcast in registers.
pub static BROADCAST: Shader = Shader {
    name: "layer_norm_broadcast",
    source: source!("layer_norm_broadcast"),
    preludes: LAYER_NORM.preludes,
    bindings: LAYER_NORM.bindings,
    definitions: &[],
};

/// The uniform of all these shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows, each normalised by itself.
    pub rows: u32,
    /// Values of a row.
    pub channels: u32,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Records layer normalisation of every row of channels.
///
/// # Shapes
/// - `input`: `[.., C]`
/// - `affine`: `[C]`
/// - returns the input's shape and element type
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together.
///
/// Ba, Kiros & Hinton, *Layer Normalization*, 2016, <https://arxiv.org/abs/1607.06450>.
pub fn layer_norm(
    recording: &mut Recording,
    input: &Tensor,
    affine: &Affine,
    epsilon: f32,
) -> Result<Tensor> {
    const NAME: &str = "layer_norm";
    let (rows, channels) = (input.shape().rows(), input.shape().channels());
    affine.expect(NAME, channels)?;
    extent(NAME, "input", input.shape().count())?;
    let params =
        Params { rows: extent(NAME, "input", rows)?, channels: extent(NAME, "input", channels)?, epsilon };
    let (shader, workgroup_rows) = match recording.family() {
        Family::Tiled | Family::Cooperative(_) if recording.choices().facts.subgroups => (&SUBGROUP, 1),
        Family::Tiled | Family::Cooperative(_) => (&LAYER_NORM, 1),
        Family::Broadcast => (&BROADCAST, 8),
    };
    let output = recording.transient(input.shape().clone(), input.element());
    recording.dispatch(Dispatch {
        shader,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (input, Access::Read),
            (&affine.weight, Access::Read),
            (&affine.bias, Access::Read),
            (&output, Access::Write),
        ],
        grid: linear_grid(rows, workgroup_rows),
        multiply_accumulates: 0,
    });
    Ok(output)
}
