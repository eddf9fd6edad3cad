//! attention_flash: attention of every query to all keys, without storing the scores.
//!
//!   score[t, s] = scale * sum_d queries[n, t, h, d] * keys[n, s, h, d]     s <= t if CAUSAL
//!   output[n, t, h, d] = sum_s softmax_s(score[t, s]) * values[n, s, h, d]
//!
//! queries  [N, Tq, query_width]  Element  head h begins at first_query + h * D
//! keys     [N, Tk, key_width]    Element  head h begins at first_key + h * D
//! values   [N, Tk, value_width]  Element  head h begins at first_value + h * D
//! output   [N, Tq, heads * D]    Element
//!
//! grid     (Tq / QUERIES, heads, N), rounded up: one workgroup of LANES lanes owns QUERIES queries of one head
//! numbers  scores, running maximum and sums in f32; D is HEAD_SIZE
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

// Every lane belongs to a group of four queries, which its vectors hold side by side.
const GROUPS: u32 = QUERIES / 4u;
const GROUP_LANES: u32 = LANES / GROUPS;
// Keys are read in blocks; the lanes of a group share the keys of a block, and then the outputs.
const LANE_KEYS: u32 = max(1u, 32u / GROUP_LANES);
const KEYS: u32 = LANE_KEYS * GROUP_LANES;
const LANE_OUTPUTS: u32 = (HEAD_SIZE + GROUP_LANES - 1u) / GROUP_LANES;
// A block of keys is staged in chunks of the head. A chunk is a multiple of four, since the loops do four
// steps at once: older lavapipes end all loops of an invocation after 65,535 iterations in all.
const CHUNKS: u32 = (HEAD_SIZE + 19u) / 20u;
const CHUNK: u32 = (HEAD_SIZE + 4u * CHUNKS - 1u) / (4u * CHUNKS) * 4u;
const KEY_STRIDE: u32 = KEYS + 1u; // odd, so that a column's values lie in different banks

// Less than any score, but finite, since compilers may assume that there are no infinities.
const LOWEST: f32 = -1e30;

// Values are staged in the place of keys, VALUE_KEYS (a multiple of four) at a time; large heads, of which too few
// would fit, read them directly (VALUE_KEYS is 0).
const TILE: u32 = max(CHUNK * KEY_STRIDE, VALUE_KEYS * HEAD_SIZE);

var<workgroup> query_tile: array<vec4<f32>, CHUNKS * CHUNK * GROUPS>; // [D][GROUPS], scaled
var<workgroup> key_tile: array<f32, TILE>;                            // [CHUNK][KEYS], or [VALUE_KEYS][D]
var<workgroup> weights: array<vec4<f32>, KEYS * GROUPS>;              // [KEYS][GROUPS], exp(score - maximum)
var<workgroup> partial: array<vec4<f32>, LANES>;                      // one value per lane to combine

/// Four channels of a query, scaled; 0 behind the last query or channel.
fn load_query(base: u32, query: u32, channel: u32) -> vec4<f32> {
    var found = vec4(0.0);
    if query >= params.query_count || channel >= HEAD_SIZE {
        return found;
    }
    let at = base + query * params.query_width + channel;
    if WORD == 4u {
        return params.scale * widen(queries[at / WORD]);
    }
    found.x = widen(queries[at]).x;
    if channel + 1u < HEAD_SIZE { found.y = widen(queries[at + 1u]).x; }
    if channel + 2u < HEAD_SIZE { found.z = widen(queries[at + 2u]).x; }
    if channel + 3u < HEAD_SIZE { found.w = widen(queries[at + 3u]).x; }
    return params.scale * found;
}

/// Four channels of the key whose row begins at `row`; behind the last channel anything, for the queries are 0 there.
fn load_key(row: u32, channel: u32) -> vec4<f32> {
    if WORD == 4u {
        return widen(keys[(row + min(channel, max(HEAD_SIZE, 4u) - 4u)) / WORD]);
    }
    return vec4(
        widen(keys[row + min(channel, HEAD_SIZE - 1u)]).x,
        widen(keys[row + min(channel + 1u, HEAD_SIZE - 1u)]).x,
        widen(keys[row + min(channel + 2u, HEAD_SIZE - 1u)]).x,
        widen(keys[row + min(channel + 3u, HEAD_SIZE - 1u)]).x,
    );
}

fn load_value(at: u32) -> f32 {
    return widen(values[at]).x;
}

/// Puts the values of keys from `first_key` on into the tile; the last one's stand in for those behind it.
fn stage_values(base: u32, first_key: u32, key_end: u32, lane: u32) {
    for (var i = lane; i < VALUE_KEYS * HEAD_SIZE / WORD; i += LANES) {
        let key = min(first_key + i * WORD / HEAD_SIZE, key_end - 1u);
        let word = widen(values[(base + key * params.value_width + i * WORD % HEAD_SIZE) / WORD]);
        key_tile[i * WORD] = word.x;
        if WORD == 4u {
            key_tile[i * WORD + 1u] = word.y;
            key_tile[i * WORD + 2u] = word.z;
            key_tile[i * WORD + 3u] = word.w;
        }
    }
}

fn store_one(at: u32, query: u32, value: f32) {
    if query < params.query_count {
        output[at + query * params.heads * HEAD_SIZE] = Element(value);
    }
}

@compute @workgroup_size(LANES)
fn attention_flash(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first_query = workgroup.x * QUERIES;
    let head = workgroup.y * HEAD_SIZE;
    let image = workgroup.z;
    let group = lane / GROUP_LANES;
    let member = lane % GROUP_LANES;
    let group_query = first_query + 4u * group;
    let query_indices = vec4(group_query) + vec4(0u, 1u, 2u, 3u);

    let query_base = image * params.query_count * params.query_width + params.first_query + head;
    for (var i = lane; i < CHUNKS * CHUNK / 4u * GROUPS; i += LANES) {
        let channel = i % (CHUNKS * CHUNK / 4u) * 4u;
        let four = i / (CHUNKS * CHUNK / 4u);
        let query = first_query + 4u * four;
        // four channels of four queries, turned over
        let a = load_query(query_base, query, channel);
        let b = load_query(query_base, query + 1u, channel);
        let c = load_query(query_base, query + 2u, channel);
        let d = load_query(query_base, query + 3u, channel);
        query_tile[channel * GROUPS + four] = vec4(a.x, b.x, c.x, d.x);
        query_tile[(channel + 1u) * GROUPS + four] = vec4(a.y, b.y, c.y, d.y);
        query_tile[(channel + 2u) * GROUPS + four] = vec4(a.z, b.z, c.z, d.z);
        query_tile[(channel + 3u) * GROUPS + four] = vec4(a.w, b.w, c.w, d.w);
    }

    // a causal query sees no key behind itself, so the blocks behind the last query are skipped
    var key_end = params.key_count;
    if CAUSAL {
        key_end = min(key_end, first_query + QUERIES);
    }
    let key_base = image * params.key_count * params.key_width + params.first_key + head;
    let value_base = image * params.key_count * params.value_width + params.first_value + head;

    var maximum = vec4(LOWEST); // of the scores so far, the same in all lanes of a group
    var total = vec4(0.0);      // of this lane's weights so far
    var sums: array<vec4<f32>, LANE_OUTPUTS>;
    for (var j = 0u; j < LANE_OUTPUTS; j += 1u) {
        sums[j] = vec4(0.0);
    }

    for (var first_key = 0u; first_key < key_end; first_key += KEYS) {
        // scores of this lane's keys: member, member + GROUP_LANES, ..
        var scores: array<vec4<f32>, LANE_KEYS>;
        for (var j = 0u; j < LANE_KEYS; j += 1u) {
            scores[j] = vec4(0.0);
        }
        for (var first_channel = 0u; first_channel < HEAD_SIZE; first_channel += CHUNK) {
            // clamped rather than tested: the queries are 0 behind the head, unseen keys are masked below
            for (var i = lane; i < CHUNK / 4u * KEYS; i += LANES) {
                let key = i / (CHUNK / 4u);
                let d = i % (CHUNK / 4u) * 4u;
                let row = key_base + min(first_key + key, key_end - 1u) * params.key_width;
                let at = d * KEY_STRIDE + key;
                let word = load_key(row, first_channel + d);
                key_tile[at] = word.x;
                key_tile[at + KEY_STRIDE] = word.y;
                key_tile[at + 2u * KEY_STRIDE] = word.z;
                key_tile[at + 3u * KEY_STRIDE] = word.w;
            }
            workgroupBarrier();
            for (var d = 0u; d < CHUNK; d += 4u) {
                let at = (first_channel + d) * GROUPS + group;
                let query_0 = query_tile[at];
                let query_1 = query_tile[at + GROUPS];
                let query_2 = query_tile[at + 2u * GROUPS];
                let query_3 = query_tile[at + 3u * GROUPS];
                for (var j = 0u; j < LANE_KEYS; j += 1u) {
                    let key = d * KEY_STRIDE + member + j * GROUP_LANES;
                    var score = fma(query_0, vec4(key_tile[key]), scores[j]);
                    score = fma(query_1, vec4(key_tile[key + KEY_STRIDE]), score);
                    score = fma(query_2, vec4(key_tile[key + 2u * KEY_STRIDE]), score);
                    scores[j] = fma(query_3, vec4(key_tile[key + 3u * KEY_STRIDE]), score);
                }
            }
            workgroupBarrier();
        }

        // the maximum over the block, and what it does to everything summed before
        var highest = vec4(LOWEST);
        for (var j = 0u; j < LANE_KEYS; j += 1u) {
            let key = first_key + member + j * GROUP_LANES;
            var seen = vec4(key < key_end);
            if CAUSAL {
                seen = seen & (vec4(key) <= query_indices);
            }
            scores[j] = select(vec4(LOWEST), scores[j], seen);
            highest = max(highest, scores[j]);
        }
        partial[lane] = highest;
        workgroupBarrier();
        highest = maximum;
        for (var i = 0u; i < GROUP_LANES; i += 1u) {
            highest = max(highest, partial[group * GROUP_LANES + i]);
        }
        let shrink = exp(maximum - highest);
        maximum = highest;
        total *= shrink;
        for (var j = 0u; j < LANE_KEYS; j += 1u) {
            // an unseen key weighs nothing even where the maximum is LOWEST itself
            let weight = select(vec4(0.0), exp(scores[j] - maximum), scores[j] > vec4(LOWEST));
            total += weight;
            weights[(member + j * GROUP_LANES) * GROUPS + group] = weight;
        }
        workgroupBarrier();

        // outputs of this lane: channels member, member + GROUP_LANES, ..
        for (var j = 0u; j < LANE_OUTPUTS; j += 1u) {
            sums[j] *= shrink;
        }
        // a key behind the last weighs 0, and the last one's values stand in for its own
        let block_keys = min(KEYS, key_end - first_key);
        if VALUE_KEYS > 0u {
            for (var first = 0u; first < block_keys; first += VALUE_KEYS) {
                stage_values(value_base, first_key + first, key_end, lane);
                workgroupBarrier();
                let staged_keys = min(VALUE_KEYS, block_keys - first);
                for (var key = 0u; key < staged_keys; key += 4u) {
                    let at = (first + key) * GROUPS + group;
                    let weight_0 = weights[at];
                    let weight_1 = weights[at + GROUPS];
                    let weight_2 = weights[at + 2u * GROUPS];
                    let weight_3 = weights[at + 3u * GROUPS];
                    for (var j = 0u; j < LANE_OUTPUTS; j += 1u) {
                        let value = key * HEAD_SIZE + min(member + j * GROUP_LANES, HEAD_SIZE - 1u);
                        var sum = fma(weight_0, vec4(key_tile[value]), sums[j]);
                        sum = fma(weight_1, vec4(key_tile[value + HEAD_SIZE]), sum);
                        sum = fma(weight_2, vec4(key_tile[value + 2u * HEAD_SIZE]), sum);
                        sums[j] = fma(weight_3, vec4(key_tile[value + 3u * HEAD_SIZE]), sum);
                    }
                }
                workgroupBarrier();
            }
        } else {
            for (var key = 0u; key < block_keys; key += 4u) {
                let at = key * GROUPS + group;
                let weight_0 = weights[at];
                let weight_1 = weights[at + GROUPS];
                let weight_2 = weights[at + 2u * GROUPS];
                let weight_3 = weights[at + 3u * GROUPS];
                let row_0 = value_base + (first_key + key) * params.value_width;
                let row_1 = value_base + min(first_key + key + 1u, key_end - 1u) * params.value_width;
                let row_2 = value_base + min(first_key + key + 2u, key_end - 1u) * params.value_width;
                let row_3 = value_base + min(first_key + key + 3u, key_end - 1u) * params.value_width;
                for (var j = 0u; j < LANE_OUTPUTS; j += 1u) {
                    let channel = min(member + j * GROUP_LANES, HEAD_SIZE - 1u);
                    var sum = fma(weight_0, vec4(load_value(row_0 + channel)), sums[j]);
                    sum = fma(weight_1, vec4(load_value(row_1 + channel)), sum);
                    sum = fma(weight_2, vec4(load_value(row_2 + channel)), sum);
                    sums[j] = fma(weight_3, vec4(load_value(row_3 + channel)), sum);
                }
            }
        }
        // no barrier: the next block writes `partial` and `weights` behind those of its key chunks
    }

    workgroupBarrier();
    partial[lane] = total;
    workgroupBarrier();
    total = vec4(0.0);
    for (var i = 0u; i < GROUP_LANES; i += 1u) {
        total += partial[group * GROUP_LANES + i];
    }
    let output_base = image * params.query_count * params.heads * HEAD_SIZE + head;
    for (var j = 0u; j < LANE_OUTPUTS; j += 1u) {
        let channel = member + j * GROUP_LANES;
        if channel < HEAD_SIZE {
            let result = sums[j] / total;
            store_one(output_base + channel, group_query, result.x);
            store_one(output_base + channel, group_query + 1u, result.y);
            store_one(output_base + channel, group_query + 2u, result.z);
            store_one(output_base + channel, group_query + 3u, result.w);
        }
    }
}
