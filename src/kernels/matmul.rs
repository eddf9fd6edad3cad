//! Matrix product with bias, activation and residual.

use bytemuck::{Pod, Zeroable};

use super::product::{Product, Variants};
use super::{extent, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::kernels::activation::Activation;
use crate::tensor::{Shape, Tensor};

/// The `tiled` family: registers and workgroup memory, for every GPU.
pub static TILED: Shader = Shader {
    name: "matmul_tiled",
    source: source!("matmul_tiled"),
    preludes: &[source!(shared "activation"), source!(shared "gemm_tile")],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: &[],
};

/// The `broadcast` family: one subgroup of 8 lanes with all sums in registers, for software adapters.
pub static BROADCAST: Shader = Shader {
    name: "matmul_broadcast",
    source: source!("matmul_broadcast"),
    preludes: &[source!(shared "activation"), source!(shared "gemm_block"), source!(shared "gemm_broadcast")],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: &[],
};

/// The `cooperative` family: fragments that a subgroup multiplies as wholes.
pub static COOPERATIVE: Shader = Shader {
    name: "matmul_cooperative",
    source: source!("matmul_cooperative"),
    preludes: &[
        source!(shared "gemm_fragments_8"),
        source!(shared "gemm_fragments_16"),
        source!(shared "packs_1"),
        source!(shared "packs_4"),
        source!(shared "activation"),
        source!(shared "gemm_cooperative"),
    ],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: &["EDGE", "WIDTH", "LANES"],
};

const VARIANTS: Variants = Variants { tiled: &TILED, broadcast: &BROADCAST, cooperative: &COOPERATIVE };

/// The uniform of all matmul shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// M.
    pub rows: u32,
    /// K.
    pub terms: u32,
    /// N.
    pub columns: u32,
}

/// What is fused behind the product.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[N]`, f32.
    pub bias: Option<&'a Tensor>,
    /// Applied to the biased sum.
    pub activation: Activation,
    /// `[.., N]`, of the input's element type, added last.
    pub residual: Option<&'a Tensor>,
}

/// Records `activation(input · weight + bias) + residual`.
///
/// # Shapes
/// - `input`: `[.., K]`
/// - `weight`: `[K, N]`, same element type as `input`
/// - returns `[.., N]`
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the extents or element types do not fit together.
pub fn matmul(
    recording: &mut Recording,
    input: &Tensor,
    weight: &Tensor,
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    const NAME: &str = "matmul";
    let (rows, terms) = (input.shape().rows(), input.shape().channels());
    let columns = weight.shape().channels();
    weight.expect(NAME, "weight", &[terms, columns])?;
    weight.expect_element(NAME, "weight", input.element())?;
    let mut extents = input.shape().extents().to_vec();
    if let Some(last) = extents.last_mut() {
        *last = columns;
    }
    if let Some(bias) = epilogue.bias {
        bias.expect(NAME, "bias", &[columns])?;
    }
    if let Some(residual) = epilogue.residual {
        residual.expect(NAME, "residual", &extents)?;
        residual.expect_element(NAME, "residual", input.element())?;
    }
    let output = recording.transient(Shape::from(&extents[..]), input.element());
    let params = Params {
        rows: extent(NAME, "input", rows)?,
        terms: extent(NAME, "input", terms)?,
        columns: extent(NAME, "weight", columns)?,
    };
    let product = Product {
        rows: params.rows,
        columns: params.columns,
        runs: [params.terms, 0],
        input: input.bytes(),
        weight: weight.bytes(),
    };
    let mut layout = product.layout(recording.product_family(input.element()), &VARIANTS);
    layout.constants.extend([
        ("ACTIVATION", f64::from(epilogue.activation.code())),
        ("HAS_BIAS", f64::from(u8::from(epilogue.bias.is_some()))),
        ("HAS_RESIDUAL", f64::from(u8::from(epilogue.residual.is_some()))),
    ]);
    recording.dispatch(Dispatch {
        shader: layout.shader,
        element: input.element(),
        definitions: &layout.definitions,
        constants: &layout.constants,
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (input, Access::Read),
            (weight, Access::Read),
            // An absent tensor needs something bound in its place: the weight, which is only read as well.
            (epilogue.bias.unwrap_or(weight), Access::Read),
            (epilogue.residual.unwrap_or(weight), Access::Read),
            (&output, Access::Write),
        ],
        grid: layout.grid,
        multiply_accumulates: (rows * terms * columns) as u64,
    });
    Ok(output)
}
