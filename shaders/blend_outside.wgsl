//! blend_outside: what lies outside of a mask becomes a clean sample with noise, in place.
//!
//!   state[0, p, c] = m * state[0, p, c] + (1 - m) * (signal * clean[p, c] + deviation * noise[p, c])
//!   m = mask[p]; signal, deviation = levels[step]
//!
//! clean   [P, C]        f32
//! noise   [P, C]        f32
//! mask    [P]           f32  1 inside, 0 outside
//! levels  [S, 2]        f32  weights of the clean sample and of the noise
//! step    [1]           u32  the row of the levels
//! state   [1 + K, P, C] f32  only the sample, plane 0, is changed
//!
//! grid     linear, 64 values a workgroup; a lane owns one value of the sample
//! numbers  f32
//! source   StableDiffusionInpaintPipeline of diffusers, with U-Nets of 4 input channels
//! twin     src/reference/blend_outside.rs

struct Params {
    count: u32,    // P * C
    channels: u32, // C
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> clean: array<f32>;
@group(0) @binding(2) var<storage, read> noise: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read> levels: array<f32>;
@group(0) @binding(5) var<storage, read> step: array<u32>;
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(64)
fn blend_outside(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.count {
        return;
    }
    let inside = mask[index / params.channels];
    let level = 2u * step[0];
    let outside = levels[level] * clean[index] + levels[level + 1u] * noise[index];
    state[index] = inside * state[index] + (1.0 - inside) * outside;
}
