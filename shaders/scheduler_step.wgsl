//! scheduler_step: one step of any linear scheduler, in place.
//!
//!   [sample'; history'] = M [sample; model_output; noise; prediction; history]
//!   prediction = clamp(p, -range, range), p = a * sample + b * model_output     if range > 0
//!              = clamp(p, -t, t) / t, t = threshold of the image                if range < 0 and HAS_THRESHOLD
//!              = 0                                                              otherwise
//!   row of the table: input_scale, a, b, range, then M row by row
//!
//! model_output  [N]                      f32
//! noise         [N]                      f32  read if HAS_NOISE, else 0
//! threshold     [N / image_count]        f32  read if HAS_THRESHOLD
//! table         [S, 4 + (1 + K)(4 + K)]  f32
//! step          [1]                      u32  the row of the table
//! state         [1 + K, N]               f32  sample, then K planes of history; read before it is written
//!
//! grid     linear, 64 values a workgroup; a lane owns one value of every plane
//! numbers  f32
//! source   src/schedulers: every scheduler's update is such a matrix
//! twin     src/reference/scheduler_step.rs

struct Params {
    count: u32,       // N
    history: u32,     // K, at most 8
    image_count: u32, // values of one image
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> model_output: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read> threshold: array<f32>;
@group(0) @binding(4) var<storage, read> table: array<f32>;
@group(0) @binding(5) var<storage, read> step: array<u32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

override HAS_NOISE: bool = false;
override HAS_THRESHOLD: bool = false;

const HEAD: u32 = 4u;   // numbers of a table row before the matrix
const INPUTS: u32 = 4u; // columns of the matrix before the history

@compute @workgroup_size(64)
fn scheduler_step(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let rows = 1u + params.history;
    let columns = INPUTS + params.history;
    let head = step[0] * (HEAD + rows * columns);

    var values: array<f32, 12>;
    values[0] = state[index];
    values[1] = model_output[index];
    values[2] = 0.0;
    if HAS_NOISE {
        values[2] = noise[index];
    }
    let range = table[head + 3u];
    values[3] = 0.0;
    let prediction = table[head + 1u] * values[0] + table[head + 2u] * values[1];
    if range > 0.0 {
        values[3] = clamp(prediction, -range, range);
    }
    if HAS_THRESHOLD {
        if range < 0.0 {
            let bound = threshold[index / params.image_count];
            values[3] = clamp(prediction, -bound, bound) / bound;
        }
    }
    for (var plane = 0u; plane < params.history; plane += 1u) {
        values[INPUTS + plane] = state[(1u + plane) * params.count + index];
    }

    for (var row = 0u; row < rows; row += 1u) {
        var sum = 0.0;
        for (var column = 0u; column < columns; column += 1u) {
            sum += table[head + HEAD + row * columns + column] * values[column];
        }
        state[row * params.count + index] = sum;
    }
}
