//! timestep_embedding: sines and cosines of each timestep at all frequencies.
//!
//!   output[s, i]     = sin(timesteps[s] * frequencies[i])
//!   output[s, F + i] = cos(timesteps[s] * frequencies[i]); halves exchanged if COSINES_FIRST
//!
//! timesteps    [S]     f32
//! frequencies  [F]     f32
//! output       [S, 2F] Element
//!
//! grid     linear, 64 angles a workgroup
//! numbers  f32; sine and cosine of our own, since Vulkan's are good to 2^-11 only: error below 2e-7 for angles
//!          up to 1000
//! source   Vaswani et al. 2017, arXiv:1706.03762; get_timestep_embedding of diffusers; the polynomials and the
//!          split of pi/2 are those of Moshier's Cephes library
//! twin     src/reference/timestep_embedding.rs

struct Params {
    timesteps: u32,   // S
    frequencies: u32, // F
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> timesteps: array<f32>;
@group(0) @binding(2) var<storage, read> frequencies: array<f32>;
@group(0) @binding(3) var<storage, read_write> output: array<Element>;

override COSINES_FIRST: bool = false;

// pi/2 in three parts (Cody & Waite). The first two have 8 and 12 bits: their products with a whole number
// below 2^12 are exact whether or not fma rounds in between, which Vulkan leaves open.
const HALF_PI_HIGH: f32 = 1.5703125;
const HALF_PI_MIDDLE: f32 = 4.837512969970703125e-4;
const HALF_PI_LOW: f32 = 7.549789948768648e-8;
const TWO_OVER_PI: f32 = 0.63661977;

/// Sine and cosine of an angle between -6000 and 6000.
fn sine_cosine(angle: f32) -> vec2<f32> {
    let quarter = round(angle * TWO_OVER_PI);
    var x = fma(-quarter, HALF_PI_HIGH, angle);
    x = fma(-quarter, HALF_PI_MIDDLE, x);
    x = fma(-quarter, HALF_PI_LOW, x);

    // on [-pi/4, pi/4]
    let z = x * x;
    let odd = fma(fma(-1.9515295891e-4, z, 8.3321608736e-3), z, -1.6666654611e-1);
    let sine = fma(odd * z, x, x);
    let even = fma(fma(2.443315711809948e-5, z, -1.388731625493765e-3), z, 4.166664568298827e-2);
    let cosine = fma(even * z, z, fma(-0.5, z, 1.0));

    switch u32(i32(quarter)) % 4u {
        case 0u: { return vec2(sine, cosine); }
        case 1u: { return vec2(cosine, -sine); }
        case 2u: { return vec2(-sine, -cosine); }
        default: { return vec2(-cosine, sine); }
    }
}

@compute @workgroup_size(64)
fn timestep_embedding(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index >= params.timesteps * params.frequencies {
        return;
    }
    let row = index / params.frequencies;
    let column = index % params.frequencies;
    var pair = sine_cosine(timesteps[row] * frequencies[column]);
    if COSINES_FIRST {
        pair = pair.yx;
    }
    let first = 2u * row * params.frequencies + column;
    output[first] = Element(pair.x);
    output[first + params.frequencies] = Element(pair.y);
}
