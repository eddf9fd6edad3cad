//! attention_broadcast: attention of every query to all keys, for adapters whose subgroups have 8 lanes.
//!
//!   score[t, s] = scale * sum_d queries[n, t, h, d] * keys[n, s, h, d]     s <= t if CAUSAL
//!   output[n, t, h, d] = sum_s softmax_s(score[t, s]) * values[n, s, h, d]
//!
//! queries  [N, Tq, query_width]  Element  head h begins at first_query + h * D
//! keys     [N, Tk, key_width]    Element  head h begins at first_key + h * D
//! values   [N, Tk, value_width]  Element  head h begins at first_value + h * D
//! output   [N, Tq, heads * D]    Element
//!
//! grid     (Tq / QUERIES, heads, N), rounded up: one workgroup of 8 lanes owns QUERIES queries of one head
//! numbers  scores, running maximum and sums in f32; D is HEAD_SIZE, QUERIES is HALVES * ROWS
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

const KEYS: u32 = 32u;   // of a block: four for each lane
const CHUNKS: u32 = (HEAD_SIZE + LANES - 1u) / LANES; // of eight channels

// Less than any score, but finite, since compilers may assume that there are no infinities. Every query sees key 0,
// which the first block holds: no maximum stays as low as this.
const LOWEST: f32 = -1e30;

/// What is known of four queries: the same in all lanes, but `total`, which is each lane's part.
struct Softmax {
    maximum: vec4<f32>, // of the scores so far
    shrink: vec4<f32>,  // what the last block did to everything summed before
    total: vec4<f32>,   // of the weights so far
}

/// The weights of four queries for the lane's four keys, and what is then known of the queries.
struct Softened {
    weights: mat4x4<f32>,
    state: Softmax,
}

/// ROWS queries, four by four.
struct Half {
    q0: Softened, q1: Softened, q2: Softened, q3: Softened,
    q4: Softened, q5: Softened, q6: Softened, q7: Softened,
}

/// The channel of a head, or its last one in place of those behind it.
fn within(channel: u32) -> u32 {
    return min(channel, HEAD_SIZE - 1u);
}

/// One channel of four queries, scaled; nothing behind the head's last one. Queries behind the last one repeat it,
/// and are not stored.
fn load_queries(image: u32, query: u32, head: u32, channel: u32) -> vec4<f32> {
    let rows = min(vec4(query) + vec4(0u, 1u, 2u, 3u), vec4(params.query_count - 1u));
    let at = (image * params.query_count + rows) * params.query_width + params.first_query + head + within(channel);
    let loaded = vec4(f32(queries[at.x]), f32(queries[at.y]), f32(queries[at.z]), f32(queries[at.w]));
    return select(vec4(0.0), params.scale * loaded, channel < HEAD_SIZE);
}

/// One channel of ROWS queries.
fn load_rows(image: u32, query: u32, head: u32, channel: u32) -> Rows {
    return Rows(
        load_queries(image, query, head, channel), load_queries(image, query + 4u, head, channel),
        load_queries(image, query + 8u, head, channel), load_queries(image, query + 12u, head, channel),
        load_queries(image, query + 16u, head, channel), load_queries(image, query + 20u, head, channel),
        load_queries(image, query + 24u, head, channel), load_queries(image, query + 28u, head, channel),
    );
}

/// One channel of the lane's four keys.
fn load_key(rows: vec4<u32>, channel: u32) -> vec4<f32> {
    let at = rows + within(channel);
    return vec4(f32(keys[at.x]), f32(keys[at.y]), f32(keys[at.z]), f32(keys[at.w]));
}

/// Eight channels of the lane's four keys.
fn load_keys(rows: vec4<u32>, channel: u32) -> Weights {
    return Weights(
        load_key(rows, channel), load_key(rows, channel + 1u),
        load_key(rows, channel + 2u), load_key(rows, channel + 3u),
        load_key(rows, channel + 4u), load_key(rows, channel + 5u),
        load_key(rows, channel + 6u), load_key(rows, channel + 7u),
    );
}

/// What the scores of four queries with one key of each lane start from: `LOWEST` where they do not see it.
fn start(query: u32, key: u32, key_end: u32) -> vec4<f32> {
    var seen = vec4(key < key_end);
    if CAUSAL {
        seen = seen & (vec4(key) <= vec4(query) + vec4(0u, 1u, 2u, 3u));
    }
    return select(vec4(LOWEST), vec4(0.0), seen);
}

/// The same for the lane's four keys.
fn start_four(query: u32, key: u32, key_end: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        start(query, key, key_end), start(query, key + LANES, key_end),
        start(query, key + 2u * LANES, key_end), start(query, key + 3u * LANES, key_end),
    );
}

/// The same for ROWS queries.
fn start_block(query: u32, key: u32, key_end: u32) -> Block {
    return Block(
        start_four(query, key, key_end), start_four(query + 4u, key, key_end),
        start_four(query + 8u, key, key_end), start_four(query + 12u, key, key_end),
        start_four(query + 16u, key, key_end), start_four(query + 20u, key, key_end),
        start_four(query + 24u, key, key_end), start_four(query + 28u, key, key_end),
    );
}

/// The maximum over all lanes.
fn highest(values: vec4<f32>) -> vec4<f32> {
    let one = max(subgroupBroadcast(values, 0u), subgroupBroadcast(values, 1u));
    let two = max(subgroupBroadcast(values, 2u), subgroupBroadcast(values, 3u));
    let three = max(subgroupBroadcast(values, 4u), subgroupBroadcast(values, 5u));
    let four = max(subgroupBroadcast(values, 6u), subgroupBroadcast(values, 7u));
    return max(max(one, two), max(three, four));
}

/// The sum over all lanes.
fn sum_of_lanes(values: vec4<f32>) -> vec4<f32> {
    let one = subgroupBroadcast(values, 0u) + subgroupBroadcast(values, 1u);
    let two = subgroupBroadcast(values, 2u) + subgroupBroadcast(values, 3u);
    let three = subgroupBroadcast(values, 4u) + subgroupBroadcast(values, 5u);
    let four = subgroupBroadcast(values, 6u) + subgroupBroadcast(values, 7u);
    return (one + two) + (three + four);
}

/// Turns the scores of four queries into weights.
fn soften(scores: mat4x4<f32>, before: Softened) -> Softened {
    let own = max(max(scores[0], scores[1]), max(scores[2], scores[3]));
    let maximum = max(before.state.maximum, highest(own));
    let shrink = exp(before.state.maximum - maximum);
    let weights = mat4x4<f32>(
        exp(scores[0] - maximum), exp(scores[1] - maximum), exp(scores[2] - maximum), exp(scores[3] - maximum),
    );
    let total = before.state.total * shrink + ((weights[0] + weights[1]) + (weights[2] + weights[3]));
    return Softened(weights, Softmax(maximum, shrink, total));
}

/// The same for ROWS queries.
fn soften_half(block: Block, before: Half) -> Half {
    var next = before;
    next.q0 = soften(block.q0, before.q0);
    next.q1 = soften(block.q1, before.q1);
    if ROWS > 8u {
        next.q2 = soften(block.q2, before.q2);
        next.q3 = soften(block.q3, before.q3);
    }
    if ROWS > 16u {
        next.q4 = soften(block.q4, before.q4);
        next.q5 = soften(block.q5, before.q5);
        next.q6 = soften(block.q6, before.q6);
        next.q7 = soften(block.q7, before.q7);
    }
    return next;
}

alias Values = array<f32, 8>;

/// One chunk of the values of eight keys: the lane's channel of each.
fn load_values(row: u32, key: u32, key_end: u32, channel: u32) -> Values {
    let last = key_end - 1u; // stands in for those behind it, which weigh nothing
    let first = row + within(channel);
    return Values(
        f32(values[first + min(key, last) * params.value_width]),
        f32(values[first + min(key + 1u, last) * params.value_width]),
        f32(values[first + min(key + 2u, last) * params.value_width]),
        f32(values[first + min(key + 3u, last) * params.value_width]),
        f32(values[first + min(key + 4u, last) * params.value_width]),
        f32(values[first + min(key + 5u, last) * params.value_width]),
        f32(values[first + min(key + 6u, last) * params.value_width]),
        f32(values[first + min(key + 7u, last) * params.value_width]),
    );
}

/// The sums of four queries with the values of eight keys added.
fn add_eight_keys(sums: vec4<f32>, weights: vec4<f32>, own: Values) -> vec4<f32> {
    var next = fma(subgroupBroadcast(weights, 0u), vec4(own[0]), sums);
    next = fma(subgroupBroadcast(weights, 1u), vec4(own[1]), next);
    next = fma(subgroupBroadcast(weights, 2u), vec4(own[2]), next);
    next = fma(subgroupBroadcast(weights, 3u), vec4(own[3]), next);
    next = fma(subgroupBroadcast(weights, 4u), vec4(own[4]), next);
    next = fma(subgroupBroadcast(weights, 5u), vec4(own[5]), next);
    next = fma(subgroupBroadcast(weights, 6u), vec4(own[6]), next);
    return fma(subgroupBroadcast(weights, 7u), vec4(own[7]), next);
}

/// The sums of four queries, shrunk, with the values of all keys of the block added.
fn add_keys(sums: vec4<f32>, soft: Softened, v0: Values, v1: Values, v2: Values, v3: Values) -> vec4<f32> {
    var next = add_eight_keys(sums * soft.state.shrink, soft.weights[0], v0);
    next = add_eight_keys(next, soft.weights[1], v1);
    next = add_eight_keys(next, soft.weights[2], v2);
    return add_eight_keys(next, soft.weights[3], v3);
}

/// The same for ROWS queries.
fn add_values(sums: Rows, half: Half, v0: Values, v1: Values, v2: Values, v3: Values) -> Rows {
    var next = sums;
    next.q0 = add_keys(sums.q0, half.q0, v0, v1, v2, v3);
    next.q1 = add_keys(sums.q1, half.q1, v0, v1, v2, v3);
    if ROWS > 8u {
        next.q2 = add_keys(sums.q2, half.q2, v0, v1, v2, v3);
        next.q3 = add_keys(sums.q3, half.q3, v0, v1, v2, v3);
    }
    if ROWS > 16u {
        next.q4 = add_keys(sums.q4, half.q4, v0, v1, v2, v3);
        next.q5 = add_keys(sums.q5, half.q5, v0, v1, v2, v3);
        next.q6 = add_keys(sums.q6, half.q6, v0, v1, v2, v3);
        next.q7 = add_keys(sums.q7, half.q7, v0, v1, v2, v3);
    }
    return next;
}

/// Stores one channel of four queries.
fn store_four(base: u32, query: u32, channel: u32, sums: vec4<f32>, soft: Softened) {
    let width = params.heads * HEAD_SIZE;
    let values = sums / sum_of_lanes(soft.state.total);
    for (var row = 0u; row < 4u; row += 1u) {
        if query + row < params.query_count && channel < HEAD_SIZE {
            output[base + (query + row) * width + channel] = Element(values[row]);
        }
    }
}

/// Stores one channel of ROWS queries.
fn store_half(base: u32, query: u32, channel: u32, sums: Rows, half: Half) {
    store_four(base, query, channel, sums.q0, half.q0);
    store_four(base, query + 4u, channel, sums.q1, half.q1);
    if ROWS > 8u {
        store_four(base, query + 8u, channel, sums.q2, half.q2);
        store_four(base, query + 12u, channel, sums.q3, half.q3);
    }
    if ROWS > 16u {
        store_four(base, query + 16u, channel, sums.q4, half.q4);
        store_four(base, query + 20u, channel, sums.q5, half.q5);
        store_four(base, query + 24u, channel, sums.q6, half.q6);
        store_four(base, query + 28u, channel, sums.q7, half.q7);
    }
}

@compute @workgroup_size(8)
fn attention_broadcast(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let upper = workgroup.x * HALVES * ROWS;
    let lower = upper + ROWS;
    let head = workgroup.y * HEAD_SIZE;
    let image = workgroup.z;

    var upper_queries: array<Rows, CHUNKS>;
    var lower_queries: array<Rows, CHUNKS>;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        upper_queries[chunk] = load_rows(image, upper, head, chunk * LANES + lane);
        if HALVES > 1u {
            lower_queries[chunk] = load_rows(image, lower, head, chunk * LANES + lane);
        }
    }
    let key_base = image * params.key_count * params.key_width + params.first_key + head;
    let value_base = image * params.key_count * params.value_width + params.first_value + head;

    // a causal query sees no key behind itself, so the blocks behind the last query are skipped
    // The broadcast hides from the driver that this is a uniform. Mesa 22.3 compiles a copy of a shader for every dispatch
    // whose loops end at one, and keeps it: counted, 709 shaders and 3.4 GiB for ten small pictures instead of 73 and 0.36.
    var key_end = subgroupBroadcast(params.key_count, 0u);
    if CAUSAL {
        key_end = min(key_end, upper + HALVES * ROWS);
    }

    let nothing = Softened(mat4x4<f32>(), Softmax(vec4(LOWEST), vec4(1.0), vec4(0.0)));
    var upper_half = Half(nothing, nothing, nothing, nothing, nothing, nothing, nothing, nothing);
    var lower_half = upper_half;
    var upper_sums: array<Rows, CHUNKS>;
    var lower_sums: array<Rows, CHUNKS>;
    for (var first_key = 0u; first_key < key_end; first_key += KEYS) {
        // scores: a product of queries and keys over the channels
        let key = first_key + lane;
        let own_keys = vec4(key) + vec4(0u, LANES, 2u * LANES, 3u * LANES);
        let key_rows = key_base + min(own_keys, vec4(key_end - 1u)) * params.key_width;
        var upper_scores = start_block(upper, key, key_end);
        var lower_scores = start_block(lower, key, key_end);
        for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
            let own = load_keys(key_rows, chunk * LANES);
            upper_scores = multiply(upper_scores, upper_queries[chunk], own, 4u);
            if HALVES > 1u {
                lower_scores = multiply(lower_scores, lower_queries[chunk], own, 4u);
            }
        }

        // weights, relative to a maximum that may have risen
        upper_half = soften_half(upper_scores, upper_half);
        if HALVES > 1u {
            lower_half = soften_half(lower_scores, lower_half);
        }

        // sums: a product of weights and values over the keys
        for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
            let channel = chunk * LANES + lane;
            let v0 = load_values(value_base, first_key, key_end, channel);
            let v1 = load_values(value_base, first_key + LANES, key_end, channel);
            let v2 = load_values(value_base, first_key + 2u * LANES, key_end, channel);
            let v3 = load_values(value_base, first_key + 3u * LANES, key_end, channel);
            upper_sums[chunk] = add_values(upper_sums[chunk], upper_half, v0, v1, v2, v3);
            if HALVES > 1u {
                lower_sums[chunk] = add_values(lower_sums[chunk], lower_half, v0, v1, v2, v3);
            }
        }
    }

    let base = image * params.query_count * params.heads * HEAD_SIZE + head;
    for (var chunk = 0u; chunk < CHUNKS; chunk += 1u) {
        let channel = chunk * LANES + lane;
        store_half(base, upper, channel, upper_sums[chunk], upper_half);
        if HALVES > 1u {
            store_half(base, lower, channel, lower_sums[chunk], lower_half);
        }
    }
}
