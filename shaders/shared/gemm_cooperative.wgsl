//! gemm_cooperative: a workgroup multiplies a 64-row panel by a 64-column panel, 32 terms at a time, with
//! cooperative matrices.
//!
//! The file that uses it stages `left` and `right` between barriers, calls `multiply_panels`, and takes every sum in
//! `store_one(row, column, sum)`. `gemm_fragments_8` or `gemm_fragments_16` is in front, whichever the device has.
//!
//! The tile has four quarters of 32x32 sums. Each of four subgroups owns one. Where there are fewer subgroups, they
//! go over the tile again for the remaining quarters; where there are more, the others multiply along for nothing,
//! since all lanes must come to every product.

const TILE: u32 = 64u;
const DEPTH: u32 = 32u;
const QUARTERS: u32 = 4u;
// Rows begin 8 values further, in different banks.
const LEFT_STRIDE: u32 = DEPTH + 8u;
const RIGHT_STRIDE: u32 = TILE + 8u;
// Sums of a quarter that are handed over at once: fragments have no elements, workgroup memory has.
const AREA: u32 = 256u;

var<workgroup> left: array<Element, TILE * LEFT_STRIDE>;    // [TILE][DEPTH]
var<workgroup> right: array<Element, DEPTH * RIGHT_STRIDE>; // [DEPTH][TILE]
var<workgroup> finished: array<f32, (QUARTERS + 1u) * AREA>; // one area per quarter, and one that nobody reads

/// Where a lane is.
struct Place {
    first_row: u32,    // of the tile
    first_column: u32,
    first_quarter: u32, // that of subgroup 0
    subgroups: u32,
    subgroup: u32,
    lane: u32,
}

/// The first row in the tile of the subgroup's quarter.
fn quarter_row(place: Place) -> u32 {
    return (place.first_quarter + place.subgroup) % QUARTERS / 2u * 32u;
}

/// The first column in the tile of the subgroup's quarter.
fn quarter_column(place: Place) -> u32 {
    return (place.first_quarter + place.subgroup) % 2u * 32u;
}

/// Where the subgroup stores sums: a subgroup without a quarter of its own, where nobody reads them.
fn spare_or_own(place: Place) -> u32 {
    let own = place.first_quarter + place.subgroup < QUARTERS;
    return select(QUARTERS, place.subgroup, own) * AREA;
}

/// Stores what all subgroups have left in `finished`: the sums from this row and column of their quarters on.
fn hand_over(place: Place, row: u32, column: u32, width: u32) {
    workgroupBarrier();
    let areas = min(place.subgroups, QUARTERS - place.first_quarter);
    for (var i = place.lane; i < areas * AREA; i += LANES) {
        let quarter = place.first_quarter + i / AREA;
        store_one(
            place.first_row + quarter / 2u * 32u + row + i % AREA / width,
            place.first_column + quarter % 2u * 32u + column + i % width,
            finished[i],
        );
    }
    workgroupBarrier();
}
