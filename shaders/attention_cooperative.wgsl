//! attention_cooperative: attention of every query to all keys on cooperative matrices, without storing the scores.
//!
//!   score[t, s] = scale * sum_d queries[n, t, h, d] * keys[n, s, h, d]     s <= t if CAUSAL
//!   output[n, t, h, d] = sum_s softmax_s(score[t, s]) * values[n, s, h, d]
//!
//! queries  [N, Tq, query_width]  Element  head h begins at first_query + h * D
//! keys     [N, Tk, key_width]    Element  head h begins at first_key + h * D
//! values   [N, Tk, value_width]  Element  head h begins at first_value + h * D
//! output   [N, Tq, heads * D]    Element
//!
//! WORD is 4 if all of D and the places and widths of the heads are multiples of it, and 1 otherwise.
//!
//! grid     (Tq / QUERIES, heads, N), rounded up: one workgroup of LANES lanes owns QUERIES queries of one head
//! numbers  products of f16, so the weights of the keys are rounded; scores, running maximum and sums in f32; D is HEAD_SIZE
//! source   Dao et al. 2022, arXiv:2205.14135; Milakov & Gimelshein 2018, arXiv:1805.02867
//! twin     src/reference/attention.rs

struct Params {
    heads: u32,
    query_count: u32, // Tq
    key_count: u32,   // Tk
    query_width: u32,
    key_width: u32,
    value_width: u32,
    first_query: u32,
    first_key: u32,
    first_value: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> queries: array<Word>;
@group(0) @binding(2) var<storage, read> keys: array<Word>;
@group(0) @binding(3) var<storage, read> values: array<Word>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

override CAUSAL: bool = false;

// Fragments reach behind the head, where the channels are 0.
const CHANNELS: u32 = (HEAD_SIZE + EDGE - 1u) / EDGE * EDGE;
// Rows begin 8 values of 16 bits, or 4 of 32, further: in different banks.
const STRIDE: u32 = CHANNELS + 8u;
const WEIGHT_STRIDE: u32 = KEYS + 8u;
const SCORE_STRIDE: u32 = KEYS + 4u;
const SUM_STRIDE: u32 = CHANNELS + 4u;
// Neighbouring lanes share a row of scores; where there are fewer lanes than rows, a lane has several rows.
const ROW_LANES: u32 = max(1u, LANES / QUERIES);
const ROWS: u32 = LANES / ROW_LANES;
const LANE_ROWS: u32 = (QUERIES + ROWS - 1u) / ROWS;

// Less than any score, but finite, since compilers may assume that there are no infinities.
const LOWEST: f32 = -1e30;
// Weights are taken relative to a maximum that follows the true one only when it falls behind by more than this, so
// that the sums are seldom scaled. No weight passes exp(8), which 16 bits hold.
const SLACK: f32 = 8.0;

var<workgroup> left: array<Element, QUERIES * STRIDE>;           // [QUERIES][CHANNELS], the queries
var<workgroup> right: array<Element, KEYS * STRIDE>;             // [KEYS][CHANNELS], the keys, then the values
var<workgroup> scores: array<f32, QUERIES * SCORE_STRIDE>;       // [QUERIES][KEYS], not scaled
var<workgroup> weights: array<Element, QUERIES * WEIGHT_STRIDE>; // [QUERIES][KEYS], exp(score - maximum)
var<workgroup> sums: array<f32, QUERIES * SUM_STRIDE>;           // [QUERIES][CHANNELS], of weighted values
var<workgroup> partial: array<f32, LANE_ROWS * LANES>;           // one value per lane and row to combine

/// scores = queries * keys^T: each subgroup makes some fragments.
fn multiply_keys(subgroup: u32, subgroups: u32) {
    let stride = SCORE_STRIDE;
    for (var i = subgroup; i < QUERIES / EDGE * (KEYS / EDGE); i += subgroups) {
        let row = i / (KEYS / EDGE) * EDGE;
        let key = i % (KEYS / EDGE) * EDGE;
        var sum = SumFragment();
        for (var channel = 0u; channel < CHANNELS; channel += EDGE) {
            let a = coopLoadT<LeftFragment>(&left[row * STRIDE + channel], STRIDE);
            let b = coopLoad<RightFragment>(&right[key * STRIDE + channel], STRIDE);
            sum = coopMultiplyAdd(a, b, sum);
        }
        // what is stored has a name, as naga 30 wants it
        let finished = sum;
        let at = row * SCORE_STRIDE + key;
        coopStoreT(finished, &scores[at], stride);
    }
}

/// sums += weights * values: each subgroup takes some fragments out of workgroup memory and back.
fn multiply_values(subgroup: u32, subgroups: u32) {
    let stride = SUM_STRIDE;
    for (var i = subgroup; i < QUERIES / EDGE * (CHANNELS / EDGE); i += subgroups) {
        let row = i / (CHANNELS / EDGE) * EDGE;
        let channel = i % (CHANNELS / EDGE) * EDGE;
        let at = row * SUM_STRIDE + channel;
        var sum = coopLoadT<SumFragment>(&sums[at], SUM_STRIDE);
        for (var key = 0u; key < KEYS; key += EDGE) {
            let a = coopLoadT<LeftFragment>(&weights[row * WEIGHT_STRIDE + key], WEIGHT_STRIDE);
            let b = coopLoadT<RightFragment>(&right[key * STRIDE + channel], STRIDE);
            sum = coopMultiplyAdd(a, b, sum);
        }
        let finished = sum;
        coopStoreT(finished, &sums[at], stride);
    }
}

/// The scaled score of key `first_key + k`, or LOWEST if the query does not see it.
fn seen_score(row: u32, k: u32, first_query: u32, first_key: u32, key_end: u32) -> f32 {
    let key = first_key + k;
    let seen = row < QUERIES && key < key_end && (!CAUSAL || key <= first_query + row);
    if !seen {
        return LOWEST;
    }
    return params.scale * scores[row * SCORE_STRIDE + k];
}

@compute @workgroup_size(LANES)
fn attention_cooperative(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let first_query = workgroup.x * QUERIES;
    let head = workgroup.y * HEAD_SIZE;
    let image = workgroup.z;
    let member = lane % ROW_LANES;

    let query_base = image * params.query_count * params.query_width + params.first_query + head;
    for (var i = lane * WORD; i < QUERIES * CHANNELS; i += LANES * WORD) {
        let query = first_query + i / CHANNELS;
        let channel = i % CHANNELS;
        var word = Word();
        if query < params.query_count && channel < HEAD_SIZE {
            word = queries[(query_base + query * params.query_width + channel) / WORD];
        }
        stage_left(i / CHANNELS * STRIDE + channel, word);
    }
    for (var i = lane; i < QUERIES * SUM_STRIDE; i += LANES) {
        sums[i] = 0.0;
    }

    // a causal query sees no key behind itself, so the blocks behind the last query are skipped
    var key_end = params.key_count;
    if CAUSAL {
        key_end = min(key_end, first_query + QUERIES);
    }
    let key_base = image * params.key_count * params.key_width + params.first_key + head;
    let value_base = image * params.key_count * params.value_width + params.first_value + head;

    var maximum: array<f32, LANE_ROWS>; // that the weights of a row are relative to, the same in all of its lanes
    var total: array<f32, LANE_ROWS>;   // of this lane's weights so far
    for (var j = 0u; j < LANE_ROWS; j += 1u) {
        maximum[j] = LOWEST;
        total[j] = 0.0;
    }

    for (var first_key = 0u; first_key < key_end; first_key += KEYS) {
        for (var i = lane * WORD; i < KEYS * CHANNELS; i += LANES * WORD) {
            let key = first_key + i / CHANNELS;
            let channel = i % CHANNELS;
            var word = Word();
            if key < key_end && channel < HEAD_SIZE {
                word = keys[(key_base + key * params.key_width + channel) / WORD];
            }
            stage_right(i / CHANNELS * STRIDE + channel, word);
        }
        workgroupBarrier();
        multiply_keys(subgroup, subgroups);
        workgroupBarrier();

        // this lane's keys of a row: member, member + ROW_LANES, ..
        for (var j = 0u; j < LANE_ROWS; j += 1u) {
            let row = j * ROWS + lane / ROW_LANES;
            var highest = LOWEST;
            for (var k = member; k < KEYS; k += ROW_LANES) {
                highest = max(highest, seen_score(row, k, first_query, first_key, key_end));
            }
            partial[j * LANES + lane] = highest;
        }
        for (var i = lane * WORD; i < KEYS * CHANNELS; i += LANES * WORD) {
            // 0 behind the last key too: its weight is 0, but 0 times what lies there need not be
            let key = first_key + i / CHANNELS;
            let channel = i % CHANNELS;
            var word = Word();
            if key < key_end && channel < HEAD_SIZE {
                word = values[(value_base + key * params.value_width + channel) / WORD];
            }
            stage_right(i / CHANNELS * STRIDE + channel, word);
        }
        workgroupBarrier();
        for (var j = 0u; j < LANE_ROWS; j += 1u) {
            let row = j * ROWS + lane / ROW_LANES;
            if row < QUERIES {
                var highest = LOWEST;
                for (var i = 0u; i < ROW_LANES; i += 1u) {
                    highest = max(highest, partial[j * LANES + lane - member + i]);
                }
                if highest > maximum[j] + SLACK {
                    let shrink = exp(maximum[j] - highest);
                    maximum[j] = highest;
                    total[j] *= shrink;
                    for (var channel = member; channel < CHANNELS; channel += ROW_LANES) {
                        sums[row * SUM_STRIDE + channel] *= shrink;
                    }
                }
                for (var k = member; k < KEYS; k += ROW_LANES) {
                    // an unseen key weighs nothing even where the maximum is LOWEST itself
                    let score = seen_score(row, k, first_query, first_key, key_end);
                    let weight = Element(select(0.0, exp(score - maximum[j]), score > LOWEST));
                    weights[row * WEIGHT_STRIDE + k] = weight;
                    // the total is of the rounded weights, so that they still add up to one
                    total[j] += f32(weight);
                }
            }
        }
        workgroupBarrier();
        multiply_values(subgroup, subgroups);
        workgroupBarrier();
    }

    for (var j = 0u; j < LANE_ROWS; j += 1u) {
        partial[j * LANES + lane] = total[j];
    }
    workgroupBarrier();
    let output_base = image * params.query_count * params.heads * HEAD_SIZE + head;
    for (var i = lane; i < QUERIES * HEAD_SIZE; i += LANES) {
        let row = i / HEAD_SIZE;
        let channel = i % HEAD_SIZE;
        let query = first_query + row;
        if query < params.query_count {
            let first_lane = row / ROWS * LANES + row % ROWS * ROW_LANES;
            var all = 0.0;
            for (var k = 0u; k < ROW_LANES; k += 1u) {
                all += partial[first_lane + k];
            }
            output[output_base + query * params.heads * HEAD_SIZE + channel] =
                Element(sums[row * SUM_STRIDE + channel] / all);
        }
    }
}
