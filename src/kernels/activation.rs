//! Element-wise functions: alone, and as codes for kernels that fuse them.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::Tensor;

/// The functions of `shaders/shared/activation.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x`.
    #[default]
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)` with the error function, as torch computes it by default.
    Gelu,
    /// `x * sigmoid(1.702 x)`, CLIP's approximation.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `3 tanh(x / 3)`, which keeps latents of tiny autoencoders within 3.
    SoftLimit,
    /// `2x - 1`: values from 0 to 1 become values from -1 to 1.
    FromUnit,
}

impl Activation {
    /// The value of the shader's `ACTIVATION`.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The only variant.
pub static ACTIVATION: Shader = Shader {
    name: "activation",
    source: source!("activation"),
    preludes: &[source!(shared "activation"), source!(shared "linear_index")],
    bindings: &["input", "output"],
    definitions: &[],
};

/// The uniform of `activation`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values.
    pub count: u32,
}

/// Records an element-wise function; the output has the input's shape and element type.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if there are 2^32 values or more.
pub fn activation(recording: &mut Recording, input: &Tensor, kind: Activation) -> Result<Tensor> {
    let count = input.shape().count();
    let params = Params { count: extent("activation", "input", count)? };
    let output = recording.transient(input.shape().clone(), input.element());
    recording.dispatch(Dispatch {
        shader: &ACTIVATION,
        element: input.element(),
        definitions: &[],
        constants: &[("ACTIVATION", f64::from(kind.code()))],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
