//! attention_broadcast_wide: attention of every query to all keys, for adapters whose subgroups have 8 lanes.
//!
//!   score[t, s] = scale * sum_d queries[n, t, h, d] * keys[n, s, h, d]     s <= t if CAUSAL
//!   output[n, t, h, d] = sum_s softmax_s(score[t, s]) * values[n, s, h, d]
//!
//! queries  [N, Tq, query_width]  Element  head h begins at first_query + h * D
//! keys     [N, Tk, key_width]    Element  head h begins at first_key + h * D
//! values   [N, Tk, value_width]  Element  head h begins at first_value + h * D
//! output   [N, Tq, heads * D]    Element
//!
//! grid     (Tq / 8, heads, N), rounded up: one workgroup of 8 lanes, each of which owns one query of one head
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
@group(0) @binding(1) var<storage, read> queries: array<Element>;
@group(0) @binding(2) var<storage, read> keys: array<Element>;
@group(0) @binding(3) var<storage, read> values: array<Element>;
@group(0) @binding(4) var<storage, read_write> output: array<Element>;

override CAUSAL: bool = false;

const LANES: u32 = 8u;
const KEYS: u32 = 16u; // keys of a block, for which the maximum is raised once
// Older lavapipes end all loops of an invocation after 65,535 iterations in all: large heads take large steps.
const STEP_CHUNKS: u32 = select(1u, 2u, HEAD_SIZE > 160u);
const CHUNKS: u32 = (HEAD_SIZE + LANES * STEP_CHUNKS - 1u) / (LANES * STEP_CHUNKS) * STEP_CHUNKS;

// Less than any score, but finite, since compilers may assume that there are no infinities.
const LOWEST: f32 = -1e30;

/// A chunk: eight neighbouring channels, all in one lane.
struct Chunk {
    low: vec4<f32>,
    high: vec4<f32>,
}

/// What the eight lanes hold, in every lane.
fn gather(value: f32) -> Chunk {
    return Chunk(
        vec4(
            subgroupBroadcast(value, 0u),
            subgroupBroadcast(value, 1u),
            subgroupBroadcast(value, 2u),
            subgroupBroadcast(value, 3u),
        ),
        vec4(
            subgroupBroadcast(value, 4u),
            subgroupBroadcast(value, 5u),
            subgroupBroadcast(value, 6u),
            subgroupBroadcast(value, 7u),
        ),
    );
}

/// One chunk's part of the score of the key of which lane l holds channel l of the chunk.
fn score(query: Chunk, key: f32) -> f32 {
    let other = gather(key);
    return dot(query.low, other.low) + dot(query.high, other.high);
}

/// One chunk's part of the scores of four keys; `channel` is this lane's.
fn scores_of_four(query: Chunk, rows: vec4<u32>, channel: u32) -> vec4<f32> {
    return vec4(
        score(query, f32(keys[rows.x + channel])),
        score(query, f32(keys[rows.y + channel])),
        score(query, f32(keys[rows.z + channel])),
        score(query, f32(keys[rows.w + channel])),
    );
}

fn add_weighted(sums: Chunk, weight: f32, value: f32) -> Chunk {
    let other = gather(value);
    return Chunk(fma(vec4(weight), other.low, sums.low), fma(vec4(weight), other.high, sums.high));
}

/// One chunk of the sums with the values of four keys added.
fn add_four(sums: Chunk, weights: vec4<f32>, rows: vec4<u32>, channel: u32) -> Chunk {
    let one = add_weighted(sums, weights.x, f32(values[rows.x + channel]));
    let two = add_weighted(one, weights.y, f32(values[rows.y + channel]));
    let three = add_weighted(two, weights.z, f32(values[rows.z + channel]));
    return add_weighted(three, weights.w, f32(values[rows.w + channel]));
}

/// The four scores where the query sees the keys, `LOWEST` elsewhere.
fn mask(scores: vec4<f32>, key: vec4<u32>, query: u32, key_end: u32) -> vec4<f32> {
    var seen = key < vec4(key_end);
    if CAUSAL {
        seen = seen & (key <= vec4(query));
    }
    return select(vec4(LOWEST), scores, seen);
}

/// exp(score - maximum); an unseen key weighs nothing even where the maximum is LOWEST itself.
fn weigh(scores: vec4<f32>, maximum: f32) -> vec4<f32> {
    return select(vec4(0.0), exp(scores - vec4(maximum)), scores > vec4(LOWEST));
}

fn highest_of(scores: vec4<f32>) -> f32 {
    return max(max(scores.x, scores.y), max(scores.z, scores.w));
}

/// This lane's channel of a chunk; in the last chunk the head's last channel stands in for those behind it.
fn channel_of(chunk: u32, lane: u32) -> u32 {
    return min(chunk * LANES + lane, HEAD_SIZE - 1u);
}

fn load_query(base: u32, channel: u32) -> f32 {
    let value = params.scale * f32(queries[base + min(channel, HEAD_SIZE - 1u)]);
    return select(0.0, value, channel < HEAD_SIZE);
}

fn load_query_chunk(base: u32, channel: u32) -> Chunk {
    return Chunk(
        vec4(
            load_query(base, channel),
            load_query(base, channel + 1u),
            load_query(base, channel + 2u),
            load_query(base, channel + 3u),
        ),
        vec4(
            load_query(base, channel + 4u),
            load_query(base, channel + 5u),
            load_query(base, channel + 6u),
            load_query(base, channel + 7u),
        ),
    );
}

fn store(base: u32, channel: u32, value: f32) {
    if channel < HEAD_SIZE {
        output[base + channel] = Element(value);
    }
}

@compute @workgroup_size(8)
fn attention_broadcast_wide(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // a lane behind the last query takes part with the last query, and stores nothing
    let own_query = workgroup.x * LANES + lane;
    let query = min(own_query, params.query_count - 1u);
    let head = workgroup.y * HEAD_SIZE;
    let image = workgroup.z;

    let query_base = (image * params.query_count + query) * params.query_width + params.first_query + head;
    var query_chunks: array<Chunk, CHUNKS>;
    var sums: array<Chunk, CHUNKS>;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        query_chunks[chunk] = load_query_chunk(query_base, chunk * LANES);
        sums[chunk] = Chunk(vec4(0.0), vec4(0.0));
    }

    // a causal query sees no key behind itself, so the blocks behind the last query are skipped
    var key_end = params.key_count;
    if CAUSAL {
        key_end = min(key_end, workgroup.x * LANES + LANES);
    }
    let key_base = image * params.key_count * params.key_width + params.first_key + head;
    let value_base = image * params.key_count * params.value_width + params.first_value + head;
    let last_key = vec4(key_end - 1u);

    var maximum = LOWEST; // of the scores so far
    var total = 0.0;      // of the weights so far
    for (var first_key = 0u; first_key < key_end; first_key += KEYS) {
        let key_0 = vec4(first_key) + vec4(0u, 1u, 2u, 3u);
        let key_1 = key_0 + vec4(4u);
        let key_2 = key_0 + vec4(8u);
        let key_3 = key_0 + vec4(12u);
        // the last key stands in for those behind it, which are masked below
        let clamped_0 = min(key_0, last_key);
        let clamped_1 = min(key_1, last_key);
        let clamped_2 = min(key_2, last_key);
        let clamped_3 = min(key_3, last_key);

        var row_0 = vec4(key_base) + clamped_0 * params.key_width;
        var row_1 = vec4(key_base) + clamped_1 * params.key_width;
        var row_2 = vec4(key_base) + clamped_2 * params.key_width;
        var row_3 = vec4(key_base) + clamped_3 * params.key_width;
        var scores_0 = vec4(0.0);
        var scores_1 = vec4(0.0);
        var scores_2 = vec4(0.0);
        var scores_3 = vec4(0.0);
        for (var chunk = 0u; chunk < CHUNKS; chunk += STEP_CHUNKS) {
            let own = query_chunks[chunk];
            let channel = channel_of(chunk, lane);
            scores_0 += scores_of_four(own, row_0, channel);
            scores_1 += scores_of_four(own, row_1, channel);
            scores_2 += scores_of_four(own, row_2, channel);
            scores_3 += scores_of_four(own, row_3, channel);
            if STEP_CHUNKS == 2u {
                let next = query_chunks[chunk + STEP_CHUNKS - 1u];
                let next_channel = channel_of(chunk + 1u, lane);
                scores_0 += scores_of_four(next, row_0, next_channel);
                scores_1 += scores_of_four(next, row_1, next_channel);
                scores_2 += scores_of_four(next, row_2, next_channel);
                scores_3 += scores_of_four(next, row_3, next_channel);
            }
        }

        // the maximum over the block, and what it does to everything summed before
        scores_0 = mask(scores_0, key_0, query, key_end);
        scores_1 = mask(scores_1, key_1, query, key_end);
        scores_2 = mask(scores_2, key_2, query, key_end);
        scores_3 = mask(scores_3, key_3, query, key_end);
        let highest = max(maximum, highest_of(max(max(scores_0, scores_1), max(scores_2, scores_3))));
        let shrink = exp(maximum - highest);
        maximum = highest;
        let weights_0 = weigh(scores_0, maximum);
        let weights_1 = weigh(scores_1, maximum);
        let weights_2 = weigh(scores_2, maximum);
        let weights_3 = weigh(scores_3, maximum);
        total = total * shrink + dot(weights_0 + weights_1 + weights_2 + weights_3, vec4(1.0));

        row_0 = vec4(value_base) + clamped_0 * params.value_width;
        row_1 = vec4(value_base) + clamped_1 * params.value_width;
        row_2 = vec4(value_base) + clamped_2 * params.value_width;
        row_3 = vec4(value_base) + clamped_3 * params.value_width;
        for (var chunk = 0u; chunk < CHUNKS; chunk += STEP_CHUNKS) {
            let channel = channel_of(chunk, lane);
            var own = Chunk(sums[chunk].low * shrink, sums[chunk].high * shrink);
            own = add_four(own, weights_0, row_0, channel);
            own = add_four(own, weights_1, row_1, channel);
            own = add_four(own, weights_2, row_2, channel);
            sums[chunk] = add_four(own, weights_3, row_3, channel);
            if STEP_CHUNKS == 2u {
                let next = chunk + STEP_CHUNKS - 1u;
                let next_channel = channel_of(next, lane);
                var other = Chunk(sums[next].low * shrink, sums[next].high * shrink);
                other = add_four(other, weights_0, row_0, next_channel);
                other = add_four(other, weights_1, row_1, next_channel);
                other = add_four(other, weights_2, row_2, next_channel);
                sums[next] = add_four(other, weights_3, row_3, next_channel);
            }
        }
    }

    if own_query >= params.query_count {
        return;
    }
    let output_base = (image * params.query_count + query) * params.heads * HEAD_SIZE + head;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        let low = sums[chunk].low / total;
        let high = sums[chunk].high / total;
        let channel = chunk * LANES;
        store(output_base, channel, low.x);
        store(output_base, channel + 1u, low.y);
        store(output_base, channel + 2u, low.z);
        store(output_base, channel + 3u, low.w);
        store(output_base, channel + 4u, high.x);
        store(output_base, channel + 5u, high.y);
        store(output_base, channel + 6u, high.z);
        store(output_base, channel + 7u, high.w);
    }
}
