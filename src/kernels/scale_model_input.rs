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

/// With other channels beside the sample.
pub static SCALE_MODEL_INPUT_BESIDE: Shader = Shader {
    name: "scale_model_input_beside",
    source: source!("scale_model_input_beside"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["state", "table", "step", "beside", "output"],
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

/// The uniform of `scale_model_input_beside`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct ParamsBeside {
    /// Values of one copy of the output.
    pub count: u32,
    /// Values of one row of the table.
    pub row_length: u32,
    /// How often the sample is written.
    pub copies: u32,
    /// Values of a pixel of the sample.
    pub channels: u32,
    /// Values of a pixel beside it.
    pub beside: u32,
}

/// Records the scaled sample, once, or twice for guidance.
///
/// # Shapes
/// - `state`: `[1 + K, N * h * w * C]`, f32; the sample is plane 0
/// - `table`: `[S, L]`, f32; the scale is the first value of a row
/// - `step`: `[1]`, u32: the row of the table
/// - `shape`: `[N, h, w, C]`
/// - `beside`: `[1, h, w, E]`, f32: channels behind those of the sample, which are not scaled; for one image only
/// - returns `[copies * N, h, w, C + E]` of type `element`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together.
pub fn scale_model_input(
    recording: &mut Recording,
    [state, table, step]: [&Tensor; 3],
    beside: Option<&Tensor>,
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
    if let Some(beside) = beside {
        let more = beside.shape().channels();
        beside.expect(NAME, "beside", &[1, height, width, more])?;
        beside.expect_element(NAME, "beside", ElementType::F32)?;
        if images != 1 {
            return Err(state.wrong(NAME, "state", "one image, since there are channels beside it"));
        }
        let count = height * width * (channels + more);
        extent(NAME, "beside", copies * count)?;
        let params = ParamsBeside {
            count: extent(NAME, "beside", count)?,
            row_length: extent(NAME, "table", row_length)?,
            copies: extent(NAME, "state", copies)?,
            channels: extent(NAME, "state", channels)?,
            beside: extent(NAME, "beside", more)?,
        };
        let output = recording.transient([copies, height, width, channels + more], element);
        recording.dispatch(Dispatch {
            shader: &SCALE_MODEL_INPUT_BESIDE,
            element,
            definitions: &[],
            constants: &[],
            params: bytemuck::bytes_of(&params),
            bindings: &[
                (state, Access::Read),
                (table, Access::Read),
                (step, Access::Read),
                (beside, Access::Read),
                (&output, Access::Write),
            ],
            grid: linear_grid(count, 64),
            multiply_accumulates: 0,
        });
        return Ok(output);
    }
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
