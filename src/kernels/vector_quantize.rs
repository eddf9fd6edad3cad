//! The nearest entry of a codebook.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Shape, Tensor};

/// The only variant.
pub static VECTOR_QUANTIZE: Shader = Shader {
    name: "vector_quantize",
    source: source!("vector_quantize"),
    preludes: &[],
    bindings: &["input", "codebook", "output"],
    definitions: &[],
};

/// The uniform of `vector_quantize`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of vectors.
    pub count: u32,
    /// K, entries of the codebook.
    pub entries: u32,
    /// D, values of a vector.
    pub channels: u32,
}

/// Records the search for the nearest codebook entry of every vector, by Euclidean distance; of several that are
/// as near, the first.
///
/// # Shapes
/// - `input`: `[.., D]`, f32
/// - `codebook`: `[K, D]`, f32
/// - returns `[..]`, u32: entries of the codebook
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together or hold no values.
///
/// van den Oord et al., *Neural Discrete Representation Learning*, 2017, equation 1,
/// <https://arxiv.org/abs/1711.00937>; `VectorQuantizer` of diffusers.
pub fn vector_quantize(recording: &mut Recording, input: &Tensor, codebook: &Tensor) -> Result<Tensor> {
    const NAME: &str = "vector_quantize";
    let (entries, channels) = (codebook.shape().rows(), codebook.shape().channels());
    codebook.expect(NAME, "codebook", &[entries, channels])?;
    for (name, tensor) in [("input", input), ("codebook", codebook)] {
        tensor.expect_element(NAME, name, ElementType::F32)?;
        if tensor.shape().count() == 0 {
            return Err(tensor.wrong(NAME, name, "at least one value"));
        }
        extent(NAME, name, tensor.shape().count())?;
    }
    if input.shape().channels() != channels {
        return Err(input.wrong(NAME, "input", &format!("vectors of {channels} values")));
    }
    let extents = input.shape().extents();
    let output = recording.transient(Shape::from(&extents[..extents.len() - 1]), ElementType::U32);
    let count = output.shape().count();
    let params = Params {
        count: extent(NAME, "input", count)?,
        entries: extent(NAME, "codebook", entries)?,
        channels: extent(NAME, "codebook", channels)?,
    };
    recording.dispatch(Dispatch {
        shader: &VECTOR_QUANTIZE,
        element: ElementType::F32,
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (codebook, Access::Read), (&output, Access::Write)],
        grid: linear_grid(count, 1),
        multiply_accumulates: count as u64 * codebook.shape().count() as u64,
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn wrong_shapes_are_errors() {
        let tensor = |extents: &[usize]| Tensor::external("tensor", extents, ElementType::F32);
        let refused = |input: &[usize], codebook: &[usize]| {
            let outcome = vector_quantize(&mut Recording::new("test"), &tensor(input), &tensor(codebook));
            matches!(outcome, Err(Error::Shape { .. }))
        };
        assert!(!refused(&[1, 4, 4, 3], &[16, 3]));
        assert!(refused(&[1, 4, 4, 4], &[16, 3]));
        assert!(refused(&[0, 3], &[16, 3]));
        assert!(refused(&[4, 3], &[0, 3]));
        assert!(refused(&[4, 3], &[2, 8, 3]));
        let halves = Tensor::external("halves", [4, 3], ElementType::F16);
        assert!(vector_quantize(&mut Recording::new("test"), &halves, &tensor(&[16, 3])).is_err());
    }
}
