//! Sum of two tensors.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::Tensor;

/// The only variant.
pub static ADD: Shader = Shader {
    name: "add",
    source: source!("add"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["left", "right", "output"],
    definitions: &[],
};

/// The uniform of `add`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values.
    pub count: u32,
}

/// Records `left + right`, two tensors of one shape and element type; returns a third.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if they differ in shape or element type.
pub fn add(recording: &mut Recording, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    const NAME: &str = "add";
    right.expect(NAME, "right", left.shape().extents())?;
    right.expect_element(NAME, "right", left.element())?;
    let count = left.shape().count();
    let params = Params { count: extent(NAME, "left", count)? };
    let output = recording.transient(left.shape().clone(), left.element());
    recording.dispatch(Dispatch {
        shader: &ADD,
        element: left.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(left, Access::Read), (right, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
