//! One file per operation: its parameters, its shaders, and the function that records it.
//!
//! Every operation `x` has the same stem in four places: `kernels/x.rs`, `reference/x.rs` (plain `f64`
//! loops and awkward cases), every `shaders/x*.wgsl`, and its line in the test battery.

pub mod activation;
pub mod add;
pub mod add_time;
pub mod attention;
pub mod blend_outside;
pub mod conv2d;
pub mod dynamic_threshold;
pub mod emphasis;
pub mod finite;
pub mod forecast;
pub mod geglu;
pub mod group_norm;
pub mod guidance;
pub mod layer_norm;
pub mod matmul;
pub mod pixels;
pub(crate) mod product;
pub mod scale_model_input;
pub mod scheduler_step;
pub mod similarity;
pub(crate) mod tiling;
pub mod timestep_embedding;
pub mod token_embedding;
pub mod upsample_nearest;
pub mod vector_quantize;

pub use tiling::all_tiles;

use crate::error::Result;
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

/// All shaders, for tests and tools that look at each.
pub const SHADERS: &[&Shader] = &[
    &activation::ACTIVATION,
    &add::ADD,
    &add_time::ADD_TIME,
    &attention::BROADCAST,
    &attention::BROADCAST_WIDE,
    &attention::COOPERATIVE,
    &attention::FLASH,
    &blend_outside::BLEND_OUTSIDE,
    &conv2d::BROADCAST,
    &conv2d::COOPERATIVE,
    &conv2d::MERGE,
    &conv2d::PARTIAL,
    &conv2d::TILED,
    &dynamic_threshold::DYNAMIC_THRESHOLD,
    &emphasis::EMPHASIS,
    &finite::FINITE,
    &forecast::FORECAST,
    &geglu::GEGLU,
    &group_norm::APPLY,
    &group_norm::APPLY_BROADCAST,
    &group_norm::MOMENTS,
    &group_norm::MOMENTS_BROADCAST,
    &guidance::GUIDANCE,
    &guidance::RESCALE,
    &layer_norm::BROADCAST,
    &layer_norm::LAYER_NORM,
    &layer_norm::SUBGROUP,
    &matmul::BROADCAST,
    &matmul::COOPERATIVE,
    &matmul::MERGE,
    &matmul::PARTIAL,
    &matmul::TILED,
    &pixels::PIXELS,
    &scale_model_input::SCALE_MODEL_INPUT,
    &scale_model_input::SCALE_MODEL_INPUT_BESIDE,
    &scheduler_step::SCHEDULER_STEP,
    &similarity::SIMILARITY,
    &timestep_embedding::TIMESTEP_EMBEDDING,
    &token_embedding::TOKEN_EMBEDDING,
    &upsample_nearest::UPSAMPLE_NEAREST,
    &vector_quantize::VECTOR_QUANTIZE,
];

/// Scale and shift of each channel behind a normalisation.
#[derive(Clone, Debug)]
pub struct Affine {
    /// `[C]`, f32.
    pub weight: Tensor,
    /// `[C]`, f32.
    pub bias: Tensor,
}

impl Affine {
    /// Checks that both are f32 and have one value for each channel.
    fn expect(&self, operation: &'static str, channels: usize) -> Result<()> {
        for (name, tensor) in [("weight", &self.weight), ("bias", &self.bias)] {
            tensor.expect(operation, name, &[channels])?;
            tensor.expect_element(operation, name, ElementType::F32)?;
        }
        Ok(())
    }
}

/// The text of `shaders/NAME.wgsl`, or of `shaders/shared/NAME.wgsl`.
///
/// `source!("matmul_tiled")` expands to `include_str!("../../shaders/matmul_tiled.wgsl")`.
macro_rules! source {
    (shared $name:literal) => {
        include_str!(concat!("../../shaders/shared/", $name, ".wgsl"))
    };
    ($name:literal) => {
        include_str!(concat!("../../shaders/", $name, ".wgsl"))
    };
}
pub(crate) use source;

/// The most workgroups in one dimension that every device allows.
const GRID_LIMIT: u32 = 65_535;

/// The most pixels of a picture: kernels count values in 32 bits, and a VAE has hundreds of channels.
pub(crate) const MOST_PIXELS: usize = 1 << 23;

/// Workgroups in two dimensions for `count` values, `per_workgroup` each; the shader's `linear_index` undoes it.
pub(crate) fn linear_grid(count: usize, per_workgroup: u32) -> [u32; 3] {
    let groups = u32::try_from(count).unwrap_or(u32::MAX).div_ceil(per_workgroup).max(1);
    let rows = groups.div_ceil(GRID_LIMIT);
    [groups.div_ceil(rows), rows, 1]
}

/// An extent as the shader counts it.
pub(crate) fn extent(operation: &'static str, tensor: &str, value: usize) -> Result<u32> {
    u32::try_from(value).map_err(|_| crate::Error::Shape {
        operation,
        tensor: tensor.to_owned(),
        expected: "fewer than 2^32 values".to_owned(),
        found: value.to_string(),
    })
}
