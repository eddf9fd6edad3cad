//! Where values lie along an axis, and which of them are written beside it.

/// An axis from its lower to its upper end.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    lower: f64,
    upper: f64,
    logarithmic: bool,
    /// Values with a grid line and their text.
    pub(super) ticks: Vec<(f64, String)>,
    /// Values with a short stroke only: between the powers of ten.
    pub(super) small_ticks: Vec<f64>,
}

/// Values that are never shown nearer than this to an end, as a share of the axis, unless the ends are given.
const MARGIN: f64 = 0.03;
/// Values that an axis is to have, at least and about.
const TICKS: f64 = 4.5;

impl Axis {
    /// An axis that shows all values, or exactly the range from `ends.0` to `ends.1`.
    ///
    /// The words say what is wrong: values that a logarithm does not have, or no values at all.
    pub(super) fn new(
        values: impl Iterator<Item = f64> + Clone,
        logarithmic: bool,
        ends: Option<(f64, f64)>,
    ) -> Result<Self, String> {
        let finite = values.filter(|value| value.is_finite());
        let known = |(lower, upper): (f64, f64)| lower.is_finite() && upper.is_finite() && lower < upper;
        let (least, greatest) = match ends {
            Some(ends) if known(ends) => ends,
            Some((lower, upper)) => return Err(format!("has a range from {lower} to {upper}")),
            None => finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, greatest), value| {
                (least.min(value), greatest.max(value))
            }),
        };
        if least > greatest {
            return Err("has no values".to_owned());
        }
        if logarithmic && least <= 0.0 {
            return Err(format!("is logarithmic and has the value {least}"));
        }
        let transformed = |value: f64| if logarithmic { value.log10() } else { value };
        let (mut lower, mut upper) = (transformed(least), transformed(greatest));
        if ends.is_none() {
            let width = if upper > lower { upper - lower } else { (lower.abs() * 0.1).max(1e-3) };
            (lower, upper) = (lower - MARGIN * width, upper + MARGIN * width);
            if !logarithmic && least >= 0.0 {
                lower = lower.max(0.0); // no negative times and shares
            }
        }
        let ticks = if logarithmic { decades(lower, upper) } else { even(lower, upper) };
        let small_ticks = if logarithmic { between_decades(lower, upper) } else { Vec::new() };
        Ok(Self { lower, upper, logarithmic, ticks, small_ticks })
    }

    /// Where a value lies: 0 at the lower end, 1 at the upper.
    pub(super) fn share(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        (value - self.lower) / (self.upper - self.lower)
    }
}

/// Round values between two ends, with the decimals that their distance needs.
pub(super) fn even(lower: f64, upper: f64) -> Vec<(f64, String)> {
    let widest = (upper - lower) / TICKS;
    let power = 10.0_f64.powf(widest.log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step <= widest).unwrap_or(power);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    // a hair of room at the ends, or rounding would lose the ticks there
    let (first, last) = ((lower / step - 1e-9).ceil() as i64, (upper / step + 1e-9).floor() as i64);
    (first..=last)
        .map(|number| {
            let value = number as f64 * step;
            (value, written(value, decimals))
        })
        .collect()
}

/// Powers of ten between two exponents; with 2 and 5 times them, or evenly spaced values, where there are few.
fn decades(lower: f64, upper: f64) -> Vec<(f64, String)> {
    let factors: &[f64] = match upper - lower {
        decades if decades < 0.7 => return even(10.0_f64.powf(lower), 10.0_f64.powf(upper)),
        decades if decades < 2.5 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let (first, last) = (lower.floor() as i32, upper.ceil() as i32);
    let values = (first..=last).flat_map(|exponent| factors.iter().map(move |factor| (*factor, exponent)));
    let shown = values.filter(|(factor, exponent)| {
        let place = factor.log10() + f64::from(*exponent);
        (lower - 1e-9..=upper + 1e-9).contains(&place)
    });
    shown.map(|(factor, exponent)| (factor * 10.0_f64.powi(exponent), scientific(factor, exponent))).collect()
}

/// All multiples of powers of ten between two exponents.
fn between_decades(lower: f64, upper: f64) -> Vec<f64> {
    let exponents = lower.floor() as i32..=upper.ceil() as i32;
    let values =
        exponents.flat_map(|exponent| (1..10).map(move |factor| f64::from(factor) * 10.0_f64.powi(exponent)));
    values.filter(|value| (lower..=upper).contains(&value.log10())).collect()
}

/// A number as it is written in a text: 0.002, 50, 2×10⁻⁷.
fn scientific(factor: f64, exponent: i32) -> String {
    if (-4..=5).contains(&exponent) {
        return written(factor * 10.0_f64.powi(exponent), usize::try_from(-exponent).unwrap_or(0));
    }
    let raised: String = exponent
        .to_string()
        .chars()
        .map(|digit| match digit.to_digit(10) {
            Some(1) => '¹',
            Some(2) => '²',
            Some(3) => '³',
            Some(digit) => char::from_u32('⁰' as u32 + digit).unwrap_or('⁰'),
            None => '⁻',
        })
        .collect();
    if factor == 1.0 { format!("10{raised}") } else { format!("{factor}×10{raised}") }
}

/// A number with decimals and a true minus sign; there is no minus zero.
fn written(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let zero = text.chars().all(|digit| matches!(digit, '0' | '.'));
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_written_with_the_decimals_they_need() {
        for (ends, expected) in [
            ((0.0, 50.0), "0 10 20 30 40 50"),
            ((0.77, 1.01), "0.80 0.85 0.90 0.95 1.00"),
            ((-1.0, 1.2), "−1.0 −0.8 −0.6 −0.4 −0.2 0.0 0.2 0.4 0.6 0.8 1.0 1.2"),
            ((1000.0, 1500.0), "1000 1100 1200 1300 1400 1500"),
        ] {
            let axis = Axis::new([].into_iter(), false, Some(ends)).unwrap();
            assert_eq!(texts(&axis).join(" "), expected);
        }
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_or_few_multiples() {
        for (ends, expected) in [
            ((1e-7, 1e7), "10⁻⁷ 10⁻⁶ 10⁻⁵ 0.0001 0.001 0.01 0.1 1 10 100 1000 10000 100000 10⁶ 10⁷"),
            ((2.0, 20.0), "2 5 10 20"),
            ((1e-8, 1e-7), "10⁻⁸ 2×10⁻⁸ 5×10⁻⁸ 10⁻⁷"),
            ((2.0, 5.0), "2.0 2.5 3.0 3.5 4.0 4.5 5.0"),
        ] {
            let axis = Axis::new([].into_iter(), true, Some(ends)).unwrap();
            assert_eq!(texts(&axis).join(" "), expected);
        }
    }

    #[test]
    fn all_values_lie_within_an_axis() {
        for (values, logarithmic) in [
            (vec![3.0, -7.5, f64::NAN, 12.0, f64::INFINITY], false),
            (vec![0.25], false),
            (vec![0.0, 0.0], false),
            (vec![1e-9, 3e4], true),
            (vec![5.0], true),
        ] {
            let axis = Axis::new(values.iter().copied(), logarithmic, None).unwrap();
            for value in values.iter().filter(|value| value.is_finite()) {
                let share = axis.share(*value);
                assert!((0.0..=1.0).contains(&share), "{value} of {values:?} lies at {share}");
            }
            assert!(
                axis.ticks.iter().all(|(value, _)| (-1e-6..=1.000_001).contains(&axis.share(*value))),
                "{axis:?}"
            );
            assert!(axis.ticks.len() >= 2, "{axis:?}");
        }
        let axis = Axis::new([1.0, 100.0].into_iter(), true, None).unwrap();
        assert!((axis.share(10.0) - 0.5).abs() < 1e-12, "the middle of a logarithmic axis");
    }

    #[test]
    fn impossible_axes_are_errors() {
        let new = |values: &[f64], logarithmic, ends| {
            Axis::new(values.iter().copied(), logarithmic, ends).unwrap_err()
        };
        assert_eq!(new(&[], false, None), "has no values");
        assert_eq!(new(&[f64::NAN], false, None), "has no values");
        assert_eq!(new(&[0.0, 1.0], true, None), "is logarithmic and has the value 0");
        assert_eq!(new(&[1.0], false, Some((2.0, 2.0))), "has a range from 2 to 2");
    }
}
