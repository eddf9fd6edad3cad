//! Attention of queries to keys, in several heads.

use bytemuck::{Pod, Zeroable};

use super::product::word;
use super::{GRID_LIMIT, extent, source};
use crate::error::{Error, Result};
use crate::gpu::choices::{DeviceFacts, Family, Fragments};
use crate::gpu::recording::{Access, Dispatch, Recording};
use crate::gpu::shader::Shader;
use crate::tensor::{ElementType, Tensor};

const NAME: &str = "attention";

/// The largest head that the shaders are tested with; `attention_flash` then has 24 KiB of workgroup memory.
const LARGEST_HEAD: usize = 1024;

/// The `flash` family: blocks of keys with a running maximum, for every GPU.
pub static FLASH: Shader = Shader {
    name: "attention_flash",
    source: source!("attention_flash"),
    preludes: &[source!(shared "word_1"), source!(shared "word_4")],
    bindings: &["queries", "keys", "values", "output"],
    definitions: &["WORD", "HEAD_SIZE", "QUERIES", "LANES", "VALUE_KEYS"],
};

/// The `broadcast` family: blocks of queries and keys as `gemm_block` multiplies them, all sums in registers.
pub static BROADCAST: Shader = Shader {
    name: "attention_broadcast",
    source: source!("attention_broadcast"),
    preludes: &[source!(shared "gemm_block")],
    bindings: &["queries", "keys", "values", "output"],
    definitions: &["HEAD_SIZE", "HALVES"],
};

/// The `broadcast` family, for larger heads: one query for each lane, keys and values broadcast in registers.
pub static BROADCAST_WIDE: Shader = Shader {
    name: "attention_broadcast_wide",
    source: source!("attention_broadcast_wide"),
    preludes: &[],
    bindings: &["queries", "keys", "values", "output"],
    definitions: &["HEAD_SIZE"],
};

/// The `cooperative` family: blocks of keys on fragments that a subgroup multiplies as wholes.
pub static COOPERATIVE: Shader = Shader {
    name: "attention_cooperative",
    source: source!("attention_cooperative"),
    preludes: &[
        source!(shared "fragments_8"),
        source!(shared "fragments_16"),
        source!(shared "word_1"),
        source!(shared "word_4"),
        source!(shared "stage_words"),
    ],
    bindings: &["queries", "keys", "values", "output"],
    definitions: &["EDGE", "WORD", "LANES", "HEAD_SIZE", "QUERIES", "KEYS"],
};

/// The uniform of all attention shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Number of heads.
    pub heads: u32,
    /// Tq.
    pub query_count: u32,
    /// Tk.
    pub key_count: u32,
    /// Channels of a row that the queries lie in.
    pub query_width: u32,
    /// Channels of a row that the keys lie in.
    pub key_width: u32,
    /// Channels of a row that the values lie in.
    pub value_width: u32,
    /// The channel where the queries of head 0 begin.
    pub first_query: u32,
    /// The channel where the keys of head 0 begin.
    pub first_key: u32,
    /// The channel where the values of head 0 begin.
    pub first_value: u32,
    /// Factor of the scores.
    pub scale: f32,
}

/// Some channels of a tensor: lets the parts of a fused matrix product be read in place.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// `[N, T, W]`.
    pub tensor: &'a Tensor,
    /// The channel where head 0 begins; head `h` begins `h * head_size` channels further.
    pub first_channel: usize,
}

/// How queries attend to keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionConfig {
    /// Number of heads.
    pub heads: usize,
    /// D, the channels of a head.
    pub head_size: usize,
    /// Whether query `t` sees keys up to `t` only.
    pub causal: bool,
    /// Factor of the scores, usually `1 / sqrt(D)`.
    pub scale: f32,
}

/// Records `softmax(queries · keys^T * scale) · values` for every head.
///
/// # Shapes
/// - `queries`: `heads * D` channels of `[N, Tq, W]`
/// - `keys`, `values`: `heads * D` channels of `[N, Tk, W]` each, same element type as `queries`
/// - returns `[N, Tq, heads * D]`
///
/// # Errors
/// [`Error::Shape`] if the extents, views or element types do not fit together, if one of them is empty, or if
/// the head is larger than 1024 channels.
///
/// Dao et al., *`FlashAttention`: Fast and Memory-Efficient Exact Attention with IO-Awareness*, 2022,
/// <https://arxiv.org/abs/2205.14135>.
pub fn attention(
    recording: &mut Recording,
    queries: View<'_>,
    keys: View<'_>,
    values: View<'_>,
    config: &AttentionConfig,
) -> Result<Tensor> {
    let &AttentionConfig { heads, head_size, causal, scale } = config;
    if heads == 0 || heads > GRID_LIMIT as usize || head_size == 0 || head_size > LARGEST_HEAD {
        return Err(Error::Shape {
            operation: NAME,
            tensor: "queries".to_owned(),
            expected: format!("1 to {GRID_LIMIT} heads of 1 to {LARGEST_HEAD} channels"),
            found: format!("{heads} heads of {head_size} channels"),
        });
    }
    let element = queries.tensor.element();
    let channels = heads * head_size;
    let [images, query_count, query_width] = check("queries", &queries, channels, element)?;
    let [_, key_count, key_width] = check("keys", &keys, channels, element)?;
    let [.., value_width] = check("values", &values, channels, element)?;
    keys.tensor.expect(NAME, "keys", &[images, key_count, key_width])?;
    values.tensor.expect(NAME, "values", &[images, key_count, value_width])?;
    let params = Params {
        heads: extent(NAME, "queries", heads)?,
        query_count: extent(NAME, "queries", query_count)?,
        key_count: extent(NAME, "keys", key_count)?,
        query_width: extent(NAME, "queries", query_width)?,
        key_width: extent(NAME, "keys", key_width)?,
        value_width: extent(NAME, "values", value_width)?,
        first_query: extent(NAME, "queries", queries.first_channel)?,
        first_key: extent(NAME, "keys", keys.first_channel)?,
        first_value: extent(NAME, "values", values.first_channel)?,
        scale,
    };
    let word = word(&[
        extent(NAME, "queries", head_size)?,
        params.query_width,
        params.key_width,
        params.value_width,
        params.first_query,
        params.first_key,
        params.first_value,
    ]);
    let facts = &recording.choices().facts;
    let layout = Layout::new(recording.product_family(element), facts, query_count, head_size, word);
    let blocks = extent(NAME, "queries", query_count)?.div_ceil(layout.queries);
    let grid = [blocks, extent(NAME, "queries", heads)?, extent(NAME, "queries", images)?];
    if grid.iter().any(|&groups| groups > GRID_LIMIT) {
        return Err(queries.tensor.wrong(NAME, "queries", "fewer images and tokens"));
    }
    extent(NAME, "output", images.saturating_mul(query_count).saturating_mul(channels))?;
    let causal = ("CAUSAL", f64::from(u8::from(causal)));
    let constants: Vec<_> = [causal].into_iter().chain(layout.constant).collect();
    let output = recording.transient([images, query_count, channels], element);
    recording.dispatch(Dispatch {
        shader: layout.shader,
        element,
        definitions: &layout.definitions,
        constants: &constants,
        params: bytemuck::bytes_of(&params),
        bindings: &[
            (queries.tensor, Access::Read),
            (keys.tensor, Access::Read),
            (values.tensor, Access::Read),
            (&output, Access::Write),
        ],
        grid,
        multiply_accumulates: 2 * [images, query_count, key_count, channels]
            .iter()
            .fold(1_u64, |product, &factor| product.saturating_mul(factor as u64))
            .min(u64::MAX / 2),
    });
    Ok(output)
}

/// What a family makes of attention.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The shader of the family.
    pub shader: &'static Shader,
    /// Values of its definitions.
    pub definitions: Vec<u32>,
    /// Its `override` constant besides `CAUSAL`.
    pub constant: Option<(&'static str, f64)>,
    /// Queries of a workgroup.
    pub queries: u32,
}

impl Layout {
    /// For heads of a size that, as rows and the places of heads in them, is a multiple of `word`.
    #[must_use]
    pub fn new(family: Family, facts: &DeviceFacts, query_count: usize, head_size: usize, word: u32) -> Self {
        let head = u32::try_from(head_size).unwrap_or(u32::MAX);
        let plain = |shader, definitions, queries| Self { shader, definitions, constant: None, queries };
        match family {
            Family::Broadcast => match broadcast_queries(query_count, head_size) {
                Some(queries) => Self {
                    constant: Some(("ROWS", f64::from(queries.min(32)))),
                    ..plain(&BROADCAST, vec![head, queries.div_ceil(32)], queries)
                },
                None => plain(&BROADCAST_WIDE, vec![head], 8),
            },
            Family::Cooperative(Fragments { edge, lanes }) if head_size <= LARGEST_COOPERATIVE_HEAD => {
                let queries = cooperative_queries(head_size);
                plain(&COOPERATIVE, vec![edge, word, lanes, head, queries, COOPERATIVE_KEYS], queries)
            }
            Family::Tiled | Family::Cooperative(_) => {
                let Flash { queries, lanes, value_keys } = Flash::of(head_size, facts);
                // Large heads, of which no values are staged, are read value by value.
                let word = if value_keys > 0 { word } else { 1 };
                plain(&FLASH, vec![word, head, queries, lanes, value_keys], queries)
            }
        }
    }
}

/// Queries of a workgroup of `attention_broadcast`: as many as there are, up to what a driver compiles in a few
/// seconds, since it writes all loops over a head's channels out, or in some more where that soon pays. Larger heads
/// have a shader that keeps the loops.
fn broadcast_queries(query_count: usize, head_size: usize) -> Option<u32> {
    const MANY: usize = 512;
    let most = match head_size {
        0..=40 => 64,
        41..=80 if query_count >= MANY => 64,
        41..=80 => 32,
        _ => return None,
    };
    Some([8, 16, 32].into_iter().find(|&queries| query_count <= queries as usize).unwrap_or(most).min(most))
}

/// How `attention_flash` is cut.
#[derive(Clone, Copy, Debug)]
struct Flash {
    queries: u32,
    lanes: u32,
    /// Keys whose values are staged at once.
    value_keys: u32,
}

impl Flash {
    /// Many queries read keys and values seldom, as far as registers and workgroup memory go: below 32 KiB, or on a
    /// device that has less, below 16 KiB for heads up to 512.
    fn of(head_size: usize, facts: &DeviceFacts) -> Self {
        let wide = facts.workgroup_lanes >= 128 && facts.workgroup_bytes >= 32 << 10;
        let [queries, lanes] = match head_size {
            0..=64 if wide => [64, 128],
            0..=64 => [32, 64],
            65..=160 if wide => [32, 128],
            65..=160 => [16, 64],
            _ => [4, 64],
        };
        let value_keys = match head_size {
            0..=40 => 32,
            41..=80 => 16,
            81..=160 => 8,
            _ => 0,
        };
        Self { queries, lanes, value_keys: if wide { value_keys } else { value_keys / 2 } }
    }
}

/// Behind it `attention_cooperative` would have more than 32 KiB of workgroup memory; `attention_flash` runs instead.
pub const LARGEST_COOPERATIVE_HEAD: usize = 160;

/// `KEYS` of `attention_cooperative`.
const COOPERATIVE_KEYS: u32 = 32;

/// `QUERIES` of `attention_cooperative`.
const fn cooperative_queries(head_size: usize) -> u32 {
    if head_size <= 80 { 32 } else { 16 }
}

fn check(name: &str, view: &View<'_>, channels: usize, element: ElementType) -> Result<[usize; 3]> {
    let extents = view.tensor.token_extents(NAME, name)?;
    view.tensor.expect_element(NAME, name, element)?;
    let end = view.first_channel.saturating_add(channels);
    if extents.contains(&0) || end > extents[2] {
        let expected = format!("tokens with at least {end} channels");
        return Err(view.tensor.wrong(NAME, name, &expected));
    }
    extent(NAME, name, view.tensor.shape().count())?;
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(extents: [[usize; 3]; 3], first_value: usize, heads: usize, head_size: usize) -> bool {
        let [queries, keys, values] =
            extents.map(|extents| Tensor::external("tensor", extents, ElementType::F32));
        let config = AttentionConfig { heads, head_size, causal: false, scale: 1.0 };
        let view = |tensor, first_channel| View { tensor, first_channel };
        let mut recording = Recording::new("test");
        let outcome =
            attention(&mut recording, view(&queries, 0), view(&keys, 0), view(&values, first_value), &config);
        matches!(outcome, Err(Error::Shape { .. }))
    }

    #[test]
    fn wrong_shapes_are_errors() {
        let (queries, keys) = ([2, 5, 8], [2, 7, 8]);
        assert!(!refused([queries, keys, keys], 0, 2, 4));
        assert!(refused([queries, keys, keys], 1, 2, 4));
        assert!(refused([queries, keys, keys], usize::MAX, 2, 4));
        assert!(refused([queries, keys, keys], 0, 3, 4));
        assert!(refused([queries, keys, keys], 0, 0, 4));
        assert!(refused([queries, keys, keys], 0, 1, 0));
        assert!(refused([queries, keys, keys], 0, usize::MAX, 2));
        assert!(refused([queries, keys, [2, 6, 8]], 0, 2, 4));
        assert!(refused([queries, [1, 7, 8], [1, 7, 8]], 0, 2, 4));
        assert!(refused([queries, [2, 0, 8], [2, 0, 8]], 0, 2, 4));
        assert!(refused([[1, 2, 1025]; 3], 0, 1, 1025));
    }
}
