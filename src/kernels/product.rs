//! How a matrix product, or a convolution read as one, is cut into workgroups.

use super::GRID_LIMIT;
use crate::gpu::recording::{Family, Fragments};
use crate::gpu::shader::Shader;

/// The shaders of one product, by family.
#[derive(Debug)]
pub(super) struct Variants {
    /// Registers and workgroup memory.
    pub(super) tiled: &'static Shader,
    /// Subgroups of 8 lanes.
    pub(super) broadcast: &'static Shader,
    /// Cooperative matrices.
    pub(super) cooperative: &'static Shader,
}

/// `[rows, terms] x [terms, columns]`, whatever its operands are read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Of the output.
    pub(super) rows: u32,
    /// Of the output.
    pub(super) columns: u32,
    /// How many terms of a row lie beside each other where they are read from; two places.
    pub(super) runs: [u32; 2],
    /// Bytes of what the rows are read from.
    pub(super) input: u64,
    /// Bytes of what the columns are read from.
    pub(super) weight: u64,
}

/// What a family makes of a product.
#[derive(Debug)]
pub(super) struct Layout {
    /// The shader of the family.
    pub(super) shader: &'static Shader,
    /// Values of [`Shader::definitions`].
    pub(super) definitions: Vec<u32>,
    /// `override` constants of the family; the operation adds its own.
    pub(super) constants: Vec<(&'static str, f64)>,
    /// Workgroups.
    pub(super) grid: [u32; 3],
}

impl Product {
    /// The shader, its constants and its grid.
    pub(super) fn layout(&self, family: Family, variants: &Variants) -> Layout {
        let extents = [self.rows, self.columns];
        match family {
            Family::Tiled => {
                let grid = grid(extents, [64, 64]);
                Layout { shader: variants.tiled, definitions: Vec::new(), constants: Vec::new(), grid }
            }
            Family::Broadcast => {
                let block = broadcast_block(self.rows, self.columns);
                let (grid, rows_first) = broadcast_grid(extents, block, self.input, self.weight);
                let constants = vec![
                    ("ROWS", f64::from(block[0])),
                    ("COLUMNS", f64::from(block[1])),
                    ("ROWS_FIRST", f64::from(u8::from(rows_first))),
                ];
                Layout { shader: variants.broadcast, definitions: Vec::new(), constants, grid }
            }
            Family::Cooperative(Fragments { edge, lanes }) => Layout {
                shader: variants.cooperative,
                definitions: vec![edge, width(&[self.runs[0], self.runs[1], self.columns]), lanes],
                constants: Vec::new(),
                grid: grid(extents, [64, 64]),
            },
        }
    }
}

/// How many values a shader of the `cooperative` family reads at once, where all of these are multiples of it.
pub(super) fn width(extents: &[u32]) -> u32 {
    if extents.iter().all(|extent| extent.is_multiple_of(4)) { 4 } else { 1 }
}

/// Rows and columns of a workgroup of the `broadcast` family: many, since every load then serves many products,
/// but not so many that a small product occupies fewer than 4 cores.
fn broadcast_block(rows: u32, columns: u32) -> [u32; 2] {
    const WORKGROUPS: u32 = 4;
    let block_columns = columns.min(32).next_power_of_two().max(8);
    let across = columns.div_ceil(block_columns);
    let enough = |block_rows: &u32| rows.div_ceil(*block_rows).saturating_mul(across) >= WORKGROUPS;
    let block_rows = [32, 16].into_iter().find(enough).unwrap_or(8);
    [block_rows, block_columns]
}

/// Workgroups of a matrix product: blocks of columns along x, blocks of rows along y and, where there are more
/// than one dimension holds, z.
fn grid([rows, columns]: [u32; 2], [block_rows, block_columns]: [u32; 2]) -> [u32; 3] {
    let blocks = rows.div_ceil(block_rows);
    let layers = blocks.div_ceil(GRID_LIMIT).max(1);
    [columns.div_ceil(block_columns), blocks.div_ceil(layers), layers]
}

/// The grid of a product of the `broadcast` family, and whether neighbouring workgroups share their weights instead of
/// their rows: where the weights are the larger part, they are then read from memory once, not once for every block
/// of rows.
fn broadcast_grid(rows_columns: [u32; 2], block: [u32; 2], input: u64, weight: u64) -> ([u32; 3], bool) {
    let grid = grid(rows_columns, block);
    match grid {
        [columns, rows, 1] if input < weight && columns <= GRID_LIMIT => ([rows, columns, 1], true),
        _ => (grid, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_side_of_a_product_is_walked_last() {
        let block = [32, 32];
        assert_eq!(broadcast_grid([1024, 640], block, 10, 20), ([32, 20, 1], true));
        assert_eq!(broadcast_grid([1024, 640], block, 20, 10), ([20, 32, 1], false));
        // More blocks of rows than one dimension holds stay where they are.
        let rows = 32 * (GRID_LIMIT + 1);
        assert_eq!(broadcast_grid([rows, 64], block, 10, 20), ([2, GRID_LIMIT.div_ceil(2), 2], false));
    }
}
