//! pixels: images from -1..1 to four bytes a pixel.
//!
//!   byte = round(clamp(image / 2 + 0.5, 0, 1) * 255), halves to even; what is not a number becomes 0
//!   output[p] = red + green * 2^8 + blue * 2^16 + 255 * 2^24
//!
//! image   [P, C]  Element  C is 3, or 1 for grey, which is all three
//! output  [P]     u32
//!
//! grid     linear, 64 pixels a workgroup
//! numbers  f32
//! source   VaeImageProcessor of diffusers: denormalize, pt_to_numpy, numpy_to_pil
//! twin     src/reference/pixels.rs

struct Params {
    count: u32,    // P
    channels: u32, // C
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> image: array<Element>;
@group(0) @binding(2) var<storage, read_write> output: array<u32>;

fn byte(value: f32) -> u32 {
    let unit = value * 0.5 + 0.5;
    if unit > 0.0 {
        return u32(round(min(unit, 1.0) * 255.0));
    }
    return 0u; // also what is not a number: it compares false
}

@compute @workgroup_size(64)
fn pixels(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let index = linear_index(workgroup, grid, lane);
    if index < params.count {
        let first = params.channels * index;
        let last = first + params.channels - 1u;
        let red = byte(f32(image[first]));
        let green = byte(f32(image[(first + last) / 2u]));
        let blue = byte(f32(image[last]));
        output[index] = red | (green << 8u) | (blue << 16u) | (255u << 24u);
    }
}
