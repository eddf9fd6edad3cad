//! Which U-Net calls are full and which are shallow.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// What is taken off the power where it leads to no schedule, again and again.
const POWER_STEP: f64 = 0.02;

/// The centre of the published Stable Diffusion runs, 15 of 50 calls, as a share of the calls.
const USUAL_CENTER: f64 = 0.3;

/// The power of the published Stable Diffusion demo.
const USUAL_POWER: f64 = 1.4;

/// The power of the released latent diffusion code.
const USUAL_QUADRATIC_POWER: f64 = 1.5;

/// Powers beyond this are taken for a mistake.
const LARGEST_POWER: f64 = 100.0;

/// Which calls of a run are computed in full.
///
/// Calls of the U-Net are counted from 0, not timesteps: where a sampler visits a timestep twice, as PNDM and Heun
/// do, the second visit is a call like any other. The count starts anew with every picture, so that its first call
/// is always full.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CacheSchedule {
    /// Every `interval`-th call is full, from the first on: "1:N" of the paper
    /// (<https://arxiv.org/abs/2312.00858>, section 3.2). With an interval of 1 every call is full and nothing is
    /// reused.
    Uniform {
        /// Calls from one full call to the next, at least 1.
        interval: usize,
    },
    /// As many full calls as with a uniform interval, denser around a centre: the non-uniform 1:N of the paper
    /// (section 3.3 and appendix), `sample_from_quad_center` of its Stable Diffusion and DDPM code.
    ///
    /// Exactly that code's formula, in which the root of a negative number is complex. Where the power leads to
    /// another number of calls it is lowered in steps of 0.02; some settings have no schedule, which is an error
    /// here as it is there.
    Centered {
        /// One full call per so many calls, at least 2.
        interval: usize,
        /// The call around which full calls are densest, below the number of calls; 0.3 of them if `None`, as in
        /// the published runs (15 of 50).
        center: Option<usize>,
        /// How much denser: above 1, usually 1.1 to 1.6; 1.4 if `None`.
        power: Option<f64>,
    },
    /// Denser at the start: `sample_from_quad` of the paper's released latent diffusion code. May have fewer full
    /// calls than the interval says, as it has there.
    Quadratic {
        /// One full call per so many calls, at least 1.
        interval: usize,
        /// How much denser, at least 1; 1.5 if `None`.
        power: Option<f64>,
    },
    /// Exactly these calls are full, counted from 0 and in ascending order; call 0 must be one of them. Those
    /// beyond the end of a run are without effect.
    List(Vec<usize>),
    /// Decided while the run goes on: a call is full where what enters the cut is expected to have drifted by more
    /// than this since the last full call, as a relative L2 distance. See [`Refresh`](super::Refresh).
    Threshold {
        /// The largest drift, above 0; 0.1 to 0.5 are usual.
        threshold: f64,
    },
}

impl CacheSchedule {
    /// Reads the name of a schedule with its parameters: `uniform`, `centered`, `centered:CENTER`,
    /// `centered:CENTER,POWER`, `quadratic`, `quadratic:POWER` or `list:0,5,9`. All but the list need an interval.
    ///
    /// # Errors
    /// [`Error::Option`] saying what was expected.
    pub fn parse(text: &str, interval: Option<usize>) -> Result<Self> {
        let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
        let parameters: Vec<&str> = parameters.split(',').filter(|part| !part.is_empty()).collect();
        let refuse = |expected: &str| {
            Err(Error::option("cache schedule", format!("expected {expected}, found \"{text}\"")))
        };
        let needed = || {
            interval.ok_or_else(|| {
                Error::option("cache schedule", format!("{name} needs a cache interval beside it"))
            })
        };
        match (name, &parameters[..]) {
            ("uniform", []) => Ok(Self::Uniform { interval: needed()? }),
            ("centered", []) => Ok(Self::Centered { interval: needed()?, center: None, power: None }),
            ("centered", [center, power @ ..]) if power.len() < 2 => {
                let power = power.first().map(|power| power.parse()).transpose();
                match (center.parse(), power) {
                    (Ok(center), Ok(power)) => {
                        Ok(Self::Centered { interval: needed()?, center: Some(center), power })
                    }
                    _ => refuse("centered:CENTER,POWER with a whole number and a number"),
                }
            }
            ("quadratic", []) => Ok(Self::Quadratic { interval: needed()?, power: None }),
            ("quadratic", [power]) => match power.parse() {
                Ok(power) => Ok(Self::Quadratic { interval: needed()?, power: Some(power) }),
                Err(_) => refuse("quadratic:POWER with a number"),
            },
            ("list", []) => refuse("list:0,… with the numbers of the full calls"),
            ("list", calls) => {
                let calls: Vec<usize> = match calls.iter().map(|call| call.parse()).collect() {
                    Ok(calls) => calls,
                    Err(_) => return refuse("list:0,… with the numbers of the full calls"),
                };
                check_list(&calls)?;
                Ok(Self::List(calls))
            }
            _ => refuse("uniform, centered[:CENTER[,POWER]], quadratic[:POWER] or list:0,…"),
        }
    }

    /// Whether each of a run's `calls` U-Net calls is full, one entry per call, the first always true; `None`
    /// where that is decided while the run goes on.
    ///
    /// # Errors
    /// [`Error::Option`] if a parameter is out of range, a list is not ascending from 0, or there is no schedule
    /// with these parameters.
    pub fn full_calls(&self, calls: usize) -> Result<Option<Vec<bool>>> {
        let full = match self {
            Self::List(full) => {
                check_list(full)?;
                if let Some(last) = full.last().filter(|last| **last >= calls.max(1)) {
                    let problem =
                        format!("list: call {last} is beyond the run's {calls} calls, which count from 0");
                    return Err(Error::option("cache schedule", problem));
                }
                full.clone()
            }
            Self::Uniform { interval: 0 } | Self::Quadratic { interval: 0, .. } => {
                return Err(Error::option(
                    "cache interval",
                    "expected 1 (every call in full) or more, found 0",
                ));
            }
            Self::Uniform { interval } => (0..calls).step_by(*interval).collect(),
            Self::Centered { interval, center, power } => centered(calls, *interval, *center, *power)?,
            Self::Quadratic { interval, power } => quadratic(calls, *interval, *power)?,
            Self::Threshold { threshold } => {
                if threshold.is_nan() || *threshold <= 0.0 {
                    let problem = format!("expected a number above 0, found {threshold}");
                    return Err(Error::option("cache threshold", problem));
                }
                return Ok(None);
            }
        };
        Ok(Some((0..calls).map(|call| full.binary_search(&call).is_ok()).collect()))
    }
}

fn check_list(full: &[usize]) -> Result<()> {
    if full.first() == Some(&0) && full.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let problem = format!("expected full calls in ascending order from 0 on, found {full:?}");
    Err(Error::option("cache schedule", problem))
}

fn check_power(power: f64, least: f64) -> Result<()> {
    if (least..=LARGEST_POWER).contains(&power) {
        return Ok(());
    }
    let problem = format!("expected a power from {least} to {LARGEST_POWER}, found {power}");
    Err(Error::option("cache schedule", problem))
}

/// The paper's `sample_from_quad_center(calls, ceil(calls / interval), center, power)`.
fn centered(calls: usize, interval: usize, center: Option<usize>, power: Option<f64>) -> Result<Vec<usize>> {
    if interval < 2 {
        let problem = format!("a centered schedule needs at least 2, found {interval}");
        return Err(Error::option("cache interval", problem));
    }
    let usual = real(calls) * USUAL_CENTER;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the calls")]
    let center = center.unwrap_or_else(|| usual.round() as usize);
    if center >= calls {
        let problem = format!("expected a center below the run's {calls} calls, found {center}");
        return Err(Error::option("cache schedule", problem));
    }
    let wanted = power.unwrap_or(USUAL_POWER);
    check_power(wanted, 1.0)?;
    let count = calls.div_ceil(interval);
    let mut power = wanted;
    while power > 1.0 {
        let full = centered_with(calls, count, center, power);
        if full.len() == count {
            return Ok(full);
        }
        power -= POWER_STEP;
    }
    let problem = format!(
        "there is no centered schedule of {count} full calls of {calls} with center {center} and power {wanted}: \
         try another center (0 is none), a larger power or another interval"
    );
    Err(Error::option("cache schedule", problem))
}

/// Points on a straight line in the complex plane between the roots of both ends, back to the power, real parts
/// cut off towards zero; the rounding is that of the published code.
fn centered_with(calls: usize, count: usize, center: usize, power: f64) -> Vec<usize> {
    let root = 1.0 / power;
    let length = real(center).powf(root);
    // The principal root of a negative number, whose angle is pi.
    let first = [length * (PI * root).cos(), length * (PI * root).sin()];
    let first = if center == 0 { [0.0, 0.0] } else { first };
    let last = [real(calls - center).powf(root), 0.0];
    let share = 1.0 / real(count);
    let step = if center == 0 {
        [last[0] / real(count), 0.0]
    } else {
        [(last[0] - first[0]) * share, (last[1] - first[1]) * share]
    };
    let point = |index: usize| {
        if index == count { last } else { [0, 1].map(|part| step[part] * real(index) + first[part]) }
    };
    let mut offsets: Vec<i64> = (0..=count).map(|index| truncated(power_of(point(index), power))).collect();
    offsets.sort_unstable();
    offsets.dedup();
    // Without its ends, shifted to the centre, behind call 0.
    let inner = offsets.get(1..offsets.len().saturating_sub(1)).unwrap_or_default();
    let shifted = inner.iter().filter_map(|offset| usize::try_from(offset + whole(center)).ok());
    std::iter::once(0).chain(shifted).collect()
}

/// The real part of the principal power of a complex number.
fn power_of([x, y]: [f64; 2], power: f64) -> f64 {
    if y == 0.0 && x >= 0.0 {
        return x.powf(power);
    }
    #[expect(clippy::float_cmp, reason = "small whole powers are products in the published code")]
    if power == 2.0 {
        return x * x - y * y;
    }
    (power * x.hypot(y).ln()).exp() * (power * y.atan2(x)).cos()
}

/// The latent diffusion code's `sample_from_quad(calls, ceil(calls / interval), power)`.
fn quadratic(calls: usize, interval: usize, power: Option<f64>) -> Result<Vec<usize>> {
    let power = power.unwrap_or(USUAL_QUADRATIC_POWER);
    check_power(power, 1.0)?;
    let count = calls.div_ceil(interval);
    let end = real(calls).powf(1.0 / power);
    let step = end / real(count);
    let point = |index: usize| if index == count { end } else { step * real(index) };
    let mut full: Vec<usize> =
        (0..=count).filter_map(|index| usize::try_from(truncated(point(index).powf(power))).ok()).collect();
    full.dedup();
    full.pop();
    Ok(full)
}

fn real(number: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    let real = number as f64;
    real
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_possible_truncation, reason = "truncation is the purpose")]
fn truncated(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(interval: usize, calls: usize) -> Vec<usize> {
        numbers(&CacheSchedule::Uniform { interval }, calls)
    }

    fn numbers(schedule: &CacheSchedule, calls: usize) -> Vec<usize> {
        let full = schedule.full_calls(calls).unwrap().unwrap();
        assert_eq!(full.len(), calls);
        (0..calls).filter(|&call| full[call]).collect()
    }

    #[test]
    fn uniform_calls_are_an_interval_apart() {
        assert_eq!(full(3, 10), [0, 3, 6, 9]);
        assert_eq!(full(5, 5), [0]);
    }

    #[test]
    fn the_published_demo_has_its_full_calls() {
        let demo = CacheSchedule::Centered { interval: 5, center: Some(15), power: Some(1.4) };
        assert_eq!(numbers(&demo, 50), [0, 5, 9, 13, 17, 21, 26, 31, 37, 43]);
        let usual = CacheSchedule::Centered { interval: 5, center: None, power: None };
        assert_eq!(numbers(&usual, 50), numbers(&demo, 50), "the defaults are the demo's");
    }

    #[test]
    fn a_list_says_which_calls_are_full() {
        let schedule = CacheSchedule::List(vec![0, 2]);
        assert_eq!(schedule.full_calls(4).unwrap().unwrap(), [true, false, true, false]);
        for wrong in [vec![], vec![1, 2], vec![0, 3, 3], vec![0, 3, 2], vec![0, 2, 9]] {
            assert!(CacheSchedule::List(wrong).full_calls(4).is_err());
        }
    }

    #[test]
    fn an_interval_of_one_is_always_full() {
        assert_eq!(full(1, 7), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn an_interval_beyond_the_run_leaves_the_first_call_full() {
        assert_eq!(full(usize::MAX, 4), [0]);
    }

    #[test]
    fn the_first_call_of_every_run_is_full() {
        for interval in 1..20 {
            assert_eq!(full(interval, 1), [0]);
            assert_eq!(full(interval, 0), [0; 0]);
            assert_eq!(full(interval, 50).len(), 50_usize.div_ceil(interval));
        }
        for calls in 1..60 {
            for interval in 2..20 {
                let quadratic = CacheSchedule::Quadratic { interval, power: None };
                assert_eq!(numbers(&quadratic, calls)[0], 0, "{calls}, {interval}");
                let centered = CacheSchedule::Centered { interval, center: None, power: None };
                match centered.full_calls(calls) {
                    Ok(full) => {
                        let full = full.unwrap();
                        let count = full.iter().filter(|full| **full).count();
                        assert!(full[0] && count == calls.div_ceil(interval), "{calls}, {interval}");
                    }
                    Err(error) => assert!(matches!(error, Error::Option { .. }), "{error}"),
                }
            }
        }
    }

    #[test]
    fn what_has_no_schedule_is_refused() {
        let refused = |schedule: &CacheSchedule, words: &str| {
            let error = schedule.full_calls(10).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        };
        refused(&CacheSchedule::Uniform { interval: 0 }, "cache interval: expected 1");
        refused(&CacheSchedule::Quadratic { interval: 0, power: None }, "cache interval: expected 1");
        refused(&CacheSchedule::Quadratic { interval: 2, power: Some(0.5) }, "from 1 to 100, found 0.5");
        let centered = |interval, center, power| CacheSchedule::Centered { interval, center, power };
        refused(&centered(1, None, None), "at least 2, found 1");
        refused(&centered(5, Some(15), None), "below the run's 10 calls, found 15");
        refused(&centered(5, None, Some(f64::NAN)), "from 1 to 100, found NaN");
        refused(&centered(2, Some(5), Some(1.2)), "no centered schedule of 5 full calls of 10");
        refused(&CacheSchedule::Threshold { threshold: 0.0 }, "cache threshold: expected a number above 0");
    }

    #[test]
    fn schedules_are_read_from_their_names() {
        let read = |text: &str| CacheSchedule::parse(text, Some(5));
        assert_eq!(read("uniform").unwrap(), CacheSchedule::Uniform { interval: 5 });
        let centered = |center, power| CacheSchedule::Centered { interval: 5, center, power };
        assert_eq!(read("centered").unwrap(), centered(None, None));
        assert_eq!(read("centered:15").unwrap(), centered(Some(15), None));
        assert_eq!(read("centered:15,1.4").unwrap(), centered(Some(15), Some(1.4)));
        let quadratic = CacheSchedule::Quadratic { interval: 5, power: Some(1.2) };
        assert_eq!(read("quadratic:1.2").unwrap(), quadratic);
        assert_eq!(read("list:0,5,9").unwrap(), CacheSchedule::List(vec![0, 5, 9]));
        for wrong in [
            "",
            "quad",
            "uniform:3",
            "centered:x",
            "centered:1,2,3",
            "centered:1,y",
            "quadratic:z",
            "list",
            "list:",
            "list:1,2",
            "list:0,2,2",
            "list:0,x",
            "list:0,-1",
        ] {
            let error = read(wrong).unwrap_err();
            assert!(matches!(&error, Error::Option { option, .. } if option == "cache schedule"), "{error}");
        }
        let error = CacheSchedule::parse("centered", None).unwrap_err();
        assert!(error.to_string().contains("needs a cache interval"), "{error}");
    }
}
