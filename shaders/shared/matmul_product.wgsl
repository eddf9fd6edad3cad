//! matmul_product: the sums of one workgroup of `input [M, K] · weight [K, N]`, over a range of terms.
//!
//! With GATED, the lower columns of a lane are those of values, and the upper ones those of their gates, which lie
//! N / 2 columns behind.

override GATED: bool = false;

/// Four terms of a row; 0 behind the last.
fn load_input(row: u32, term: u32) -> vec4<f32> {
    var values = vec4(0.0);
    if row >= params.rows || term >= params.terms {
        return values;
    }
    let at = row * params.terms + term;
    if WORD == 4u {
        return widen(input[at / WORD]);
    }
    let behind = params.terms - term;
    values.x = widen(input[at]).x;
    if behind > 1u { values.y = widen(input[at + 1u]).x; }
    if behind > 2u { values.z = widen(input[at + 2u]).x; }
    if behind > 3u { values.w = widen(input[at + 3u]).x; }
    return values;
}

/// Four columns of a term; 0 behind the last.
fn load_weight(term: u32, column: u32) -> vec4<f32> {
    var values = vec4(0.0);
    if term >= params.terms || column >= params.columns {
        return values;
    }
    let at = term * params.columns + column;
    if WORD == 4u {
        return weight_values(at);
    }
    let behind = params.columns - column;
    values.x = weight_values(at).x;
    if behind > 1u { values.y = weight_values(at + 1u).x; }
    if behind > 2u { values.z = weight_values(at + 2u).x; }
    if behind > 3u { values.w = weight_values(at + 3u).x; }
    return values;
}

/// The first of four columns of the right panel.
fn panel_column(first_column: u32, quad: u32) -> u32 {
    if GATED && quad >= LANES_X {
        return params.columns / 2u + first_column + 4u * (quad - LANES_X);
    }
    return first_column + 4u * quad;
}

/// Adds the products of the terms from `first_term` on, up to `end_term`, to the lane's sums.
fn multiply(block: ptr<function, Block>, first_row: u32, first_column: u32, first_term: u32, end_term: u32, lane: u32) {
    for (var term = first_term; term < end_term; term += DEPTH) {
        // stage: neighbouring lanes read neighbouring terms of a row, and neighbouring columns of a term
        for (var unit = lane; unit < TILE_ROWS * TERM_QUADS; unit += LANES) {
            let row = unit / TERM_QUADS;
            let quad = unit % TERM_QUADS;
            left[row * LEFT_STRIDE + quad] = load_input(first_row + row, term + 4u * quad);
        }
        for (var unit = lane; unit < DEPTH * COLUMN_QUADS; unit += LANES) {
            right[unit] =
                load_weight(term + unit / COLUMN_QUADS, panel_column(first_column, unit % COLUMN_QUADS));
        }
        workgroupBarrier();
        multiply_panels(block, lane % LANES_X, lane / LANES_X);
        workgroupBarrier();
    }
}
