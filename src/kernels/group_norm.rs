//! Group normalisation over one input or over two read as one.

use bytemuck::{Pod, Zeroable};

use super::{Affine, extent, source};
use crate::error::{Error, Result};
use crate::gpu::choices::Family;
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::kernels::activation::Activation;
use crate::tensor::{ElementType, Shape, Tensor};

/// First shader: partial moments of each group, by the lanes of a large workgroup together.
pub static MOMENTS: Shader = Shader {
    name: "group_norm_moments",
    source: source!("group_norm_moments"),
    preludes: &[source!(shared "moments"), source!(shared "channel_pair")],
    bindings: &["input", "second", "moments"],
    definitions: &[],
};

/// The first shader of the `broadcast` family: one group for each of 8 lanes.
pub static MOMENTS_BROADCAST: Shader = Shader {
    name: "group_norm_moments_broadcast",
    source: source!("group_norm_moments_broadcast"),
    preludes: MOMENTS.preludes,
    bindings: MOMENTS.bindings,
    definitions: &[],
};

/// Second shader: merges the moments and normalises.
pub static APPLY: Shader = Shader {
    name: "group_norm_apply",
    source: source!("group_norm_apply"),
    preludes: &[
        source!(shared "activation"),
        source!(shared "channel_pair"),
        source!(shared "group_statistics"),
    ],
    bindings: &["input", "second", "moments", "weight", "bias", "output"],
    definitions: &[],
};

/// The second shader of the `broadcast` family: one channel for each of 8 lanes.
pub static APPLY_BROADCAST: Shader = Shader {
    name: "group_norm_apply_broadcast",
    source: source!("group_norm_apply_broadcast"),
    preludes: APPLY.preludes,
    bindings: APPLY.bindings,
    definitions: &[],
};

/// The uniform of all these shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Pixels or tokens of one image.
    pub pixels: u32,
    /// Channels of the first input.
    pub first_channels: u32,
    /// Channels of the second input, 0 if there is none.
    pub second_channels: u32,
    /// Groups of channels.
    pub groups: u32,
    /// Tiles of pixels whose moments are taken separately.
    pub tiles: u32,
    /// Pixels of a tile.
    pub tile_pixels: u32,
    /// Pixels that one workgroup of the second shader normalises.
    pub block_pixels: u32,
    /// Added to the variance.
    pub epsilon: f32,
}

/// What is known of a group normalisation besides its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormConfig {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether `SiLU` follows.
    pub silu: bool,
}

/// More tiles would only make the second shader merge more.
const MOST_TILES: usize = 32;

/// Four values for each of 256 lanes.
const LEAST_TILE_VALUES: usize = 1024;

/// Where one lane observes a whole tile: old lavapipes end the loops of a lane after 65,535 iterations.
const MOST_TILE_VALUES: usize = 1 << 14;

/// Records group normalisation, optionally followed by `SiLU`.
///
/// # Shapes
/// - `input`: `[N, .., C1]` of rank 3 or 4
/// - `second`: `[N, .., C2]`, read as if it were concatenated behind the channels of `input`
/// - `affine`: `[C1 + C2]`
/// - returns `[N, .., C1 + C2]`, same element type as `input`
///
/// # Errors
/// [`Error::Shape`] if the groups do not divide the channels, or the tensors do not fit together.
///
/// Wu & He, *Group Normalization*, 2018, <https://arxiv.org/abs/1803.08494>.
pub fn group_norm(
    recording: &mut Recording,
    input: &Tensor,
    second: Option<&Tensor>,
    affine: &Affine,
    config: &GroupNormConfig,
) -> Result<Tensor> {
    const NAME: &str = "group_norm";
    let extents = input.shape().extents();
    let (images, pixels) = match *extents {
        [images, pixels, _] => (images, pixels),
        [images, height, width, _] => (images, height * width),
        _ => return Err(input.wrong(NAME, "input", "[N, T, C] or [N, H, W, C]")),
    };
    let first_channels = input.shape().channels();
    let second_channels = second.map_or(0, |second| second.shape().channels());
    let channels = first_channels + second_channels;
    let with_channels = |channels: usize| {
        let mut extents = extents.to_vec();
        extents[input.shape().extents().len() - 1] = channels;
        extents
    };
    if let Some(second) = second {
        second.expect(NAME, "second", &with_channels(second_channels))?;
        second.expect_element(NAME, "second", input.element())?;
    }
    affine.expect(NAME, channels)?;
    if config.groups == 0 || channels == 0 || !channels.is_multiple_of(config.groups) {
        return Err(Error::Shape {
            operation: NAME,
            tensor: "input".to_owned(),
            expected: format!("channels that {} groups divide", config.groups),
            found: format!("{channels} channels"),
        });
    }
    if images == 0 || pixels == 0 {
        return Err(input.wrong(NAME, "input", "at least one pixel"));
    }

    let output = recording.transient(Shape::from(&with_channels(channels)[..]), input.element());
    extent(NAME, "input", output.shape().count())?;
    let values = pixels * (channels / config.groups);
    let wanted_tiles =
        values.div_ceil(LEAST_TILE_VALUES).min(MOST_TILES).max(values.div_ceil(MOST_TILE_VALUES)).min(pixels);
    let tile_pixels = pixels.div_ceil(wanted_tiles);
    let tiles = pixels.div_ceil(tile_pixels);
    let (least_block, moments_shader, group_lanes, apply_shader, channel_lanes) = match recording.family() {
        Family::Tiled | Family::Cooperative(_) => (32, &MOMENTS, 1, &APPLY, 64),
        // a lane merges all tiles for itself, which enough pixels must pay for
        Family::Broadcast => (16 * tiles.max(8), &MOMENTS_BROADCAST, 8, &APPLY_BROADCAST, 8),
    };
    let params = Params {
        pixels: extent(NAME, "input", pixels)?,
        first_channels: extent(NAME, "input", first_channels)?,
        second_channels: extent(NAME, "second", second_channels)?,
        groups: extent(NAME, "input", config.groups)?,
        tiles: extent(NAME, "input", tiles)?,
        tile_pixels: extent(NAME, "input", tile_pixels)?,
        block_pixels: extent(NAME, "input", pixels.div_ceil(1 << 15).max(least_block))?,
        epsilon: config.epsilon,
    };
    let images = extent(NAME, "input", images)?;
    let pair = ("PAIR", f64::from(u8::from(second.is_some())));
    // An absent tensor needs something bound in its place: the input, which is only read as well.
    let second = second.unwrap_or(input);
    let moments = recording.transient([images as usize, config.groups, tiles, 3], ElementType::F32);
    recording.dispatch(Dispatch {
        shader: moments_shader,
        element: input.element(),
        definitions: &[],
        constants: &[pair],
        params: bytemuck::bytes_of(&params),
        bindings: &[(input, Access::Read), (second, Access::Read), (&moments, Access::Write)],
        grid: [params.tiles, params.groups.div_ceil(group_lanes), images],
        multiply_accumulates: 0,
    });
    let activation = if config.silu { Activation::Silu } else { Activation::None };
    recording.dispatch(Dispatch {
        shader: apply_shader,
        element: input.element(),
        definitions: &[],
        constants: &[("ACTIVATION", f64::from(activation.code())), pair],
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (input, Access::Read),
            (second, Access::Read),
            (&moments, Access::Read),
            (&affine.weight, Access::Read),
            (&affine.bias, Access::Read),
            (&output, Access::Write),
        ],
        grid: [
            (params.first_channels + params.second_channels).div_ceil(channel_lanes),
            params.pixels.div_ceil(params.block_pixels),
            images,
        ],
        multiply_accumulates: 0,
    });
    Ok(output)
}
