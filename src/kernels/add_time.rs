//! A row of time projections added to every pixel, another row for every image.

use bytemuck::{Pod, Zeroable};

use super::conv2d::TimeRow;
use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static ADD_TIME: Shader = Shader {
    name: "add_time",
    source: source!("add_time"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "table", "step", "output"],
    definitions: &[],
};

/// The uniform of `add_time`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// N * P * C.
    pub count: u32,
    /// P * C.
    pub image: u32,
    /// C.
    pub channels: u32,
}

/// Records the sum of `input` and the rows of this step, one for every image. Where all images have the same row,
/// it is fused behind [`conv2d`](super::conv2d::conv2d) instead.
///
/// # Shapes
/// - `input`: `[N, .., C]`
/// - `time.table`: `[S * N, C]`, same element type as `input`; row `s * N + n`
/// - `time.step`: `[1]`, u32: `s`, below S
/// - returns `[N, .., C]`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the extents or element types do not fit together.
pub fn add_time(recording: &mut Recording, input: &Tensor, time: TimeRow<'_>) -> Result<Tensor> {
    const NAME: &str = "add_time";
    let (count, channels) = (input.shape().count(), input.shape().channels());
    if count == 0 {
        return Err(input.wrong(NAME, "input", "at least one value"));
    }
    let images = input.shape().extents()[0];
    let rows = time.table.shape().rows();
    time.table.expect(NAME, "table", &[rows, channels])?;
    time.table.expect_element(NAME, "table", input.element())?;
    if !rows.is_multiple_of(images) {
        return Err(time.table.wrong(NAME, "table", &format!("a multiple of {images} rows")));
    }
    time.step.expect(NAME, "step", &[1])?;
    time.step.expect_element(NAME, "step", ElementType::U32)?;
    let params = Params {
        count: extent(NAME, "input", count)?,
        image: extent(NAME, "input", count / images)?,
        channels: extent(NAME, "input", channels)?,
    };
    let output = recording.transient(input.shape().clone(), input.element());
    recording.dispatch(Dispatch {
        shader: &ADD_TIME,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (input, Access::Read),
            (time.table, Access::Read),
            (time.step, Access::Read),
            (&output, Access::Write),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
