//! guidance_rescale: the factor that brings the guided output's spread back towards that of the output with the
//! prompt, per image.
//!
//!   prompted = input[N + n], guided = input[n] + scale * (prompted - input[n])
//!   factor[n] = rescale * deviation(prompted) / deviation(guided) + 1 - rescale
//!
//! input   [2N, count]  Element  the half without the prompt first
//! factor  [N]          f32
//!
//! grid     (N, 1, 1): one workgroup of 256 lanes owns one image
//! numbers  f32, Welford per lane and pairwise merges
//! source   Lin et al. 2023, arXiv:2305.08891, equations 15 and 16; rescale_noise_cfg of diffusers
//! twin     src/reference/guidance.rs

struct Params {
    images: u32, // N
    count: u32,  // values of one image
    scale: f32,
    rescale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> input: array<Element>;
@group(0) @binding(2) var<storage, read_write> factor: array<f32>;

const LANES: u32 = 256u;

var<workgroup> prompted_moments: array<Moments, LANES>;
var<workgroup> guided_moments: array<Moments, LANES>;

@compute @workgroup_size(256)
fn guidance_rescale(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = workgroup.x * params.count;
    let second = (params.images + workgroup.x) * params.count;
    var own_prompted = Moments(0.0, 0.0, 0.0);
    var own_guided = Moments(0.0, 0.0, 0.0);
    for (var index = lane; index < params.count; index += LANES) {
        let without = f32(input[first + index]);
        let prompted = f32(input[second + index]);
        own_prompted = observe(own_prompted, prompted);
        own_guided = observe(own_guided, without + params.scale * (prompted - without));
    }
    prompted_moments[lane] = own_prompted;
    guided_moments[lane] = own_guided;
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            prompted_moments[lane] = merge(prompted_moments[lane], prompted_moments[lane + stride]);
            guided_moments[lane] = merge(guided_moments[lane], guided_moments[lane + stride]);
        }
        workgroupBarrier();
    }
    if lane == 0u {
        // both have as many values, so that the deviations' ratio is that of the squares
        var ratio = 1.0;
        if guided_moments[0].squares > 0.0 {
            ratio = sqrt(prompted_moments[0].squares / guided_moments[0].squares);
        }
        factor[workgroup.x] = params.rescale * ratio + 1.0 - params.rescale;
    }
}
