//! Convolution with a second input, bias, time embedding, residual and activation.

use bytemuck::{Pod, Zeroable};

use super::activation::Activation;
use super::product::{Operands, Variants, word};
use super::tiling::TILE_DEFINITIONS;
use super::{extent, source};
use crate::error::{Error, Result};
use crate::gpu::choices::{Operation, Product};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

const NAME: &str = "conv2d";

/// The `tiled` family: an implicit matrix product over registers and workgroup memory, for every GPU.
pub static TILED: Shader = Shader {
    name: "conv2d_tiled",
    source: source!("conv2d_tiled"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "gemm_tile"),
        source!(shared "conv2d_product"),
        source!(shared "activation"),
        source!(shared "conv2d_epilogue"),
        source!(shared "finish_columns"),
    ],
    bindings: &["input", "second", "weight", "bias", "time", "step", "residual", "output"],
    definitions: TILE_DEFINITIONS,
};

/// The `tiled` family with few tiles: the sums of one range of the terms.
pub static PARTIAL: Shader = Shader {
    name: "conv2d_partial",
    source: source!("conv2d_partial"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "gemm_tile"),
        source!(shared "conv2d_product"),
        source!(shared "partial_sums"),
    ],
    bindings: &["input", "second", "weight", "sums"],
    definitions: TILE_DEFINITIONS,
};

/// Adds up what [`PARTIAL`] leaves.
pub static MERGE: Shader = Shader {
    name: "conv2d_merge",
    source: source!("conv2d_merge"),
    preludes: &[
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "linear_index"),
        source!(shared "activation"),
        source!(shared "conv2d_epilogue"),
    ],
    bindings: &["sums", "bias", "time", "step", "residual", "output"],
    definitions: &["WORD"],
};

/// The `broadcast` family: one subgroup of 8 lanes with all sums in registers, for software adapters.
pub static BROADCAST: Shader = Shader {
    name: "conv2d_broadcast",
    source: source!("conv2d_broadcast"),
    preludes: &[
        source!(shared "weight_columns"),
        source!(shared "weight_columns_int8"),
        source!(shared "gemm_block"),
        source!(shared "gemm_broadcast"),
        source!(shared "activation"),
    ],
    bindings: &["input", "second", "weight", "bias", "time", "step", "residual", "output"],
    definitions: &["INT8"],
};

/// The `cooperative` family: fragments that a subgroup multiplies as wholes.
pub static COOPERATIVE: Shader = Shader {
    name: "conv2d_cooperative",
    source: source!("conv2d_cooperative"),
    preludes: &[
        source!(shared "gemm_fragments_8"),
        source!(shared "gemm_fragments_16"),
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "weight_words"),
        source!(shared "weight_words_int8"),
        source!(shared "stage_words"),
        source!(shared "gemm_cooperative"),
        source!(shared "activation"),
    ],
    bindings: &["input", "second", "weight", "bias", "time", "step", "residual", "output"],
    definitions: &["EDGE", "WORD", "INT8", "LANES"],
};

const VARIANTS: Variants =
    Variants { tiled: &TILED, partial: &PARTIAL, broadcast: &BROADCAST, cooperative: &COOPERATIVE };

/// The uniform of all these shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// H.
    pub height: u32,
    /// W.
    pub width: u32,
    /// C1.
    pub channels: u32,
    /// C2, 0 without a second input.
    pub second_channels: u32,
    /// OH.
    pub output_height: u32,
    /// OW.
    pub output_width: u32,
    /// N * OH * OW.
    pub rows: u32,
    /// O.
    pub columns: u32,
    /// KH.
    pub kernel_height: u32,
    /// KW.
    pub kernel_width: u32,
    /// Distance between neighbouring windows.
    pub stride: u32,
    /// Rows of zeros above the image.
    pub top: u32,
    /// Columns of zeros left of the image.
    pub left: u32,
}

/// Zeros around an image, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same number of pixels on all four sides.
    #[must_use]
    pub const fn same(pixels: usize) -> Self {
        Self { top: pixels, left: pixels, bottom: pixels, right: pixels }
    }
}

/// The geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows, in both directions.
    pub stride: usize,
    /// Zeros around the image.
    pub padding: Padding,
}

/// One row of a table of time embeddings, chosen on the device.
#[derive(Clone, Copy, Debug)]
pub struct TimeRow<'a> {
    /// `[S, O]`, of the input's element type: one row for each step.
    pub table: &'a Tensor,
    /// `[1]`, u32: the row to add; it must be below S.
    pub step: &'a Tensor,
}

/// What is fused behind the convolution: all of it is added, then activated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[O]`, f32.
    pub bias: Option<&'a Tensor>,
    /// The same for all pixels and images.
    pub time: Option<TimeRow<'a>>,
    /// `[N, OH, OW, O]`, of the input's element type, added last.
    pub residual: Option<&'a Tensor>,
    /// What is made of the sums.
    pub activation: Activation,
}

/// Records a convolution of `input`, with `second` read as if it were concatenated behind its channels.
///
/// # Shapes
/// - `input`: `[N, H, W, C1]`
/// - `second`: `[N, H, W, C2]`, same element type as `input`
/// - `weight`: `[KH * KW * (C1 + C2), O]`, same element type as `input`, or [`Int8`](ElementType::Int8); row
///   `(y * KW + x) * (C1 + C2) + c`
/// - returns `[N, OH, OW, O]` with `OH = (top + H + bottom - KH) / stride + 1`, rounded down, `OW` likewise
///
/// # Errors
/// [`Error::Shape`] if the extents or element types do not fit together, if one of them is zero, or if there
/// are more values (2^32) than one dispatch can count.
pub fn conv2d(
    recording: &mut Recording,
    input: &Tensor,
    second: Option<&Tensor>,
    weight: &Tensor,
    config: &Conv2dConfig,
    epilogue: &Epilogue<'_>,
) -> Result<Tensor> {
    let element = input.element();
    let [images, height, width, channels] = input.image_extents(NAME, "input")?;
    if input.shape().count() == 0 {
        return Err(input.wrong(NAME, "input", "at least one value"));
    }
    let second_channels = match second {
        None => 0,
        Some(second) => {
            second.expect_element(NAME, "second", element)?;
            let [.., second_channels] = second.image_extents(NAME, "second")?;
            second.expect(NAME, "second", &[images, height, width, second_channels])?;
            second_channels
        }
    };
    let Padding { top, left, bottom, right } = config.padding;
    let [kernel_height, kernel_width] = config.kernel;
    let output_height = windows([top, height, bottom], kernel_height, config.stride)?;
    let output_width = windows([left, width, right], kernel_width, config.stride)?;

    let columns = weight.shape().channels();
    let terms = (kernel_height * kernel_width).saturating_mul(channels.saturating_add(second_channels));
    weight.expect(NAME, "weight", &[terms, columns])?;
    weight.expect_weight(NAME, element)?;
    if columns == 0 {
        return Err(weight.wrong(NAME, "weight", "at least one column"));
    }
    let extents = [images, output_height, output_width, columns];
    check_epilogue(epilogue, extents, element)?;

    let rows = images.saturating_mul(output_height).saturating_mul(output_width);
    for (name, tensor) in [("input", Some(input)), ("second", second), ("weight", Some(weight))] {
        extent(NAME, name, tensor.map_or(0, |tensor| tensor.shape().count()))?;
    }
    extent(NAME, "output", rows.saturating_mul(columns))?;
    let params = Params {
        height: extent(NAME, "input", height)?,
        width: extent(NAME, "input", width)?,
        channels: extent(NAME, "input", channels)?,
        second_channels: extent(NAME, "second", second_channels)?,
        output_height: extent(NAME, "output", output_height)?,
        output_width: extent(NAME, "output", output_width)?,
        rows: extent(NAME, "output", rows)?,
        columns: extent(NAME, "output", columns)?,
        kernel_height: extent(NAME, "weight", kernel_height)?,
        kernel_width: extent(NAME, "weight", kernel_width)?,
        stride: extent(NAME, "stride", config.stride)?,
        top: extent(NAME, "padding", top)?,
        left: extent(NAME, "padding", left)?,
    };
    let product = Product {
        operation: Operation::Conv2d,
        image: [extent(NAME, "input", images)?, params.height, params.width],
        channels: params.channels.saturating_add(params.second_channels),
        window: [params.kernel_height, params.kernel_width],
        stride: params.stride,
        rows: params.rows,
        columns: params.columns,
        gated: false,
        element,
        weight: weight.element(),
    };
    let operands = Operands {
        product,
        input: input.bytes().saturating_add(second.map_or(0, Tensor::bytes)),
        weight: weight.bytes(),
        word: word(&[params.channels, params.second_channels, params.columns]),
    };
    let mut layout = operands.layout(recording, &VARIANTS);
    let flag = |set: bool| f64::from(u8::from(set));
    layout.constants.push(("HAS_SECOND", flag(second.is_some())));
    let own = [
        ("HAS_BIAS", flag(epilogue.bias.is_some())),
        ("HAS_TIME", flag(epilogue.time.is_some())),
        ("HAS_RESIDUAL", flag(epilogue.residual.is_some())),
        ("ACTIVATION", f64::from(epilogue.activation.code())),
    ];
    // An absent tensor needs something bound in its place: the weight, which is only read as well.
    let [first, second, matrix] = [input, second.unwrap_or(weight), weight].map(|read| (read, Access::Read));
    let (table, step) = epilogue.time.map_or((weight, weight), |time| (time.table, time.step));
    let (bias, residual) = (epilogue.bias.unwrap_or(weight), epilogue.residual.unwrap_or(weight));
    let [bias, table, step, residual] = [bias, table, step, residual].map(|read| (read, Access::Read));
    let output = recording.transient(extents, element);
    let dispatch = Dispatch {
        shader: layout.shader,
        element,
        definitions: &layout.definitions,
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[],
        grid: layout.grid,
        multiply_accumulates: (rows as u64).saturating_mul(weight.shape().count() as u64),
    };
    let Some(parts) = layout.parts else {
        layout.constants.extend(own);
        let written = (&output, Access::Write);
        recording.dispatch(Dispatch {
            constants: &layout.constants,
            bindings: &[first, second, matrix, bias, table, step, residual, written],
            ..dispatch
        });
        return Ok(output);
    };
    let sums = recording.transient([parts.count as usize, rows, columns], ElementType::F32);
    recording.dispatch(Dispatch {
        constants: &layout.constants,
        bindings: &[first, second, matrix, (&sums, Access::Write)],
        ..dispatch
    });
    let part_count = ("PARTS", f64::from(parts.count));
    recording.dispatch(Dispatch {
        shader: &MERGE,
        definitions: &parts.definitions,
        constants: &[&own[..], &[part_count]].concat(),
        bindings: &[(&sums, Access::Read), bias, table, step, residual, (&output, Access::Write)],
        grid: parts.grid,
        multiply_accumulates: 0,
        ..dispatch
    });
    Ok(output)
}

fn check_epilogue(epilogue: &Epilogue<'_>, extents: [usize; 4], element: ElementType) -> Result<()> {
    let [.., columns] = extents;
    if let Some(bias) = epilogue.bias {
        bias.expect(NAME, "bias", &[columns])?;
        bias.expect_element(NAME, "bias", ElementType::F32)?;
    }
    if let Some(time) = epilogue.time {
        let steps = time.table.shape().rows();
        time.table.expect(NAME, "time", &[steps, columns])?;
        time.table.expect_element(NAME, "time", element)?;
        time.step.expect(NAME, "step", &[1])?;
        time.step.expect_element(NAME, "step", ElementType::U32)?;
    }
    if let Some(residual) = epilogue.residual {
        residual.expect(NAME, "residual", &extents)?;
        residual.expect_element(NAME, "residual", element)?;
    }
    Ok(())
}

/// How many windows fit into an extent with its padding before and behind.
fn windows([before, inner, behind]: [usize; 3], kernel: usize, stride: usize) -> Result<usize> {
    let padded = before.saturating_add(inner).saturating_add(behind);
    let problem = |expected: &str| Error::Shape {
        operation: NAME,
        tensor: "input".to_owned(),
        expected: expected.to_owned(),
        found: format!("{inner} pixels, padding {before} and {behind}, kernel {kernel}, stride {stride}"),
    };
    // The shader tells pixels before the image from those behind it by the highest bit.
    if i32::try_from(padded).is_err() || i32::try_from(stride).is_err() {
        return Err(problem("fewer than 2^31 pixels in a row or column"));
    }
    if kernel == 0 || stride == 0 || kernel > padded {
        return Err(problem("a kernel that fits, and a stride, of at least one pixel"));
    }
    Ok((padded - kernel) / stride + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Conv2dConfig = Conv2dConfig { kernel: [3, 3], stride: 1, padding: Padding::same(1) };

    fn refused(
        input: &[usize],
        second: Option<&[usize]>,
        weight: &[usize],
        config: Conv2dConfig,
        bias: Option<&[usize]>,
    ) -> bool {
        let tensor = |extents: &[usize]| Tensor::external("tensor", extents, ElementType::F32);
        let (second, bias) = (second.map(tensor), bias.map(tensor));
        let epilogue = Epilogue { bias: bias.as_ref(), ..Epilogue::default() };
        let mut recording = Recording::new("test");
        let outcome =
            conv2d(&mut recording, &tensor(input), second.as_ref(), &tensor(weight), &config, &epilogue);
        matches!(outcome, Err(Error::Shape { .. }))
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let image = [1, 8, 8, 4];
        assert!(!refused(&image, None, &[36, 5], SAME, Some(&[5])));
        assert!(refused(&image[1..], None, &[36, 5], SAME, None));
        assert!(refused(&image, None, &[35, 5], SAME, None));
        assert!(refused(&image, None, &[36, 0], SAME, None));
        assert!(refused(&[1, 0, 8, 4], None, &[36, 5], SAME, None));
        assert!(refused(&image, Some(&[1, 8, 7, 4]), &[72, 5], SAME, None));
        assert!(refused(&image, None, &[36, 5], SAME, Some(&[4])));
        assert!(refused(&image, None, &[36, 5], Conv2dConfig { stride: 0, ..SAME }, None));
        assert!(refused(&image, None, &[0, 5], Conv2dConfig { kernel: [0, 3], ..SAME }, None));
        assert!(refused(
            &[1, 1, 1, 4],
            None,
            &[36, 5],
            Conv2dConfig { padding: Padding::same(0), ..SAME },
            None
        ));
        assert!(refused(
            &image,
            None,
            &[36, 5],
            Conv2dConfig { padding: Padding::same(usize::MAX), ..SAME },
            None
        ));
    }
}
