//! Whether a tensor holds a value that is not a number, or infinite.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static FINITE: Shader = Shader {
    name: "finite",
    source: source!("finite"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["input", "step", "output"],
    definitions: &[],
};

/// The uniform of `finite`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// N.
    pub count: u32,
    /// The row where the step is 0.
    pub first: u32,
    /// What a step adds to it.
    pub stride: u32,
}

/// The row of the output that a check writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// Always this one.
    Fixed(usize),
    /// That of the step.
    Step,
}

/// Records a check: one row of `output` becomes 1 where a value of `input` is not finite, and is left as it is where all
/// are.
///
/// # Shapes
/// - `input`: any, f16 or f32
/// - `step`: `[1]`, u32
/// - `output`: `[R]`, f32, zeros before; a step must be below R
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if a tensor has another shape or type, or there is no such row.
pub fn finite(
    recording: &mut Recording,
    input: &Tensor,
    step: &Tensor,
    output: &Tensor,
    row: Row,
) -> Result<()> {
    const NAME: &str = "finite";
    let rows = output.shape().count();
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    output.expect(NAME, "output", &[rows])?;
    output.expect_element(NAME, "output", ElementType::F32)?;
    if input.element() == ElementType::U32 {
        input.expect_element(NAME, "input", ElementType::F32)?;
    }
    let (first, stride) = match row {
        Row::Fixed(row) if row >= rows => {
            return Err(output.wrong(NAME, "output", &format!("more than {row} rows")));
        }
        Row::Fixed(row) => (row, 0),
        Row::Step => (0, 1),
    };
    let count = input.shape().count();
    let params =
        Params { count: extent(NAME, "input", count)?, first: extent(NAME, "output", first)?, stride };
    recording.dispatch(Dispatch {
        shader: &FINITE,
        element: input.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (step, Access::Read), (output, Access::ReadWrite)],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_errors() {
        let check = |element, rows: usize, row| {
            let input = Tensor::external("input", [2, 3], element);
            let step = Tensor::external("step", [1], ElementType::U32);
            let output = Tensor::external("output", [rows], ElementType::F32);
            finite(&mut Recording::new("test"), &input, &step, &output, row).is_ok()
        };
        assert!(check(ElementType::F16, 3, Row::Fixed(2)), "the last row");
        assert!(!check(ElementType::F16, 3, Row::Fixed(3)), "one behind it");
        assert!(check(ElementType::F32, 3, Row::Step), "the step's own");
        assert!(!check(ElementType::U32, 3, Row::Step), "whole numbers are finite");
    }
}
