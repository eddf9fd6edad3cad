//! gemm_tile: a workgroup multiplies a panel of TILE_ROWS rows by a panel of TILE_COLUMNS columns, DEPTH terms
//! at a time.
//!
//! The file that uses it stages `left` and `right` between barriers, calls `multiply_panels`, and stores the rows of
//! the block. Each lane owns LANE_ROWS x LANE_COLUMNS sums (4 or 8 each): the rows lane_y, lane_y + LANES_Y, .. and
//! four columns from 4 * lane_x, with eight also from 4 * (LANES_X + lane_x), so that neighbouring lanes read
//! neighbouring vectors.

const LANES_X: u32 = TILE_COLUMNS / LANE_COLUMNS;
const LANES_Y: u32 = TILE_ROWS / LANE_ROWS;
const LANES: u32 = LANES_X * LANES_Y;
const TERM_QUADS: u32 = DEPTH / 4u;
const COLUMN_QUADS: u32 = TILE_COLUMNS / 4u;
const LEFT_STRIDE: u32 = TERM_QUADS + 1u; // neighbouring rows lie in different banks
const UPPER: u32 = 4u * LANES_X; // columns between the lower and the upper four
const ROW_STEP: u32 = LANES_Y * LEFT_STRIDE;

var<workgroup> left: array<vec4<f32>, TILE_ROWS * LEFT_STRIDE>; // [TILE_ROWS][DEPTH / 4], four terms of one row
var<workgroup> right: array<vec4<f32>, DEPTH * COLUMN_QUADS>;   // [DEPTH][TILE_COLUMNS / 4], four columns of one term

/// Sums of one lane: `rRS` is row R of the lane, S its lower or upper four columns.
struct Block {
    r00: vec4<f32>, r01: vec4<f32>, r10: vec4<f32>, r11: vec4<f32>,
    r20: vec4<f32>, r21: vec4<f32>, r30: vec4<f32>, r31: vec4<f32>,
    r40: vec4<f32>, r41: vec4<f32>, r50: vec4<f32>, r51: vec4<f32>,
    r60: vec4<f32>, r61: vec4<f32>, r70: vec4<f32>, r71: vec4<f32>,
}

/// Adds the products of one term: `lower` and `upper` are its values in the lane's first and last four rows, and
/// its values in the lane's columns lie at `at`.
fn add_term(block: ptr<function, Block>, lower: vec4<f32>, upper: vec4<f32>, at: u32) {
    let x = right[at];
    (*block).r00 = fma(vec4(lower.x), x, (*block).r00);
    (*block).r10 = fma(vec4(lower.y), x, (*block).r10);
    (*block).r20 = fma(vec4(lower.z), x, (*block).r20);
    (*block).r30 = fma(vec4(lower.w), x, (*block).r30);
    if LANE_ROWS == 8u {
        (*block).r40 = fma(vec4(upper.x), x, (*block).r40);
        (*block).r50 = fma(vec4(upper.y), x, (*block).r50);
        (*block).r60 = fma(vec4(upper.z), x, (*block).r60);
        (*block).r70 = fma(vec4(upper.w), x, (*block).r70);
    }
    if LANE_COLUMNS == 8u {
        let y = right[at + LANES_X];
        (*block).r01 = fma(vec4(lower.x), y, (*block).r01);
        (*block).r11 = fma(vec4(lower.y), y, (*block).r11);
        (*block).r21 = fma(vec4(lower.z), y, (*block).r21);
        (*block).r31 = fma(vec4(lower.w), y, (*block).r31);
        if LANE_ROWS == 8u {
            (*block).r41 = fma(vec4(upper.x), y, (*block).r41);
            (*block).r51 = fma(vec4(upper.y), y, (*block).r51);
            (*block).r61 = fma(vec4(upper.z), y, (*block).r61);
            (*block).r71 = fma(vec4(upper.w), y, (*block).r71);
        }
    }
}

fn multiply_panels(block: ptr<function, Block>, lane_x: u32, lane_y: u32) {
    for (var quad = 0u; quad < TERM_QUADS; quad += 1u) {
        let at = lane_y * LEFT_STRIDE + quad;
        let a = left[at];
        let b = left[at + ROW_STEP];
        let c = left[at + 2u * ROW_STEP];
        let d = left[at + 3u * ROW_STEP];
        var e = vec4(0.0);
        var f = vec4(0.0);
        var g = vec4(0.0);
        var h = vec4(0.0);
        if LANE_ROWS == 8u {
            e = left[at + 4u * ROW_STEP];
            f = left[at + 5u * ROW_STEP];
            g = left[at + 6u * ROW_STEP];
            h = left[at + 7u * ROW_STEP];
        }
        let first = 4u * quad * COLUMN_QUADS + lane_x;
        add_term(block, vec4(a.x, b.x, c.x, d.x), vec4(e.x, f.x, g.x, h.x), first);
        add_term(block, vec4(a.y, b.y, c.y, d.y), vec4(e.y, f.y, g.y, h.y), first + COLUMN_QUADS);
        add_term(block, vec4(a.z, b.z, c.z, d.z), vec4(e.z, f.z, g.z, h.z), first + 2u * COLUMN_QUADS);
        add_term(block, vec4(a.w, b.w, c.w, d.w), vec4(e.w, f.w, g.w, h.w), first + 3u * COLUMN_QUADS);
    }
}

/// Hands every row to `store_row(row, column, lower, upper)` of the file that uses this one: sums from `column` on,
/// and from `column + UPPER` on if LANE_COLUMNS is 8.
fn store_block(block: Block, first_row: u32, column: u32, lane_y: u32) {
    let row = first_row + lane_y;
    store_row(row, column, block.r00, block.r01);
    store_row(row + LANES_Y, column, block.r10, block.r11);
    store_row(row + 2u * LANES_Y, column, block.r20, block.r21);
    store_row(row + 3u * LANES_Y, column, block.r30, block.r31);
    if LANE_ROWS == 8u {
        store_row(row + 4u * LANES_Y, column, block.r40, block.r41);
        store_row(row + 5u * LANES_Y, column, block.r50, block.r51);
        store_row(row + 6u * LANES_Y, column, block.r60, block.r61);
        store_row(row + 7u * LANES_Y, column, block.r70, block.r71);
    }
}
