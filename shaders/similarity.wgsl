//! similarity: how alike two tensors are, as partial sums that the host adds up.
//!
//!   output[row, g] = sum over the values i of group g of
//!                    (left[i] * right[i], left[i]^2, right[i]^2, (left[i] - right[i])^2)
//!
//! left    [N]        Element
//! right   [N]        Element
//! output  [R, G, 4]  f32      only the given row is written
//!
//! grid     (G, 1, 1): one workgroup of 64 lanes owns every G-th block of 64 values
//! numbers  f32 within a group, in an order that does not depend on scheduling
//! source   cosine similarity and relative L2 distance of the kept features: DeepCache, arXiv:2312.00858, figure 2
//! twin     src/reference/similarity.rs

struct Params {
    count: u32,  // N
    groups: u32, // G
    row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> left: array<Element>;
@group(0) @binding(2) var<storage, read> right: array<Element>;
@group(0) @binding(3) var<storage, read_write> output: array<f32>;

const LANES: u32 = 64u;

var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(64)
fn similarity(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var sums = vec4(0.0);
    for (var index = workgroup.x * LANES + lane; index < params.count; index += params.groups * LANES) {
        let a = f32(left[index]);
        let b = f32(right[index]);
        let difference = a - b;
        sums = fma(vec4(a, a, b, difference), vec4(b, a, b, difference), sums);
    }
    partial[lane] = sums;
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            partial[lane] += partial[lane + stride];
        }
        workgroupBarrier();
    }
    if lane < 4u {
        output[4u * (params.row * params.groups + workgroup.x) + lane] = partial[0][lane];
    }
}
