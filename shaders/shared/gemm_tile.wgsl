//! gemm_tile: a workgroup of 8x8 lanes multiplies a 64-row panel by a 64-column panel, 16 terms at a time.
//!
//! The file that uses it stages `left` and `right` between barriers, calls `multiply_panels`, and stores
//! the rows of the block. Each lane owns 8x8 sums: rows 4*lane_y.. and 32 + 4*lane_y.., columns likewise,
//! so that neighbouring lanes read neighbouring vectors.

const TILE: u32 = 64u;
const DEPTH: u32 = 16u;
const LANES: u32 = 64u;

var<workgroup> left: array<vec4<f32>, 256>;  // [DEPTH][TILE / 4], four rows of one term
var<workgroup> right: array<vec4<f32>, 256>; // [DEPTH][TILE / 4], four columns of one term

/// Sums of one lane: `rRS` is row R of the lower or upper four, S the lower or upper four columns.
struct Block {
    r00: vec4<f32>, r01: vec4<f32>, r10: vec4<f32>, r11: vec4<f32>,
    r20: vec4<f32>, r21: vec4<f32>, r30: vec4<f32>, r31: vec4<f32>,
    r40: vec4<f32>, r41: vec4<f32>, r50: vec4<f32>, r51: vec4<f32>,
    r60: vec4<f32>, r61: vec4<f32>, r70: vec4<f32>, r71: vec4<f32>,
}

fn multiply_panels(block: ptr<function, Block>, lane_x: u32, lane_y: u32) {
    for (var term = 0u; term < DEPTH; term += 1u) {
        let at = term * (TILE / 4u);
        let a = left[at + lane_y];
        let b = left[at + 8u + lane_y];
        let x = right[at + lane_x];
        let y = right[at + 8u + lane_x];
        (*block).r00 = fma(vec4(a.x), x, (*block).r00);
        (*block).r01 = fma(vec4(a.x), y, (*block).r01);
        (*block).r10 = fma(vec4(a.y), x, (*block).r10);
        (*block).r11 = fma(vec4(a.y), y, (*block).r11);
        (*block).r20 = fma(vec4(a.z), x, (*block).r20);
        (*block).r21 = fma(vec4(a.z), y, (*block).r21);
        (*block).r30 = fma(vec4(a.w), x, (*block).r30);
        (*block).r31 = fma(vec4(a.w), y, (*block).r31);
        (*block).r40 = fma(vec4(b.x), x, (*block).r40);
        (*block).r41 = fma(vec4(b.x), y, (*block).r41);
        (*block).r50 = fma(vec4(b.y), x, (*block).r50);
        (*block).r51 = fma(vec4(b.y), y, (*block).r51);
        (*block).r60 = fma(vec4(b.z), x, (*block).r60);
        (*block).r61 = fma(vec4(b.z), y, (*block).r61);
        (*block).r70 = fma(vec4(b.w), x, (*block).r70);
        (*block).r71 = fma(vec4(b.w), y, (*block).r71);
    }
}

/// Hands every four sums to `store_four(row, column, values)` of the file that uses this one.
fn store_block(block: Block, first_row: u32, first_column: u32, lane_x: u32, lane_y: u32) {
    let row = first_row + 4u * lane_y;
    let column = first_column + 4u * lane_x;
    store_four(row, column, block.r00);
    store_four(row, column + 32u, block.r01);
    store_four(row + 1u, column, block.r10);
    store_four(row + 1u, column + 32u, block.r11);
    store_four(row + 2u, column, block.r20);
    store_four(row + 2u, column + 32u, block.r21);
    store_four(row + 3u, column, block.r30);
    store_four(row + 3u, column + 32u, block.r31);
    store_four(row + 32u, column, block.r40);
    store_four(row + 32u, column + 32u, block.r41);
    store_four(row + 33u, column, block.r50);
    store_four(row + 33u, column + 32u, block.r51);
    store_four(row + 34u, column, block.r60);
    store_four(row + 34u, column + 32u, block.r61);
    store_four(row + 35u, column, block.r70);
    store_four(row + 35u, column + 32u, block.r71);
}
