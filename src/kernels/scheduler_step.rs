//! One step of a scheduler, as a small matrix for each step.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static SCHEDULER_STEP: Shader = Shader {
    name: "scheduler_step",
    source: source!("scheduler_step"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["model_output", "noise", "threshold", "table", "step", "state"],
    definitions: &[],
};

/// The uniform of `scheduler_step`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Values of one plane of the state.
    pub count: u32,
    /// Planes of history.
    pub history: u32,
    /// Values of one image.
    pub image_count: u32,
}

/// The most planes of history: the shader keeps them in registers.
pub const MOST_HISTORY: usize = 8;

/// Length of one row of the table for a scheduler with `history` planes.
///
/// A row is the scale of the model's input; the weights of the sample and of the model's output in the
/// prediction, and the range that it is clamped to (0: no prediction; below 0: the image's threshold, by which it
/// is then divided); and a matrix row by row. The matrix has a row for the new sample and one for each plane of history, and columns for the sample, the
/// model's output, the noise, the prediction, and each plane of history.
#[must_use]
pub const fn row_length(history: usize) -> usize {
    4 + (1 + history) * (4 + history)
}

/// Records one step in place.
///
/// # Shapes
/// - `state`: `[1 + K, N * h * w * C]`, f32: the sample and K planes of history, both updated
/// - `model_output`: `[N, h, w, C]`, f32
/// - `noise`: as `model_output`; zero if there is none
/// - `threshold`: `[N]`, f32, from [`dynamic_threshold`](super::dynamic_threshold::dynamic_threshold)
/// - `table`: `[S, 4 + (1 + K) (4 + K)]`, f32; see [`row_length`]
/// - `step`: `[1]`, u32: the row of the table
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together, or there are more than
/// [`MOST_HISTORY`] planes.
pub fn scheduler_step(
    recording: &mut Recording,
    state: &Tensor,
    model_output: &Tensor,
    [noise, threshold]: [Option<&Tensor>; 2],
    table: &Tensor,
    step: &Tensor,
) -> Result<()> {
    const NAME: &str = "scheduler_step";
    let count = model_output.shape().count();
    let history = state.shape().rows().saturating_sub(1);
    state.expect(NAME, "state", &[1 + history, count])?;
    if history > MOST_HISTORY {
        return Err(state.wrong(NAME, "state", &format!("at most {MOST_HISTORY} planes of history")));
    }
    table.expect(NAME, "table", &[table.shape().rows(), row_length(history)])?;
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    if let Some(noise) = noise {
        noise.expect(NAME, "noise", model_output.shape().extents())?;
    }
    let images = model_output.shape().extents().first().copied().unwrap_or(1).max(1);
    if let Some(threshold) = threshold {
        threshold.expect(NAME, "threshold", &[images])?;
    }
    // An absent tensor needs something bound in its place: another that is only read.
    let noise_or_other = noise.unwrap_or(model_output);
    let threshold_or_other = threshold.unwrap_or(model_output);
    let floats = [
        ("state", state),
        ("model_output", model_output),
        ("noise", noise_or_other),
        ("threshold", threshold_or_other),
        ("table", table),
    ];
    for (name, tensor) in floats {
        tensor.expect_element(NAME, name, ElementType::F32)?;
    }
    extent(NAME, "state", state.shape().count())?;
    let params = Params {
        count: extent(NAME, "model_output", count)?,
        history: extent(NAME, "state", history)?,
        image_count: extent(NAME, "model_output", count / images)?.max(1),
    };
    let flag = |tensor: Option<&Tensor>| f64::from(u8::from(tensor.is_some()));
    recording.dispatch(Dispatch {
        shader: &SCHEDULER_STEP,
        element: ElementType::F32,
        definitions: &[],
        constants: &[("HAS_NOISE", flag(noise)), ("HAS_THRESHOLD", flag(threshold))],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (model_output, Access::Read),
            (noise_or_other, Access::Read),
            (threshold_or_other, Access::Read),
            (table, Access::Read),
            (step, Access::Read),
            (state, Access::ReadWrite),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(())
}
