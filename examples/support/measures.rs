//! How near two pictures are, and how sure a mean over prompts is.

use deepcache::image::Picture;
use deepcache::{Error, Result};

/// Width of SSIM's window in pixels.
const WINDOW: usize = 11;
/// Standard deviation of SSIM's window in pixels.
const SIGMA: f64 = 1.5;
/// SSIM's constants (0.01 L)² and (0.03 L)² for the value range L = 255; they keep flat places from dividing by zero.
const STABILISERS: [f64; 2] = [2.55 * 2.55, 7.65 * 7.65];
/// Resamples of a bootstrap: enough that the ends of a 95 % interval are sure to a few hundredths of its width.
const RESAMPLES: usize = 10_000;
/// The two-sided 95 % point of the normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Peak signal-to-noise ratio in dB, over all pixels and channels, peak 255; infinite for equal pictures.
///
/// # Errors
/// [`Error::Option`] if the sizes differ.
pub(crate) fn psnr(first: &Picture, second: &Picture) -> Result<f64> {
    same_size(first, second)?;
    let squares: u64 = first
        .pixels
        .iter()
        .zip(&second.pixels)
        .map(|(a, b)| u64::from(a.abs_diff(*b)) * u64::from(a.abs_diff(*b)))
        .sum();
    let error = squares as f64 / first.pixels.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / error).log10())
}

/// Structural similarity, 1 for equal pictures: the mean over R, G and B of the channels' own values.
///
/// Wang, Bovik, Sheikh & Simoncelli 2004, *Image quality assessment: from error visibility to structural similarity*,
/// <https://doi.org/10.1109/TIP.2003.819861>, with their Gaussian window of 11x11 pixels (standard deviation 1.5,
/// weights that sum to one), K1 = 0.01, K2 = 0.03 and the population's covariances.
///
/// Only windows that lie wholly in the picture count. scikit-image's `structural_similarity` with
/// `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1` agrees: it filters
/// with mirrored edges, but then takes the mean of the map without a border of five pixels, which no mirrored
/// value has reached.
///
/// # Errors
/// [`Error::Option`] if the sizes differ or a side is shorter than the window.
pub(crate) fn ssim(first: &Picture, second: &Picture) -> Result<f64> {
    same_size(first, second)?;
    let (width, height) = (first.width as usize, first.height as usize);
    if width < WINDOW || height < WINDOW {
        let problem = format!("{width}x{height} is smaller than SSIM's window, {WINDOW}x{WINDOW}");
        return Err(Error::option("picture", problem));
    }
    let channels = (0..3).map(|channel| {
        let plane = |picture: &Picture| -> Vec<f64> {
            picture.pixels.iter().skip(channel).step_by(3).map(|value| f64::from(*value)).collect()
        };
        ssim_of_channel(&plane(first), &plane(second), width)
    });
    Ok(channels.sum::<f64>() / 3.0)
}

fn ssim_of_channel(first: &[f64], second: &[f64], width: usize) -> f64 {
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let means = [first, second].map(|plane| smooth(plane, width));
    let squares = [first, second].map(|plane| smooth(&product(plane, plane), width));
    let products = smooth(&product(first, second), width);
    let values = (0..products.len()).map(|pixel| {
        let [a, b] = [means[0][pixel], means[1][pixel]];
        let variances = squares[0][pixel] - a * a + squares[1][pixel] - b * b;
        let covariance = products[pixel] - a * b;
        (2.0 * a * b + STABILISERS[0]) * (2.0 * covariance + STABILISERS[1])
            / ((a * a + b * b + STABILISERS[0]) * (variances + STABILISERS[1]))
    });
    values.sum::<f64>() / products.len() as f64
}

/// A plane under the Gaussian window, where the window fits: ten columns and ten rows fewer.
fn smooth(plane: &[f64], width: usize) -> Vec<f64> {
    let middle = (WINDOW / 2) as f64;
    let mut weights: [f64; WINDOW] =
        std::array::from_fn(|place| (-(place as f64 - middle).powi(2) / (2.0 * SIGMA * SIGMA)).exp());
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= sum);

    let rows: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| row.windows(WINDOW))
        .map(|window| window.iter().zip(&weights).map(|(value, weight)| value * weight).sum())
        .collect();
    let width = width + 1 - WINDOW;
    (0..rows.len() - (WINDOW - 1) * width)
        .map(|start| (0..WINDOW).map(|row| rows[start + row * width] * weights[row]).sum())
        .collect()
}

fn same_size(first: &Picture, second: &Picture) -> Result<()> {
    let size = |picture: &Picture| format!("{}x{}", picture.width, picture.height);
    if (first.width, first.height) != (second.width, second.height) {
        let problem = format!("sizes differ: {} and {}", size(first), size(second));
        return Err(Error::option("picture", problem));
    }
    for picture in [first, second] {
        if picture.pixels.len() != picture.width as usize * picture.height as usize * 3 {
            let problem = format!("{} bytes do not fill {}", picture.pixels.len(), size(picture));
            return Err(Error::option("picture", problem));
        }
    }
    Ok(())
}

/// The arithmetic mean; NaN of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The standard deviation of the population that the values are a sample of (`n - 1` below the sum); NaN of fewer than two.
pub(crate) fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

/// An estimate and the ends of its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    /// The estimate itself.
    pub(crate) estimate: f64,
    /// The lower end.
    pub(crate) lower: f64,
    /// The upper end.
    pub(crate) upper: f64,
}

/// The median, and between which values the middle half lies: for times, whose outliers come from other programs.
///
/// Between two values it goes on a line, as `numpy.quantile` does. There has to be a value.
pub(crate) fn quartiles(values: &[f64]) -> Interval {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let [estimate, lower, upper] = [0.5, 0.25, 0.75].map(|share| quantile(&sorted, share));
    Interval { estimate, lower, upper }
}

/// The mean with its 95 % confidence interval: the bootstrap's percentiles.
///
/// The same values and seed give the same interval on every machine. The values have to be finite: leave infinite PSNRs of
/// equal pictures out, or the interval is not a number.
///
/// Efron 1979, *Bootstrap methods: another look at the jackknife*, <https://doi.org/10.1214/aos/1176344552>.
pub(crate) fn bootstrap(values: &[f64], seed: u64) -> Interval {
    let mut numbers = Numbers(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = values.iter().map(|_| values[numbers.below(values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Interval { estimate: mean(values), lower: quantile(&means, 0.025), upper: quantile(&means, 0.975) }
}

/// The mean of `first - second`, prompt by prompt, with its 95 % confidence interval.
///
/// Prompts differ more than methods do. Drawing prompts, not values, keeps the two results of a prompt together, and their
/// common part cancels: the difference is far surer than the two means are. Zero outside the interval means that the
/// methods differ.
///
/// # Errors
/// [`Error::Option`] if the numbers of values differ.
pub(crate) fn paired_bootstrap(first: &[f64], second: &[f64], seed: u64) -> Result<Interval> {
    if first.len() != second.len() {
        let problem = format!("one method has {} and the other {}", first.len(), second.len());
        return Err(Error::option("paired values", problem));
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| first - second).collect();
    Ok(bootstrap(&differences, seed))
}

/// The share of pictures that are right, with its 95 % confidence interval: Wilson's, since a bootstrap of 64 right ones out
/// of 64 would claim to be certain.
///
/// Wilson 1927, *Probable inference, the law of succession, and statistical inference*, <https://doi.org/10.2307/2276774>.
pub(crate) fn share(right: usize, of: usize) -> Interval {
    let (share, count, square) = (right as f64 / of as f64, of as f64, NORMAL_95 * NORMAL_95);
    let middle = (share + square / (2.0 * count)) / (1.0 + square / count);
    let half = NORMAL_95 / (1.0 + square / count)
        * (share * (1.0 - share) / count + square / (4.0 * count * count)).sqrt();
    Interval { estimate: share, lower: (middle - half).max(0.0), upper: (middle + half).min(1.0) }
}

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    /// Times, errors.
    Lower,
    /// Scores.
    Higher,
}

/// The points that no other point beats in both values, by their number, in the order of their first value.
///
/// Of equal points the first counts. Points that are not numbers are never in front.
pub(crate) fn pareto_front(points: &[(f64, f64)], better: (Better, Better)) -> Vec<usize> {
    let cost = |value: f64, better: Better| if better == Better::Lower { value } else { -value };
    let costs: Vec<(f64, f64)> =
        points.iter().map(|(x, y)| (cost(*x, better.0), cost(*y, better.1))).collect();
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.retain(|point| !costs[*point].0.is_nan() && !costs[*point].1.is_nan());
    order.sort_by(|a, b| costs[*a].0.total_cmp(&costs[*b].0).then(costs[*a].1.total_cmp(&costs[*b].1)));
    let mut best = f64::INFINITY;
    order.retain(|point| {
        let unbeaten = costs[*point].1 < best;
        best = best.min(costs[*point].1);
        unbeaten
    });
    order.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0));
    order
}

/// The value below which a share of sorted values lies, between two of them by a straight line.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() as f64 - 1.0);
    #[expect(clippy::cast_possible_truncation, reason = "a place in the list")]
    let before = place as usize;
    let after = (before + 1).min(sorted.len() - 1);
    sorted[before] + (sorted[after] - sorted[before]) * place.fract()
}

/// `SplitMix64`, of which one number decides the whole sequence.
///
/// Steele, Lea & Flood 2014, *Fast splittable pseudorandom number generators*, <https://doi.org/10.1145/2660193.2660195>.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        value ^ (value >> 31)
    }

    /// A number below `limit`, each equally likely but for one part in 2⁵⁰.
    fn below(&mut self, limit: usize) -> usize {
        let wide = u128::from(self.next()) * limit as u128;
        #[expect(clippy::cast_possible_truncation, reason = "it is below the limit")]
        let number = (wide >> 64) as usize;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_other_programs() {
        // the first ones of the seed 1234567 in widely used implementations
        let mut numbers = Numbers(1_234_567);
        let found = [numbers.next(), numbers.next(), numbers.next()];
        assert_eq!(found, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
        let mut seen = [0; 7];
        for _ in 0..7000 {
            seen[numbers.below(7)] += 1;
        }
        assert!(seen.iter().all(|count| (880..1120).contains(count)), "{seen:?}");
    }
}
