//! Tiles of the `tiled` family: which there are, which is chosen for a product, and which are worth trying.

use super::product::MOST_CANDIDATES;
use crate::gpu::choices::{Choices, DeviceClass, DeviceFacts, Product, Tiling};

/// The definitions of the shaders that have a tile.
pub(crate) const TILE_DEFINITIONS: &[&str] =
    &["WORD", "INT8", "TILE_ROWS", "TILE_COLUMNS", "LANE_ROWS", "LANE_COLUMNS", "DEPTH"];

/// A tile: what a workgroup and a lane of it own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) size: [u32; 2],
    pub(crate) lane: [u32; 2],
    pub(crate) depth: u32,
}

const fn tile(size: [u32; 2], lane: [u32; 2], depth: u32) -> Tile {
    Tile { size, lane, depth }
}

/// All tiles, from that which reads the least to that which makes the most workgroups.
pub(crate) const TILES: [Tile; 8] =
    [LARGEST, LARGE, tile([64, 128], [8, 8], 16), MEDIUM, SPREAD, WIDE, SMALL, NARROW];
const LARGEST: Tile = tile([128, 128], [8, 8], 8);
const LARGE: Tile = tile([128, 64], [8, 8], 16);
const MEDIUM: Tile = tile([64, 64], [8, 8], 16);
const SPREAD: Tile = tile([64, 64], [4, 4], 16);
const WIDE: Tile = tile([32, 64], [4, 8], 16);
const SMALL: Tile = tile([32, 32], [4, 4], 16);
/// For few columns, as those of pictures.
const NARROW: Tile = tile([64, 16], [4, 4], 16);

/// More parts would cost more than they spread.
const MOST_PARTS: u32 = 16;

/// A part should be so long, for its sums are written and read once more.
const LEAST_PART_TERMS: u64 = 256;

impl Tile {
    pub(crate) const fn lanes(&self) -> u32 {
        self.size[0] / self.lane[0] * (self.size[1] / self.lane[1])
    }

    /// What the shaders declare; the convolution's is the larger.
    pub(crate) const fn workgroup_bytes(&self) -> u32 {
        let left = self.size[0] * (self.depth / 4 + 1) * 16;
        let right = self.depth * self.size[1] * 4;
        left + right + 4 * self.size[0]
    }

    fn runs_on(&self, facts: &DeviceFacts) -> bool {
        self.lanes() <= facts.workgroup_lanes && self.workgroup_bytes() <= facts.workgroup_bytes
    }

    /// A gate lies in the same lane as its value only where a lane has two vectors of columns.
    fn suits(&self, product: &Product) -> bool {
        !product.gated || self.lane[1] == 8
    }

    fn count(&self, product: &Product) -> u64 {
        u64::from(product.rows.div_ceil(self.size[0])) * u64::from(product.columns.div_ceil(self.size[1]))
    }

    const fn in_parts(self, parts: u32) -> Tiling {
        Tiling::Tiled { tile: self.size, lane: self.lane, depth: self.depth, parts }
    }
}

/// All tiles of the `tiled` family, for tests and tools that look at each.
#[must_use]
pub fn all_tiles() -> Vec<Tiling> {
    TILES.iter().map(|tile| tile.in_parts(1)).collect()
}

/// Whether a tiling is one of those that the shaders are tested with, and this device can run it for this product.
pub(crate) fn fits(tiling: &Tiling, product: &Product, facts: &DeviceFacts) -> bool {
    let Tiling::Tiled { tile: size, lane, depth, parts } = *tiling else { return false };
    let tile = Tile { size, lane, depth };
    let known = TILES.contains(&tile) && tile.runs_on(facts) && tile.suits(product);
    known && (parts == 1 || may_split(product, parts))
}

fn may_split(product: &Product, parts: u32) -> bool {
    let sums = u64::from(product.rows) * u64::from(product.columns) * u64::from(parts);
    let useful = product.terms() >= u64::from(parts) && !product.gated;
    // The parts take the place of further rows in the grid, and sums are counted in 32 bits.
    (2..=MOST_PARTS).contains(&parts) && useful && sums < 1 << 28 && product.rows < 1 << 20
}

/// The rules for a class of device; see ARCHITECTURE.md.
pub(crate) fn default(product: &Product, facts: &DeviceFacts) -> Tiling {
    // Workgroups that occupy the device, and how many more are needed before each may be larger.
    let (busy, plenty) = match facts.class {
        DeviceClass::Discrete => (128, 512),
        DeviceClass::Integrated | DeviceClass::Software => (32, 256),
    };
    if product.columns <= 16 && !product.gated {
        return NARROW.in_parts(1);
    }
    let small = if product.gated { WIDE } else { SMALL };
    if facts.class != DeviceClass::Discrete {
        let tile = if MEDIUM.count(product) >= plenty && MEDIUM.runs_on(facts) { MEDIUM } else { small };
        return tile.in_parts(parts(tile, product, busy));
    }
    let enough = |(tile, least): &(Tile, u64)| tile.count(product) >= *least && tile.runs_on(facts);
    if let Some((tile, _)) = [(LARGE, plenty), (MEDIUM, busy)].iter().find(|pair| enough(pair)) {
        return tile.in_parts(1);
    }
    // Too few tiles: long sums are cut into parts, short ones into smaller tiles.
    match parts(MEDIUM, product, busy) {
        1 => small.in_parts(parts(small, product, busy)),
        parts => MEDIUM.in_parts(parts),
    }
}

/// Parts of the terms that make about so many workgroups.
fn parts(tile: Tile, product: &Product, workgroups: u64) -> u32 {
    let wanted = workgroups.div_ceil(tile.count(product).max(1));
    let possible = product.terms() / LEAST_PART_TERMS;
    let parts = u32::try_from(wanted.min(possible)).unwrap_or(1).clamp(1, 8);
    if may_split(product, parts) { parts } else { 1 }
}

/// What is worth timing for a product, the default first: at most eight.
pub(crate) fn candidates(product: &Product, choices: &Choices) -> Vec<Tiling> {
    let own = default(product, &choices.facts);
    let mut found = vec![own];
    let suitable = TILES.iter().filter(|tile| tile.runs_on(&choices.facts) && tile.suits(product));
    // A tile that is mostly outside of the product is no candidate.
    let close = |tile: &&Tile| {
        let covered = tile.count(product) * u64::from(tile.size[0]) * u64::from(tile.size[1]);
        covered <= 4 * u64::from(product.rows.max(16)) * u64::from(product.columns.max(16))
    };
    for tile in suitable.filter(close) {
        let split = parts(*tile, product, 256);
        let few = tile.count(product) < 128;
        for parts in [1, split].iter().take(if few && split > 1 { 2 } else { 1 }) {
            let tiling = tile.in_parts(*parts);
            if !found.contains(&tiling) && fits(&tiling, product, &choices.facts) {
                found.push(tiling);
            }
        }
    }
    found.truncate(MOST_CANDIDATES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::choices::Operation;
    use crate::tensor::ElementType;

    fn product(rows: u32, channels: u32, columns: u32) -> Product {
        Product {
            operation: Operation::Matmul,
            image: [1, 1, rows],
            channels,
            window: [1, 1],
            stride: 1,
            rows,
            columns,
            gated: false,
            element: ElementType::F32,
            weight: ElementType::F32,
        }
    }

    #[test]
    fn every_tile_runs_on_every_device() {
        for tile in TILES {
            assert!(tile.runs_on(&DeviceFacts::default()), "{tile:?}");
            assert!((64..=256).contains(&tile.lanes()), "{tile:?}");
            assert!(tile.lanes() >= tile.size[0], "{tile:?}: a lane for every row of a convolution");
        }
    }

    #[test]
    fn candidates_and_defaults_fit() {
        let classes = [DeviceClass::Discrete, DeviceClass::Integrated, DeviceClass::Software];
        for class in classes {
            let facts = DeviceFacts { class, ..DeviceFacts::default() };
            let choices = Choices { facts, ..Choices::default() };
            for extents in
                [[1, 1, 1], [8192, 320, 2560], [128, 11520, 1280], [8192, 2880, 4], [77, 768, 3072]]
            {
                for gated in [false, true] {
                    let [rows, terms, columns] = extents;
                    let product = Product { gated, ..product(rows, terms, columns) };
                    let candidates = candidates(&product, &choices);
                    assert_eq!(candidates[0], default(&product, &facts));
                    assert!(candidates.len() <= 8, "{product}: {candidates:?}");
                    for tiling in candidates {
                        assert!(fits(&tiling, &product, &facts), "{product}: {tiling}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_rows_get_large_tiles_and_few_rows_get_parts() {
        let facts = DeviceFacts::default();
        let default = |rows, terms, columns| default(&product(rows, terms, columns), &facts);
        assert_eq!(default(8192, 320, 2560), LARGE.in_parts(1));
        assert_eq!(default(2048, 640, 640), MEDIUM.in_parts(1));
        assert_eq!(default(128, 11520, 1280), MEDIUM.in_parts(4));
        assert_eq!(default(154, 768, 320), MEDIUM.in_parts(3));
        assert_eq!(default(8192, 2880, 4), NARROW.in_parts(1));
        assert_eq!(default(77, 64, 64), SMALL.in_parts(1));
    }

    #[test]
    fn what_no_shader_was_tested_with_fits_nothing() {
        let facts = DeviceFacts::default();
        let product = product(64, 1024, 64);
        let unknown = Tiling::Tiled { tile: [48, 64], lane: [8, 8], depth: 16, parts: 1 };
        assert!(!fits(&unknown, &product, &facts));
        assert!(!fits(&SMALL.in_parts(17), &product, &facts));
        assert!(!fits(&SMALL.in_parts(0), &product, &facts));
        assert!(!fits(&SMALL.in_parts(1), &Product { gated: true, ..product }, &facts));
        assert!(!fits(&MEDIUM.in_parts(2), &Product { gated: true, ..product }, &facts));
        let weak = DeviceFacts { workgroup_lanes: 128, ..facts };
        assert!(!fits(&LARGEST.in_parts(1), &product, &weak));
        let little = DeviceFacts { workgroup_bytes: 8 << 10, ..facts };
        assert!(!fits(&LARGE.in_parts(1), &product, &little));
    }
}
