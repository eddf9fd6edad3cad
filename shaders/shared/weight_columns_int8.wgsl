//! weight_columns_int8: weights of 8 bits, four in a u32, behind the scales of their columns; for `gemm_broadcast`.
//!
//! A lane owns neighbouring columns, so that one load may bring all four of a term. Products are those of the integers;
//! the scale belongs to a whole column, so that it is applied once, to the sum.

alias WeightWord = u32;

override ALIGNED: bool = false; // the columns of a lane are one u32

const COLUMN_STEP: u32 = 1u; // between the columns of a lane

fn first_column(workgroup: u32, lane: u32) -> u32 {
    return workgroup * COLUMNS + lane * (COLUMNS / LANES);
}

fn load_value(at: u32) -> f32 {
    return f32(unpack4xI8(weight[params.columns + at / 4u])[at % 4u]);
}

fn load_term(term: u32, columns: vec4<u32>) -> vec4<f32> {
    let at = vec4(term * params.columns) + columns;
    if ALIGNED {
        return vec4<f32>(unpack4xI8(weight[params.columns + at.x / 4u]));
    }
    return vec4(load_value(at.x), load_value(at.y), load_value(at.z), load_value(at.w));
}

/// The sum of a column, multiplied by its scale.
fn scaled_one(sum: f32, column: u32) -> f32 {
    return sum * bitcast<f32>(weight[column]);
}
