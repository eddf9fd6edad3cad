//! moments: running mean and sum of squared deviations (Welford 1962), merged pairwise (Chan et al. 1979).

struct Moments {
    count: f32,
    mean: f32,
    squares: f32,
}

fn observe(moments: Moments, value: f32) -> Moments {
    let count = moments.count + 1.0;
    let delta = value - moments.mean;
    let mean = moments.mean + delta / count;
    return Moments(count, mean, moments.squares + delta * (value - mean));
}

fn merge(a: Moments, b: Moments) -> Moments {
    let count = a.count + b.count;
    if count == 0.0 {
        return a;
    }
    let delta = b.mean - a.mean;
    let share = b.count / count;
    return Moments(count, a.mean + delta * share, a.squares + b.squares + delta * delta * a.count * share);
}
