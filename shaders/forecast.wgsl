//! forecast: extrapolates a kept feature from those of the last full calls.
//!
//!   output[i] = c[0] * newest[i] + c[1] * middle[i] + c[2] * oldest[i], c the row of the table
//!
//! newest  [N]     Element
//! middle  [N]     Element
//! oldest  [N]     Element  read if HAS_OLDEST
//! table   [S, 3]  f32
//! step    [1]     u32      the row of the table
//! output  [N]     Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   Lagrange's extrapolation; with c = (1, 0, 0) it holds the feature, as DeepCache does (arXiv:2312.00858)
//! twin     src/reference/forecast.rs

struct Params {
    count: u32, // N
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> newest: array<Element>;
@group(0) @binding(2) var<storage, read> middle: array<Element>;
@group(0) @binding(3) var<storage, read> oldest: array<Element>;
@group(0) @binding(4) var<storage, read> table: array<f32>;
@group(0) @binding(5) var<storage, read> step: array<u32>;
@group(0) @binding(6) var<storage, read_write> output: array<Element>;

override HAS_OLDEST: bool = false;

@compute @workgroup_size(64)
fn forecast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let row = 3u * step[0];
    var value = table[row] * f32(newest[index]);
    // a feature that is not there yet has no weight, and whatever lies in its place is not touched
    if table[row + 1u] != 0.0 {
        value += table[row + 1u] * f32(middle[index]);
    }
    if HAS_OLDEST {
        if table[row + 2u] != 0.0 {
            value += table[row + 2u] * f32(oldest[index]);
        }
    }
    output[index] = Element(value);
}
