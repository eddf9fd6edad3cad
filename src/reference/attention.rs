//! Twin of `attention`: scores, softmax and weighted sum of one query after the other.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::attention::{AttentionConfig, Params, View, attention};

/// Rows of channels of which a head is a part.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// `[N, T, W]`.
    pub values: &'a [f64],
    /// W.
    pub width: usize,
    /// The channel where head 0 begins.
    pub first_channel: usize,
}

impl Rows<'_> {
    fn head(&self, row: usize, head: usize, head_size: usize) -> &[f64] {
        &self.values[row * self.width + self.first_channel + head * head_size..][..head_size]
    }
}

/// Extents of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Extents {
    /// N.
    pub images: usize,
    /// Tq.
    pub queries: usize,
    /// Tk.
    pub keys: usize,
    /// Number of heads.
    pub heads: usize,
    /// D.
    pub head_size: usize,
}

/// `softmax(queries · keys^T * scale) · values` in `[N, Tq, heads * D]`; `causal`: only keys up to the query.
#[must_use]
pub fn attend(
    [queries, keys, values]: [Rows<'_>; 3],
    extents: Extents,
    causal: bool,
    scale: f64,
) -> Vec<f64> {
    let Extents { head_size, heads, .. } = extents;
    let mut output = vec![0.0; extents.images * extents.queries * heads * head_size];
    for (index, output) in output.chunks_exact_mut(head_size).enumerate() {
        let (row, head) = (index / heads, index % heads);
        let (image, position) = (row / extents.queries, row % extents.queries);
        let seen = if causal { extents.keys.min(position + 1) } else { extents.keys };
        let query = queries.head(row, head, head_size);
        let key_rows = image * extents.keys..image * extents.keys + seen;
        let scores: Vec<f64> = key_rows
            .clone()
            .map(|row| {
                let key = keys.head(row, head, head_size);
                scale * query.iter().zip(key).map(|(query, key)| query * key).sum::<f64>()
            })
            .collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
        for (row, score) in key_rows.zip(scores) {
            let weight = (score - highest).exp() / total;
            for (sum, value) in output.iter_mut().zip(values.head(row, head, head_size)) {
                *sum += weight * value;
            }
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let rows = |name: &str, width: u32, first_channel: u32| Rows {
        values: operands.input(name),
        width: width as usize,
        first_channel: first_channel as usize,
    };
    let views = [
        rows("queries", params.query_width, params.first_query),
        rows("keys", params.key_width, params.first_key),
        rows("values", params.value_width, params.first_value),
    ];
    let head_size = operands.definition("HEAD_SIZE") as usize;
    let [heads, queries, keys] = [params.heads, params.query_count, params.key_count].map(|n| n as usize);
    let images = operands.count("output") / (queries * heads * head_size);
    let extents = Extents { images, queries, keys, heads, head_size };
    vec![("output", attend(views, extents, operands.flag("CAUSAL"), f64::from(params.scale)))]
}

/// Where queries, keys and values lie: the index of an input and the first channel there.
type Places = [(usize, usize); 3];

const APART: Places = [(0, 0), (1, 0), (2, 0)];

fn case(
    name: &'static str,
    extents: Extents,
    causal: bool,
    scale: f32,
    inputs: Vec<Input>,
    places: Places,
) -> Case {
    let Extents { heads, head_size, keys, .. } = extents;
    let config = AttentionConfig { heads, head_size, causal, scale };
    let widths = places.map(|(index, _)| inputs[index].shape.channels());
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            let [queries, keys, values] =
                places.map(|(index, first_channel)| View { tensor: &tensors[index], first_channel });
            attention(recording, queries, keys, values, &config)
        }),
        expected: Box::new(move |values| {
            let view = |part: usize| {
                let (index, first_channel) = places[part];
                Rows { values: &values[index], width: widths[part], first_channel }
            };
            attend([view(0), view(1), view(2)], extents, causal, f64::from(scale))
        }),
        terms: keys + head_size,
    }
}

/// Queries, keys and values of unit variance in tensors of their own: scores of unit variance.
fn plain(
    name: &'static str,
    [images, heads]: [usize; 2],
    [queries, keys]: [usize; 2],
    head_size: usize,
    causal: bool,
) -> Case {
    let extents = Extents { images, queries, keys, heads, head_size };
    let input = |tokens, seed| Input::random([images, tokens, heads * head_size], Role::Element, 1.0, seed);
    let inputs = vec![input(queries, 1), input(keys, 2), input(keys, 3)];
    case(name, extents, causal, usual_scale(head_size), inputs, APART)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "small extents")]
fn usual_scale(head_size: usize) -> f32 {
    (1.0 / (head_size as f64).sqrt()) as f32
}

/// Scores between about -200 and 200, all of them whole and so exact in `f32`: what is tested is the maximum.
fn large_scores([queries, keys]: [usize; 2]) -> Case {
    let extents = Extents { images: 1, queries, keys, heads: 1, head_size: 4 };
    let whole = |tokens: usize, seed| {
        let mut input = Input::random([1, tokens, 4], Role::Element, 3.0, seed);
        input.values.iter_mut().for_each(|value| *value = value.round());
        input
    };
    let inputs = vec![whole(queries, 1), whole(keys, 2), Input::random([1, keys, 4], Role::Element, 1.0, 3)];
    case("scores of some hundreds", extents, false, 4.0, inputs, APART)
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let fused = |seed| Input::random([2, 50, 3 * 24], Role::Element, 1.0, seed);
    let of_text = |seed| Input::random([2, 77, 2 * 24], Role::Element, 1.0, seed);
    let itself = Extents { images: 2, queries: 50, keys: 50, heads: 2, head_size: 12 };
    let text = Extents { keys: 77, ..itself };
    let scale = usual_scale(12);
    let from_itself = [(0, 0), (0, 24), (0, 48)];
    let from_text = [(0, 24), (1, 0), (1, 24)];
    vec![
        plain("plain", [1, 1], [64, 64], 64, false),
        plain("one key", [1, 2], [9, 1], 40, false),
        plain("one query", [1, 2], [1, 77], 40, false),
        plain("77 keys, 100 queries", [1, 2], [100, 77], 40, false),
        plain("causal, 77", [1, 2], [77, 77], 64, true),
        plain("causal, more queries than keys", [1, 1], [100, 40], 8, true),
        plain("causal, more keys than queries", [2, 1], [40, 100], 80, true),
        plain("heads of 1", [1, 3], [35, 33], 1, false),
        plain("heads of 4", [1, 2], [33, 65], 4, false),
        plain("heads of 12", [1, 2], [31, 32], 12, false),
        plain("heads of 33", [1, 2], [35, 50], 33, false),
        plain("heads of 80", [1, 2], [65, 70], 80, false),
        plain("heads of 160", [1, 2], [17, 64], 160, false),
        plain("head of 512", [1, 1], [6, 130], 512, false),
        plain("head of 960, one key", [2, 1], [5, 1], 960, false),
        plain("head of 960, 130 keys", [1, 1], [6, 130], 960, false),
        plain("head of 1024, causal", [1, 1], [9, 9], 1024, true),
        plain("head of 161, causal", [1, 1], [70, 70], 161, true),
        plain("two images, three heads", [2, 3], [21, 45], 16, false),
        plain("300 keys", [1, 1], [40, 300], 40, false),
        plain("130 queries, heads of 39", [1, 2], [130, 65], 39, false),
        plain("130 queries, causal", [2, 1], [130, 130], 40, true),
        case("one tensor", itself, false, scale, vec![fused(4)], from_itself),
        case("one tensor, causal", itself, true, scale, vec![fused(4)], from_itself),
        case("keys and values in one tensor", text, false, scale, vec![fused(4), of_text(5)], from_text),
        large_scores([33, 100]),
        large_scores([97, 100]),
        plain("9000 keys, head of 512", [1, 1], [1, 9000], 512, false),
    ]
}
