//! Quantiles of the symmetric beta distribution, the inverse of the regularised incomplete beta function.
//!
//! Written out instead of taken from a crate: with both parameters equal the distribution is symmetric, so its lower
//! half alone has to be known, its constant follows from half of it lying below 1/2, and one power series converges
//! there by a factor of two per term.
//! A crate for statistics would bring gamma functions and distributions that nothing here needs.
//!
//! DLMF, <https://dlmf.nist.gov/8.17>, equations 8.17.7 (the series) and 8.17.4 (the symmetry).

/// The point that a share of the distribution with both parameters `shape` lies below.
/// Shares below 0 and above 1 are taken as 0 and 1.
pub(super) fn symmetric_beta_quantile(share: f64, shape: f64) -> f64 {
    if share > 0.5 {
        return 1.0 - lower_half(1.0 - share, shape);
    }
    lower_half(share, shape)
}

/// The quantile of a share of at most one half, by bisection: the distribution grows with the point.
fn lower_half(share: f64, shape: f64) -> f64 {
    if share <= 0.0 {
        return 0.0;
    }
    let target = 2.0 * share * below(0.5, shape);
    // Bisected in the exponent first, because quantiles of small shares are very small.
    let (mut low, mut high) = (0.0, 0.5);
    while below(high * 0.5, shape) > target {
        high *= 0.5;
    }
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if below(middle, shape) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
}

/// The incomplete beta function of a point of at most one half: the integral of `(t (1 - t))^(shape - 1)` up to it.
fn below(point: f64, shape: f64) -> f64 {
    let (mut term, mut sum, mut index) = (1.0, 1.0 / shape, 0.0);
    loop {
        index += 1.0;
        term *= point * (index - shape) / index;
        let next = sum + term / (shape + index);
        if next == sum {
            return point.powf(shape) * sum;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::symmetric_beta_quantile;

    #[test]
    fn quantiles_are_those_of_scipy() {
        // scipy.stats.beta.ppf(share, 0.6, 0.6), scipy 1.17
        for (share, expected) in EXPECTED {
            let found = symmetric_beta_quantile(share, 0.6);
            let apart = (found - expected).abs();
            assert!(apart <= 1e-12 * expected, "{share}: {found}, scipy {expected}, apart {apart:.1e}");
        }
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(symmetric_beta_quantile(0.0, 0.6), 0.0);
        assert_eq!(symmetric_beta_quantile(1.0, 0.6), 1.0);
        assert_eq!(symmetric_beta_quantile(-1.0, 0.6), 0.0);
        assert_eq!(symmetric_beta_quantile(f64::MIN_POSITIVE, 0.6), 0.0);
    }

    #[test]
    fn the_arcsine_distribution_has_a_closed_form() {
        for step in 1..1000 {
            let share = f64::from(step) / 1000.0;
            let expected = (std::f64::consts::FRAC_PI_2 * share).sin().powi(2);
            let found = symmetric_beta_quantile(share, 0.5);
            assert!((found - expected).abs() < 1e-14, "{share}: {found}, expected {expected}");
        }
    }

    const EXPECTED: [(f64, f64); 16] = [
        (1e-6, 1.8558824624053043e-10),
        (0.001, 1.855873851745199e-5),
        (0.01, 0.0008612388215429059),
        (1.0 / 19.0, 0.013671081564469266),
        (0.1, 0.03958440558878085),
        (0.25, 0.17568037865269498),
        (1.0 / 3.0, 0.2754132907776234),
        (0.49, 0.4861289142781599),
        (0.5, 0.5),
        (0.51, 0.51387108572184),
        (2.0 / 3.0, 0.7245867092223766),
        (0.75, 0.824319621347305),
        (0.9, 0.9604155944112192),
        (18.0 / 19.0, 0.9863289184355307),
        (0.99, 0.9991387611784571),
        (0.999, 0.9999814412614826),
    ];
}
