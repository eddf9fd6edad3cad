//! Extrapolation of a kept feature.

use bytemuck::{Pod, Zeroable};

use super::{extent, linear_grid, source};
use crate::error::{Error, Result};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static FORECAST: Shader = Shader {
    name: "forecast",
    source: source!("forecast"),
    preludes: &[source!(shared "linear_index")],
    bindings: &["newest", "middle", "oldest", "table", "step", "output"],
    definitions: &[],
};

/// The uniform of `forecast`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of values.
    pub count: u32,
}

/// Weights in one row of the table.
pub const WEIGHTS: usize = 3;

/// Records the weighted sum of the features of the last full calls, the newest first.
///
/// # Shapes
/// - `features`: two or three tensors of one shape and element type; one whose weight is 0 is not read
/// - `table`: `[S, 3]`, f32: weights of the newest, the middle and the oldest feature
/// - `step`: `[1]`, u32: the row of the table
/// - returns a tensor of the features' shape and element type
///
/// # Errors
/// [`Error::Shape`] if the tensors do not fit together, or there are not two or three features.
pub fn forecast(
    recording: &mut Recording,
    features: &[Tensor],
    table: &Tensor,
    step: &Tensor,
) -> Result<Tensor> {
    const NAME: &str = "forecast";
    let (newest, middle, oldest) = match features {
        [newest, middle] => (newest, middle, None),
        [newest, middle, oldest] => (newest, middle, Some(oldest)),
        other => {
            return Err(Error::Shape {
                operation: NAME,
                tensor: "features".to_owned(),
                expected: "two or three".to_owned(),
                found: other.len().to_string(),
            });
        }
    };
    for (name, tensor) in [("middle", Some(middle)), ("oldest", oldest)] {
        let Some(tensor) = tensor else { continue };
        tensor.expect(NAME, name, newest.shape().extents())?;
        tensor.expect_element(NAME, name, newest.element())?;
    }
    table.expect(NAME, "table", &[table.shape().rows(), WEIGHTS])?;
    table.expect_element(NAME, "table", ElementType::F32)?;
    step.expect(NAME, "step", &[1])?;
    step.expect_element(NAME, "step", ElementType::U32)?;
    let count = newest.shape().count();
    let params = Params { count: extent(NAME, "newest", count)? };
    let output = recording.transient(newest.shape().clone(), newest.element());
    recording.dispatch(Dispatch {
        shader: &FORECAST,
        element: newest.element(),
        definitions: &[],
        constants: &[("HAS_OLDEST", f64::from(u8::from(oldest.is_some())))],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (newest, Access::Read),
            (middle, Access::Read),
            // An absent tensor needs something bound in its place: another that is only read.
            (oldest.unwrap_or(middle), Access::Read),
            (table, Access::Read),
            (step, Access::Read),
            (&output, Access::Write),
        ],
        grid: linear_grid(count, 64),
        multiply_accumulates: 0,
    });
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_errors() {
        let tensor = |extents: &[usize]| Tensor::external("tensor", extents, ElementType::F32);
        let step = Tensor::external("step", [1], ElementType::U32);
        let accepted = |shapes: &[&[usize]], table: &[usize]| {
            let features: Vec<Tensor> = shapes.iter().map(|shape| tensor(shape)).collect();
            forecast(&mut Recording::new("test"), &features, &tensor(table), &step).is_ok()
        };
        assert!(accepted(&[&[2, 4], &[2, 4]], &[5, 3]));
        assert!(accepted(&[&[2, 4], &[2, 4], &[2, 4]], &[5, 3]));
        assert!(!accepted(&[&[2, 4]], &[5, 3]));
        assert!(!accepted(&[&[2, 4], &[4, 2]], &[5, 3]));
        assert!(!accepted(&[&[2, 4], &[2, 4], &[8]], &[5, 3]));
        assert!(!accepted(&[&[2, 4], &[2, 4]], &[5, 2]));
    }
}
