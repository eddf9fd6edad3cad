//! The bound of dynamic thresholding.

use bytemuck::{Pod, Zeroable};

use super::{GRID_LIMIT, extent, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static DYNAMIC_THRESHOLD: Shader = Shader {
    name: "dynamic_threshold",
    source: source!("dynamic_threshold"),
    preludes: &[],
    bindings: &["state", "model_output", "table", "step", "threshold"],
    definitions: &[],
};

/// The uniform of `dynamic_threshold`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of one image.
    pub count: u32,
    /// Values of one row of the table.
    pub row_length: u32,
    /// The share of magnitudes below the bound.
    pub ratio: f32,
    /// The largest bound.
    pub most: f32,
}

/// Records the bound of the predicted clean sample of every image: the quantile `ratio` of its magnitudes, at
/// least 1 and at most `most`. [`scheduler_step`](super::scheduler_step::scheduler_step) clamps to it and divides
/// by it.
///
/// # Shapes
/// - `state`: `[1 + K, N * h * w * C]`, f32; the sample is plane 0
/// - `model_output`: `[N, h, w, C]`, f32
/// - `table`: `[S, L]`, f32; see [`row_length`](super::scheduler_step::row_length)
/// - `step`: `[1]`, u32: the row of the table
/// - returns `[N]`, f32
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together.
///
/// Saharia et al., *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*, 2022,
/// section 2.3, <https://arxiv.org/abs/2205.11487>; `_threshold_sample` of diffusers' schedulers.
pub fn dynamic_threshold(
    recording: &mut Recording,
    state: &Tensor,
    model_output: &Tensor,
    table: &Tensor,
    step: &Tensor,
    [ratio, most]: [f32; 2],
) -> Result<Tensor> {
    const NAME: &str = "dynamic_threshold";
    let [images, ..] = model_output.image_extents(NAME, "model_output")?;
    let total = model_output.shape().count();
    if total == 0 || images > GRID_LIMIT as usize {
        return Err(model_output.wrong(NAME, "model_output", "at least one value, and fewer images"));
    }
    state.expect(NAME, "state", &[state.shape().rows(), total])?;
    let row_length = table.shape().channels();
    table.expect(NAME, "table", &[table.shape().rows(), row_length])?;
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    for (name, tensor) in [("state", state), ("model_output", model_output), ("table", table)] {
        tensor.expect_element(NAME, name, ElementType::F32)?;
        extent(NAME, name, tensor.shape().count())?;
    }
    let params = Params {
        count: extent(NAME, "model_output", total / images)?,
        row_length: extent(NAME, "table", row_length)?,
        ratio,
        most,
    };
    let output = recording.transient([images], ElementType::F32);
    recording.dispatch(Dispatch {
        shader: &DYNAMIC_THRESHOLD,
        element: ElementType::F32,
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (state, Access::Read),
            (model_output, Access::Read),
            (table, Access::Read),
            (step, Access::Read),
            (&output, Access::Write),
        ],
        grid: [extent(NAME, "model_output", images)?, 1, 1],
        multiply_accumulates: 0,
    });
    Ok(output)
}
