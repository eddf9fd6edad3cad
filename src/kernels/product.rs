//! How a matrix product, or a convolution read as one, is cut into workgroups.

use std::sync::Arc;

use super::{GRID_LIMIT, linear_grid, tiling};
use crate::gpu::choices::{Choice, Choices, Family, Fragments, Product, Reason, Tiling};
use crate::gpu::recording::Recording;
use crate::gpu::shader::Shader;
use crate::tensor::ElementType;

/// The shaders of one product, by family.
#[derive(Debug)]
pub(super) struct Variants {
    /// Registers and workgroup memory.
    pub(super) tiled: &'static Shader,
    /// The same, for one range of the terms.
    pub(super) partial: &'static Shader,
    /// Subgroups of 8 lanes.
    pub(super) broadcast: &'static Shader,
    /// Cooperative matrices.
    pub(super) cooperative: &'static Shader,
}

/// A product, and what it is read from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    /// Its extents.
    pub(super) product: Product,
    /// Bytes of what the rows are read from.
    pub(super) input: u64,
    /// Bytes of what the columns are read from.
    pub(super) weight: u64,
    /// How many values are read and written at once; see [`word`].
    pub(super) word: u32,
}

/// What a family makes of a product.
#[derive(Debug)]
pub(super) struct Layout {
    /// The shader of the family.
    pub(super) shader: &'static Shader,
    /// Values of its definitions.
    pub(super) definitions: Vec<u32>,
    /// `override` constants of the family; the operation adds its own.
    pub(super) constants: Vec<(&'static str, f64)>,
    /// Workgroups.
    pub(super) grid: [u32; 3],
    /// Where the sums are made in parts: what the shader that adds them up is given.
    pub(super) parts: Option<Parts>,
}

/// Sums over ranges of the terms.
#[derive(Debug)]
pub(super) struct Parts {
    /// How many.
    pub(super) count: u32,
    /// Values of the definitions of the shader that adds them up.
    pub(super) definitions: [u32; 1],
    /// Its workgroups.
    pub(super) grid: [u32; 3],
}

/// Whether the family's product has GEGLU as an epilogue; else it is a kernel of its own.
pub(super) fn gates(family: Family) -> bool {
    match family {
        Family::Tiled => true,
        Family::Broadcast | Family::Cooperative(_) => false,
    }
}

impl Operands {
    /// The shader, its constants and its grid; notes the choice.
    pub(super) fn layout(&self, recording: &mut Recording, variants: &Variants) -> Layout {
        let choices = Arc::clone(recording.choices());
        let product = &self.product;
        let wanted = choices.wanted(product).find(|(tiling, _)| fits(tiling, product, &choices));
        let (tiling, reason) = wanted.unwrap_or_else(|| (self.default(&choices), Reason::Default));
        recording.note(Choice { product: *product, tiling, reason });
        let extents = [product.rows, product.columns];
        let int8 = self.int8();
        match tiling {
            Tiling::Tiled { tile, lane, depth, parts } => self.tiled(variants, tile, lane, depth, parts),
            Tiling::Broadcast { block, rows_first } => {
                let grid = grid(extents, block);
                let grid = if rows_first { [grid[1], grid[0], 1] } else { grid };
                let mut constants = vec![
                    ("ROWS", f64::from(block[0])),
                    ("COLUMNS", f64::from(block[1])),
                    ("ROWS_FIRST", f64::from(u8::from(rows_first))),
                ];
                if int8 == 1 {
                    let aligned = block[1] == 32 && product.columns.is_multiple_of(4);
                    constants.push(("ALIGNED", f64::from(u8::from(aligned))));
                }
                Layout { shader: variants.broadcast, definitions: vec![int8], constants, grid, parts: None }
            }
            Tiling::Cooperative(Fragments { edge, lanes }) => Layout {
                shader: variants.cooperative,
                definitions: vec![edge, self.word, int8, lanes],
                constants: Vec::new(),
                grid: grid(extents, [64, 64]),
                parts: None,
            },
        }
    }

    /// What the rules for the family say.
    fn default(&self, choices: &Choices) -> Tiling {
        let Product { rows, columns, element, .. } = self.product;
        match choices.product_family(element) {
            Family::Tiled => tiling::default(&self.product, &choices.facts),
            Family::Broadcast => {
                let block = broadcast_block(rows, columns);
                let (_, rows_first) = broadcast_grid([rows, columns], block, self.input, self.weight);
                Tiling::Broadcast { block, rows_first }
            }
            Family::Cooperative(fragments) => Tiling::Cooperative(fragments),
        }
    }

    /// The definition `INT8`.
    fn int8(&self) -> u32 {
        u32::from(self.product.weight == ElementType::Int8)
    }

    fn tiled(&self, variants: &Variants, tile: [u32; 2], lane: [u32; 2], depth: u32, parts: u32) -> Layout {
        let Product { rows, columns, .. } = self.product;
        let word = self.word;
        let definitions = vec![word, self.int8(), tile[0], tile[1], lane[0], lane[1], depth];
        let grid = grid([rows, columns], tile);
        let (shader, constants) = (variants.tiled, Vec::new());
        if parts == 1 {
            return Layout { shader, definitions, constants, grid, parts: None };
        }
        let words = rows as usize * columns as usize / word as usize;
        Layout {
            shader: variants.partial,
            definitions,
            constants: vec![("PARTS", f64::from(parts))],
            grid: [grid[0], grid[1], parts],
            parts: Some(Parts { count: parts, definitions: [word], grid: linear_grid(words, 64) }),
        }
    }
}

/// Whether this device can run a tiling for this product. Where it has cooperative matrices, tiles without them are as
/// good as any: tuning finds out what is faster.
pub(crate) fn fits(tiling: &Tiling, product: &Product, choices: &Choices) -> bool {
    match (choices.product_family(product.element), tiling) {
        (Family::Tiled | Family::Cooperative(_), Tiling::Tiled { .. }) => {
            tiling::fits(tiling, product, &choices.facts)
        }
        (Family::Broadcast, Tiling::Broadcast { block, rows_first }) => {
            let blocks = grid([product.rows, product.columns], *block);
            let known = block.iter().all(|side| [8, 16, 32].contains(side));
            known && !product.gated && (!rows_first || (blocks[2] == 1 && blocks[0] <= GRID_LIMIT))
        }
        (Family::Cooperative(own), Tiling::Cooperative(fragments)) => own == *fragments && !product.gated,
        _ => false,
    }
}

/// More take longer than they gain.
pub(crate) const MOST_CANDIDATES: usize = 8;

/// What is worth timing for a product, besides the default.
pub(crate) fn candidates(product: &Product, choices: &Choices) -> Vec<Tiling> {
    let all = match choices.product_family(product.element) {
        Family::Tiled | Family::Cooperative(_) => tiling::candidates(product, choices),
        Family::Broadcast => {
            let [_, columns] = broadcast_block(product.rows, product.columns);
            let blocks = [8, 16, 32].map(|rows| [rows, columns]);
            let orders = |block| [false, true].map(|rows_first| Tiling::Broadcast { block, rows_first });
            blocks.into_iter().flat_map(orders).collect()
        }
    };
    all.into_iter().filter(|tiling| fits(tiling, product, choices)).collect()
}

/// How many values are read and written at once (the definition `WORD`): four, where all of these extents and places
/// are multiples of it.
pub(super) fn word(extents: &[u32]) -> u32 {
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
