//! From the decoder's values to bytes.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static PIXELS: Shader = Shader {
    name: "pixels",
    source: source!("pixels"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["image", "output"],
    definitions: &[],
};

/// The uniform of `pixels`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of pixels.
    pub count: u32,
    /// Values of a pixel: 3, or 1 for grey.
    pub channels: u32,
}

/// Records the conversion of values in `-1..1` to bytes, rounded half to even as diffusers does.
///
/// Values outside are clamped; what is not a number becomes 0.
///
/// # Shapes
/// - `image`: `[N, H, W, 3]`, or `[N, H, W, 1]` for grey
/// - returns `[N, H, W]`, u32: in memory the bytes red, green, blue and 255
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there are not one or three channels.
pub fn pixels(recording: &mut Recording, image: &Tensor) -> Result<Tensor> {
    const NAME: &str = "pixels";
    let [images, height, width, channels] = image.image_extents(NAME, "image")?;
    if ![1, 3].contains(&channels) {
        return Err(image.wrong(NAME, "image", "[N, H, W, 3] or [N, H, W, 1]"));
    }
    extent(NAME, "image", image.shape().count())?;
    let output = recording.transient([images, height, width], ElementType::U32);
    let count = output.shape().count();
    let params = Params { count: extent(NAME, "image", count)?, channels: extent(NAME, "image", channels)? };
    recording.dispatch(Dispatch {
        shader: &PIXELS,
        element: image.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(image, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
