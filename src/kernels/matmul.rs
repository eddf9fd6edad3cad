//! Matrix product with bias, activation and residual.

use bytemuck::{Pod, Zeroable};

use super::geglu::geglu;
use super::product::{Operands, Variants, gates, word};
use super::tiling::TILE_DEFINITIONS;
use super::{extent, source};
use crate::error::Result;
use crate::gpu::choices::{Operation, Product};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::kernels::activation::Activation;
use crate::tensor::{ElementType, Shape, Tensor};

const NAME: &str = "matmul";

/// The `tiled` family: registers and workgroup memory, for every GPU.
pub static TILED: Shader = Shader {
    name: "matmul_tiled",
    source: source!("matmul_tiled"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "activation"),
        source!(shared "gemm_tile"),
        source!(shared "matmul_product"),
        source!(shared "matmul_epilogue"),
        source!(shared "finish_columns"),
    ],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: TILE_DEFINITIONS,
};

/// The `tiled` family with few tiles: the sums of one range of the terms.
pub static PARTIAL: Shader = Shader {
    name: "matmul_partial",
    source: source!("matmul_partial"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "gemm_tile"),
        source!(shared "matmul_product"),
        source!(shared "partial_sums"),
    ],
    bindings: &["input", "weight", "sums"],
    definitions: TILE_DEFINITIONS,
};

/// Adds up what [`PARTIAL`] leaves.
pub static MERGE: Shader = Shader {
    name: "matmul_merge",
    source: source!("matmul_merge"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "activation"),
        source!(shared "linear_index"),
        source!(shared "matmul_epilogue"),
    ],
    bindings: &["sums", "bias", "residual", "output"],
    definitions: &["WORD"],
};

/// The `broadcast` family: one subgroup of 8 lanes with all sums in registers, for software adapters.
pub static BROADCAST: Shader = Shader {
    name: "matmul_broadcast",
    source: source!("matmul_broadcast"),
    preludes: &[
        source!(shared "weight_columns"),
        source!(shared "weight_columns_int8"),
        source!(shared "activation"),
        source!(shared "gemm_block"),
        source!(shared "gemm_broadcast"),
    ],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: &["INT8"],
};

/// The `cooperative` family: fragments that a subgroup multiplies as wholes.
pub static COOPERATIVE: Shader = Shader {
    name: "matmul_cooperative",
    source: source!("matmul_cooperative"),
    preludes: &[
        source!(shared "gemm_fragments_8"),
        source!(shared "gemm_fragments_16"),
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "stage_words"),
        source!(shared "activation"),
        source!(shared "gemm_cooperative"),
    ],
    bindings: &["input", "weight", "bias", "residual", "output"],
    definitions: &["EDGE", "WORD", "INT8", "LANES"],
};

const VARIANTS: Variants =
    Variants { tiled: &TILED, partial: &PARTIAL, broadcast: &BROADCAST, cooperative: &COOPERATIVE };

/// The uniform of all these shaders.
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
    /// GEGLU: the second half of the biased sums gates the first, `value * gelu(gate)`. Excludes the two before.
    /// A family without it records [`geglu`](fn@geglu) behind the product.
    pub gated: bool,
}

/// Records `activation(input · weight + bias) + residual`, or with `gated` its halves multiplied.
///
/// # Shapes
/// - `input`: `[.., K]`
/// - `weight`: `[K, N]`, same element type as `input`, or [`Int8`](ElementType::Int8)
/// - returns `[.., N]`, or `[.., N / 2]` if gated
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the extents or element types do not fit together.
pub fn matmul(
    recording: &mut Recording,
    input: &Tensor,
    weight: &Tensor,
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    record_into(recording, input, weight, epilogue, None)
}

/// As [`matmul`], into some rows of a transient tensor, `[rows, N]`.
///
/// # Errors
/// As [`matmul`], and if those rows have another shape than the result.
pub(crate) fn matmul_into(
    recording: &mut Recording,
    input: &Tensor,
    weight: &Tensor,
    epilogue: &Epilogue<'_>,
    output: &Tensor,
) -> Result<()> {
    record_into(recording, input, weight, epilogue, Some(output)).map(drop)
}

/// Columns of the widest tensor that a gated product with so many columns of weights makes.
pub(crate) fn widest_of_gated(recording: &Recording, element: ElementType, columns: usize) -> usize {
    if gates(recording.product_family(element)) { columns / 2 } else { columns }
}

fn record_into(
    recording: &mut Recording,
    input: &Tensor,
    weight: &Tensor,
    epilogue: &Epilogue<'_>,
    output: Option<&Tensor>,
) -> Result<Tensor> {
    if epilogue.gated && (epilogue.activation != Activation::None || epilogue.residual.is_some()) {
        return Err(weight.wrong(NAME, "weight", "a gated product without activation and residual"));
    }
    if epilogue.gated && !gates(recording.product_family(input.element())) {
        let sums = matmul(recording, input, weight, &Epilogue { gated: false, ..*epilogue })?;
        return geglu(recording, &sums);
    }
    let (rows, terms) = (input.shape().rows(), input.shape().channels());
    let columns = weight.shape().channels();
    weight.expect(NAME, "weight", &[terms, columns])?;
    weight.expect_weight(NAME, input.element())?;
    let mut extents = input.shape().extents().to_vec();
    let output_columns = if epilogue.gated { columns / 2 } else { columns };
    if epilogue.gated && (columns == 0 || !columns.is_multiple_of(2)) {
        return Err(weight.wrong(NAME, "weight", "an even number of columns"));
    }
    if let Some(last) = extents.last_mut() {
        *last = output_columns;
    }
    if let Some(bias) = epilogue.bias {
        bias.expect(NAME, "bias", &[columns])?;
    }
    if let Some(residual) = epilogue.residual {
        residual.expect(NAME, "residual", &extents)?;
        residual.expect_element(NAME, "residual", input.element())?;
    }
    let output = match output {
        Some(output) => {
            output.expect(NAME, "output", &extents)?;
            output.expect_element(NAME, "output", input.element())?;
            output.clone()
        }
        None => recording.transient(Shape::from(&extents[..]), input.element()),
    };
    let params = Params {
        rows: extent(NAME, "input", rows)?,
        terms: extent(NAME, "input", terms)?,
        columns: extent(NAME, "weight", columns)?,
    };
    let product = Product {
        operation: Operation::Matmul,
        image: [1, 1, params.rows],
        channels: params.terms,
        window: [1, 1],
        stride: 1,
        rows: params.rows,
        columns: params.columns,
        gated: epilogue.gated,
        element: input.element(),
        weight: weight.element(),
    };
    let word = word(&[params.terms, extent(NAME, "output", output_columns)?]);
    let operands = Operands { product, input: input.bytes(), weight: weight.bytes(), word };
    let mut layout = operands.layout(recording, &VARIANTS);
    let own = [
        ("ACTIVATION", f64::from(epilogue.activation.code())),
        ("HAS_BIAS", f64::from(u8::from(epilogue.bias.is_some()))),
        ("HAS_RESIDUAL", f64::from(u8::from(epilogue.residual.is_some()))),
    ];
    // An absent tensor needs something bound in its place: the weight, which is only read as well.
    let bias = (epilogue.bias.unwrap_or(weight), Access::Read);
    let residual = (epilogue.residual.unwrap_or(weight), Access::Read);
    let multiply_accumulates = (rows * terms * columns) as u64;
    let Some(parts) = layout.parts else {
        layout.constants.extend(own);
        if epilogue.gated {
            layout.constants.push(("GATED", 1.0));
        }
        recording.dispatch(Dispatch {
            shader: layout.shader,
            element: input.element(),
            definitions: &layout.definitions,
            constants: &layout.constants,
            params: bytemuck::bytes_of(&params),
            bindings: &[
                (input, Access::Read),
                (weight, Access::Read),
                bias,
                residual,
                (&output, Access::Write),
            ],
            grid: layout.grid,
            multiply_accumulates,
        });
        return Ok(output);
    };
    let sums = recording.transient([parts.count as usize, rows, columns], ElementType::F32);
    recording.dispatch(Dispatch {
        shader: layout.shader,
        element: input.element(),
        definitions: &layout.definitions,
        constants: &layout.constants,
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (weight, Access::Read), (&sums, Access::Write)],
        grid: layout.grid,
        multiply_accumulates,
    });
    layout.constants.extend(own);
    recording.dispatch(Dispatch {
        shader: &MERGE,
        element: input.element(),
        definitions: &parts.definitions,
        constants: &layout.constants,
        params: bytemuck::bytes_of(&params),
        bindings: &[(&sums, Access::Read), bias, residual, (&output, Access::Write)],
        grid: parts.grid,
        multiply_accumulates: 0,
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::gpu::choices::{Family, Fragments};

    const COOPERATIVE: Family = Family::Cooperative(Fragments { edge: 16, lanes: 128 });

    fn record(
        family: Family,
        element: ElementType,
        columns: usize,
        epilogue: &Epilogue<'_>,
    ) -> Result<(Vec<&'static str>, Shape)> {
        let tensor = |extents: [usize; 2]| Tensor::external("tensor", extents, element);
        let mut recording = Recording::new("test").with_family(family);
        let output = matmul(&mut recording, &tensor([5, 8]), &tensor([8, columns]), epilogue)?;
        let names = recording.commands().iter().map(|command| command.shader.name).collect();
        Ok((names, output.shape().clone()))
    }

    #[test]
    fn a_gate_is_fused_where_the_family_can() {
        let gated = Epilogue { gated: true, ..Epilogue::default() };
        for (family, element, expected) in [
            (Family::Tiled, ElementType::F16, vec!["matmul_tiled"]),
            (Family::Broadcast, ElementType::F16, vec!["matmul_broadcast", "geglu"]),
            (COOPERATIVE, ElementType::F16, vec!["matmul_cooperative", "geglu"]),
            // cooperative matrices multiply nothing else than f16
            (COOPERATIVE, ElementType::F32, vec!["matmul_tiled"]),
        ] {
            let (names, shape) = record(family, element, 12, &gated).unwrap();
            assert_eq!((names, shape.extents()), (expected, &[5, 6][..]), "{family} {element}");
        }
    }

    #[test]
    fn a_gate_excludes_what_it_cannot_be_with() {
        let residual = Tensor::external("residual", [5, 6], ElementType::F32);
        let gated = Epilogue { gated: true, ..Epilogue::default() };
        let wrong = [
            (13, gated),
            (12, Epilogue { activation: Activation::Silu, ..gated }),
            (12, Epilogue { residual: Some(&residual), ..gated }),
        ];
        for family in [Family::Tiled, Family::Broadcast, COOPERATIVE] {
            for (columns, epilogue) in &wrong {
                let outcome = record(family, ElementType::F32, *columns, epilogue);
                assert!(matches!(outcome, Err(Error::Shape { .. })), "{family:?} {epilogue:?}");
            }
        }
    }
}
