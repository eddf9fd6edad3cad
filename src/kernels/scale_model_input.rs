//! The sample as the model wants it.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static SCALE_MODEL_INPUT: Shader = Shader {
    name: "scale_model_input",
    source: source!("scale_model_input"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["state", "table", "step", "output"],
    definitions: &[],
};

/// The uniform of `scale_model_input`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of one plane of the state.
    pub count: u32,
    /// Values of one row of the table.
    pub row_length: u32,
    /// How often the sample is written.
    pub copies: u32,
}

/// Records the scaled sample, once, or twice for guidance.
///
/// # Shapes
/// - `state`: `[1 + K, N * h * w * C]`, f32; the sample is plane 0
/// - `table`: `[S, L]`, f32; the scale is the first value of a row
/// - `step`: `[1]`, u32: the row of the table
/// - `shape`: `[N, h, w, C]`
/// - returns `[copies * N, h, w, C]` of type `element`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together.
pub fn scale_model_input(
    recording: &mut Recording,
    state: &Tensor,
    table: &Tensor,
    step: &Tensor,
    shape: [usize; 4],
    copies: usize,
    element: ElementType,
) -> Result<Tensor> {
    const NAME: &str = "scale_model_input";
    let [images, height, width, channels] = shape;
    let count = images * height * width * channels;
    state.expect(NAME, "state", &[state.shape().rows(), count])?;
    state.expect_element(NAME, "state", ElementType::F32)?;
    let row_length = table.shape().channels();
    table.expect(NAME, "table", &[table.shape().rows(), row_length])?;
    table.expect_element(NAME, "table", ElementType::F32)?;
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    extent(NAME, "state", state.shape().count().max(copies * count))?;
    let params = Params {
        count: extent(NAME, "state", count)?,
        row_length: extent(NAME, "table", row_length)?,
        copies: extent(NAME, "state", copies)?,
    };
    let output = recording.transient([copies * images, height, width, channels], element);
    recording.dispatch(Dispatch {
        shader: &SCALE_MODEL_INPUT,
        element,
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (state, Access::Read),
            (table, Access::Read),
            (step, Access::Read),
            (&output, Access::Write),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
