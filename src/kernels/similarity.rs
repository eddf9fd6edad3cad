//! How alike two tensors are.

use bytemuck::{Pod, Zeroable};

use super::{extent, source};
use crate::error::Result;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// The only variant.
pub static SIMILARITY: Shader = Shader {
    name: "similarity",
    source: source!("similarity"),
    preludes: &[],
    bindings: &["left", "right", "output"],
    definitions: &[],
};

/// The uniform of `similarity`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// N.
    pub count: u32,
    /// G.
    pub groups: u32,
    /// The row of the output that is written.
    pub row: u32,
}

/// Partial sums of one pair: enough for a large GPU, few enough to read back.
pub const GROUPS: usize = 64;

/// Records the sums that tell how alike two tensors are, into one row of `output`.
///
/// # Shapes
/// - `left`, `right`: one shape and element type
/// - `output`: `[R, 64, 4]`, f32: for every pair of tensors, partial sums of `left · right`, `left · left`,
///   `right · right` and `|left - right|²`; [`Similarity::from_partial_sums`] adds them up
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) if the tensors do not fit together, or there is no such row.
pub fn similarity(
    recording: &mut Recording,
    left: &Tensor,
    right: &Tensor,
    output: &Tensor,
    row: usize,
) -> Result<()> {
    const NAME: &str = "similarity";
    right.expect(NAME, "right", left.shape().extents())?;
    right.expect_element(NAME, "right", left.element())?;
    let rows = output.shape().extents().first().copied().unwrap_or(0);
    output.expect(NAME, "output", &[rows, GROUPS, 4])?;
    output.expect_element(NAME, "output", ElementType::F32)?;
    if row >= rows {
        return Err(output.wrong(NAME, "output", &format!("more than {row} rows")));
    }
    extent(NAME, "output", output.shape().count())?;
    let params = Params {
        count: extent(NAME, "left", left.shape().count())?,
        groups: extent(NAME, "output", GROUPS)?,
        row: extent(NAME, "output", row)?,
    };
    recording.dispatch(Dispatch {
        shader: &SIMILARITY,
        element: left.element(),
        definitions: &[],
        constants: &[],
        params: bytemuck::bytes_of(&params),
        bindings: &[(left, Access::Read), (right, Access::Read), (output, Access::ReadWrite)],
        grid: [params.groups, 1, 1],
        multiply_accumulates: 0,
    });
    Ok(())
}

/// How alike two tensors are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// The cosine of the angle between them; 1 where both are zero.
    pub cosine: f64,
    /// `|left - right| / |left|`; 0 where both are zero.
    pub relative_l2: f64,
    /// `|left - right|`.
    pub distance: f64,
}

impl Similarity {
    /// Adds up the partial sums of one pair, `[64, 4]`.
    #[must_use]
    pub fn from_partial_sums(sums: &[f32]) -> Self {
        let sum =
            |part: usize| -> f64 { sums.iter().skip(part).step_by(4).map(|&value| f64::from(value)).sum() };
        let [product, left, right, difference] = [0, 1, 2, 3].map(sum);
        let ratio = |above: f64, below: f64, empty: f64| if below > 0.0 { above / below } else { empty };
        Self {
            cosine: ratio(product, (left * right).sqrt(), if left == right { 1.0 } else { 0.0 }),
            relative_l2: ratio(difference, left, if difference == 0.0 { 0.0 } else { f64::INFINITY }).sqrt(),
            distance: difference.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_shapes_are_errors() {
        let tensor = |extents: &[usize]| Tensor::external("tensor", extents, ElementType::F32);
        let accepted = |right: &[usize], output: &[usize], row| {
            let (left, right, output) = (tensor(&[2, 8]), tensor(right), tensor(output));
            similarity(&mut Recording::new("test"), &left, &right, &output, row).is_ok()
        };
        assert!(accepted(&[2, 8], &[3, GROUPS, 4], 2));
        assert!(!accepted(&[2, 8], &[3, GROUPS, 4], 3));
        assert!(!accepted(&[8, 2], &[3, GROUPS, 4], 0));
        assert!(!accepted(&[2, 8], &[3, GROUPS, 3], 0));
    }

    #[test]
    fn sums_become_an_angle_and_a_distance() {
        // left = (3, 4), right = (6, 8): the same direction, and as far away as left is long
        let mut sums = vec![0.0; 4 * GROUPS];
        sums[..8].copy_from_slice(&[18.0, 9.0, 36.0, 9.0, 32.0, 16.0, 64.0, 16.0]);
        let found = Similarity::from_partial_sums(&sums);
        assert_eq!(found, Similarity { cosine: 1.0, relative_l2: 1.0, distance: 5.0 });
        let zeros = Similarity::from_partial_sums(&vec![0.0; 4 * GROUPS]);
        assert_eq!(zeros, Similarity { cosine: 1.0, relative_l2: 0.0, distance: 0.0 });
    }
}
