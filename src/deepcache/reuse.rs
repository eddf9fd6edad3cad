//! How the kept feature is used until the next full call.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What stands for the deep feature in a shallow call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// The feature of the last full call as it is: DeepCache.
    #[default]
    Hold,
    /// A straight line through the features of the last two full calls.
    Linear,
    /// A parabola through the features of the last three full calls.
    Quadratic,
}

impl Reuse {
    /// How many features are kept.
    #[must_use]
    pub fn features(self) -> usize {
        match self {
            Self::Hold => 1,
            Self::Linear => 2,
            Self::Quadratic => 3,
        }
    }

    /// Weights of the features of the last full calls, the newest first, that extrapolate to `place` (Lagrange).
    ///
    /// `full` are the places of the full calls so far, the newest first: the numbers of the calls, or any other
    /// coordinate that falls or rises with them. With fewer full calls than this kind wants, the weights are those
    /// of a lower order; features without weight need not exist.
    #[must_use]
    pub fn weights(self, full: &[f64], place: f64) -> [f64; 3] {
        let known = &full[..full.len().min(self.features())];
        let mut weights = [0.0; 3];
        for (index, (weight, own)) in weights.iter_mut().zip(known).enumerate() {
            let others = known.iter().enumerate().filter(|(other, _)| *other != index);
            *weight = others.map(|(_, other)| (place - other) / (own - other)).product();
        }
        weights
    }
}

impl fmt::Display for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold",
            Self::Linear => "linear",
            Self::Quadratic => "quadratic",
        })
    }
}

impl FromStr for Reuse {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "hold" => Ok(Self::Hold),
            "linear" => Ok(Self::Linear),
            "quadratic" => Ok(Self::Quadratic),
            other => {
                let problem = format!("expected hold, linear or quadratic, found \"{other}\"");
                Err(Error::option("cache forecast", problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_the_order_are_continued_exactly() {
        let full = [9.0, 5.0, 2.0, 0.0];
        for (reuse, value) in [
            (Reuse::Hold, (|_| 4.0) as fn(f64) -> f64),
            (Reuse::Linear, |place| 3.0 - 2.0 * place),
            (Reuse::Quadratic, |place| 1.0 + place - 0.5 * place * place),
        ] {
            for place in [9.0, 10.0, 12.5] {
                let weights = reuse.weights(&full, place);
                let found: f64 = weights.iter().zip(full).map(|(weight, at)| weight * value(at)).sum();
                assert!((found - value(place)).abs() < 1e-12, "{reuse} at {place}: {found}");
            }
        }
    }

    #[test]
    fn what_is_not_there_yet_has_no_weight() {
        assert_eq!(Reuse::Quadratic.weights(&[0.0], 3.0), [1.0, 0.0, 0.0]);
        assert_eq!(Reuse::Quadratic.weights(&[2.0, 0.0], 3.0), [1.5, -0.5, 0.0]);
        assert_eq!(Reuse::Hold.weights(&[2.0, 0.0], 3.0), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn names_are_read_and_written() {
        for reuse in [Reuse::Hold, Reuse::Linear, Reuse::Quadratic] {
            assert_eq!(reuse.to_string().parse::<Reuse>().unwrap(), reuse);
        }
        assert!("cubic".parse::<Reuse>().is_err());
    }
}
