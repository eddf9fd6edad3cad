//! add: the sum of two tensors of one shape.
//!
//!   output[i] = left[i] + right[i]
//!
//! left    [..]  Element
//! right   [..]  Element
//! output  [..]  Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   torch.add
//! twin     src/reference/add.rs

struct Params {
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> left: array<Element>;
@group(0) @binding(2) var<storage, read> right: array<Element>;
@group(0) @binding(3) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        output[index] = Element(f32(left[index]) + f32(right[index]));
    }
}
