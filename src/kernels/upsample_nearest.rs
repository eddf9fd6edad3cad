//! Nearest-neighbour resizing.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::{Error, Result};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::Tensor;

/// The only variant.
pub static UPSAMPLE_NEAREST: Shader = Shader {
    name: "upsample_nearest",
    source: source!("upsample_nearest"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "output"],
    definitions: &[],
};

/// The uniform of `upsample_nearest`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values of the output.
    pub count: u32,
    /// C.
    pub channels: u32,
    /// H of the input.
    pub input_height: u32,
    /// W of the input.
    pub input_width: u32,
    /// H of the output.
    pub height: u32,
    /// W of the output.
    pub width: u32,
}

/// Records nearest-neighbour resizing, as `torch.nn.functional.interpolate(mode="nearest", size=...)` but with
/// exact integer arithmetic.
///
/// # Shapes
/// - `input`: `[N, H, W, C]`
/// - `size`: height and width of the output, not necessarily multiples
/// - returns `[N, size[0], size[1], C]`
///
/// # Errors
/// [`Error::Shape`] if the input is no image, or one of the images is empty.
pub fn upsample_nearest(recording: &mut Recording, input: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    const NAME: &str = "upsample_nearest";
    let [images, input_height, input_width, channels] = input.image_extents(NAME, "input")?;
    let [height, width] = size;
    if input.shape().count() == 0 {
        return Err(input.wrong(NAME, "input", "at least one pixel"));
    }
    // The shader multiplies an input extent by an output extent.
    let fits = |input: usize, output: usize| output > 0 && u32::try_from(input * output).is_ok();
    if !fits(input_height, height) || !fits(input_width, width) {
        return Err(Error::Shape {
            operation: NAME,
            tensor: "size".to_owned(),
            expected: "positive extents whose product with the input's is below 2^32".to_owned(),
            found: format!("{size:?}"),
        });
    }
    extent(NAME, "input", input.shape().count())?;
    let output = recording.transient([images, height, width, channels], input.element());
    let count = output.shape().count();
    let params = Params {
        count: extent(NAME, "size", count)?,
        channels: extent(NAME, "input", channels)?,
        input_height: extent(NAME, "input", input_height)?,
        input_width: extent(NAME, "input", input_width)?,
        height: extent(NAME, "size", height)?,
        width: extent(NAME, "size", width)?,
    };
    recording.dispatch(Dispatch {
        shader: &UPSAMPLE_NEAREST,
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
