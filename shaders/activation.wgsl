//! activation: an element-wise function.
//!
//!   output[i] = activate(input[i])
//!
//! input   [..]  Element
//! output  [..]  Element
//!
//! grid     linear, 64 values a workgroup
//! numbers  f32
//! source   torch.nn.functional.silu, gelu, relu; quick_gelu of transformers: x * sigmoid(1.702 x); the ends of
//!          DecoderTiny of diffusers: soft_limit is 3 tanh(x / 3), from_unit 2x - 1
//! twin     src/reference/activation.rs

struct Params {
    count: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<Element>;

@compute @workgroup_size(64)
fn activation(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        output[index] = Element(activate(f32(input[index])));
    }
}
