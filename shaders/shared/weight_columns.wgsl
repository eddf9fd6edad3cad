//! weight_columns: weights that are stored as activations are, for `gemm_broadcast`.

alias WeightWord = Element;

const COLUMN_STEP: u32 = LANES; // between the columns of a lane: neighbouring lanes read neighbouring values

fn first_column(workgroup: u32, lane: u32) -> u32 {
    return workgroup * COLUMNS + lane;
}

fn load_term(term: u32, columns: vec4<u32>) -> vec4<f32> {
    let at = vec4(term * params.columns) + columns;
    return vec4(f32(weight[at.x]), f32(weight[at.y]), f32(weight[at.z]), f32(weight[at.w]));
}

/// The sum of a column; nothing remains to be done.
fn scaled_one(sum: f32, column: u32) -> f32 {
    return sum;
}
