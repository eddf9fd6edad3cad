//! Sinusoidal embedding of timesteps.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static TIMESTEP_EMBEDDING: Shader = Shader {
    name: "timestep_embedding",
    source: source!("timestep_embedding"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["timesteps", "frequencies", "output"],
    definitions: &[],
};

/// The uniform of `timestep_embedding`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// S.
    pub timesteps: u32,
    /// Half of the embedding's size.
    pub frequencies: u32,
}

/// What is known of an embedding besides its frequencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestepEmbeddingConfig {
    /// Whether the cosines come first, as `flip_sin_to_cos` of diffusers.
    pub flip_sin_to_cos: bool,
}

/// The frequencies of an embedding of `size` values: `exp(-ln(10000) i / (size / 2 - freq_shift))`.
///
/// Radians per timestep, falling from 1. An odd `size` is rounded down.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "small counts")]
#[expect(clippy::cast_possible_truncation, reason = "the shader computes in f32")]
pub fn frequencies(size: usize, freq_shift: f64) -> Vec<f32> {
    let half = size / 2;
    let rate = -f64::ln(10_000.0) / (half as f64 - freq_shift);
    (0..half).map(|index| (rate * index as f64).exp() as f32).collect()
}

/// Records the sinusoidal embedding of timesteps, as `get_timestep_embedding` of diffusers.
///
/// Good for products of timestep and frequency up to a few thousand radians.
///
/// # Shapes
/// - `timesteps`: `[S]`, f32
/// - `frequencies`: `[D / 2]`, f32, from [`frequencies`]
/// - returns `[S, D]` of type `element`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors are not f32 lists.
///
/// Vaswani et al., *Attention Is All You Need*, 2017, section 3.5, <https://arxiv.org/abs/1706.03762>.
pub fn timestep_embedding(
    recording: &mut Recording,
    timesteps: &Tensor,
    frequencies: &Tensor,
    element: ElementType,
    config: &TimestepEmbeddingConfig,
) -> Result<Tensor> {
    const NAME: &str = "timestep_embedding";
    for (name, tensor) in [("timesteps", timesteps), ("frequencies", frequencies)] {
        tensor.expect(NAME, name, &[tensor.shape().channels()])?;
        tensor.expect_element(NAME, name, ElementType::F32)?;
    }
    let (rows, half) = (timesteps.shape().channels(), frequencies.shape().channels());
    extent(NAME, "timesteps", 2 * rows * half)?;
    let params = Params {
        timesteps: extent(NAME, "timesteps", rows)?,
        frequencies: extent(NAME, "frequencies", half)?,
    };
    let output = recording.transient([rows, 2 * half], element);
    recording.dispatch(Dispatch {
        shader: &TIMESTEP_EMBEDDING,
        element,
        definitions: &[],
        constants: &[("COSINES_FIRST", f64::from(u8::from(config.flip_sin_to_cos)))],
        params: bytemuck::bytes_of(&params),
        bindings: &[(timesteps, Access::Read), (frequencies, Access::Read), (&output, Access::Write)],
        grid: linear_grid(rows * half, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}
