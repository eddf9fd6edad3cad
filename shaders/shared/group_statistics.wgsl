//! group_statistics: merges the moments of a group's tiles, in their order.
//!
//! The file that uses it binds `moments` and has `groups`, `tiles` and `epsilon` in its `params`.

/// Mean, and one over the standard deviation, of one group of one image.
fn statistics(image: u32, group: u32) -> vec2<f32> {
    let first = 3u * (image * params.groups + group) * params.tiles;
    var count = 0.0;
    var sum = 0.0;
    for (var tile = 0u; tile < params.tiles; tile += 1u) {
        count += moments[first + 3u * tile];
        sum += moments[first + 3u * tile] * moments[first + 3u * tile + 1u];
    }
    let mean = sum / count;
    var squares = 0.0;
    for (var tile = 0u; tile < params.tiles; tile += 1u) {
        let delta = moments[first + 3u * tile + 1u] - mean;
        squares += moments[first + 3u * tile + 2u] + moments[first + 3u * tile] * delta * delta;
    }
    return vec2(mean, inverseSqrt(squares / count + params.epsilon));
}
