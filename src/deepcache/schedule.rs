//! Which U-Net calls are full and which are shallow.

use crate::error::{Error, Result};

/// Which calls of a run are computed in full.
///
/// Calls of the U-Net are counted, not timesteps: where a sampler visits a timestep twice, as PNDM does, the second
/// visit is a call like any other. The count starts anew with every run, so that the first call is always full.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheSchedule {
    /// Every `interval`-th call is full, from the first on: "1:N" of the paper
    /// (<https://arxiv.org/abs/2312.00858>, section 3.2). With an interval of 1 every call is full and nothing is
    /// reused.
    Uniform {
        /// Calls from one full call to the next, at least 1.
        interval: usize,
    },
    /// Exactly these calls are full, counted from 0 and in ascending order; call 0 must be one of them. Those
    /// beyond the end of a run are without effect.
    List(Vec<usize>),
}

impl CacheSchedule {
    /// Whether each of a run's `calls` U-Net calls is full; one entry per call, the first always true.
    ///
    /// # Errors
    /// [`Error::Option`] if the interval is 0, or a list is not ascending from 0.
    pub fn full_calls(&self, calls: usize) -> Result<Vec<bool>> {
        match self {
            Self::List(full) => {
                if full.first() != Some(&0) || !full.is_sorted_by(|a, b| a < b) {
                    let problem = format!("expected full calls in ascending order from 0 on, found {full:?}");
                    return Err(Error::option("cache schedule", problem));
                }
                Ok((0..calls).map(|call| full.binary_search(&call).is_ok()).collect())
            }
            Self::Uniform { interval: 0 } => {
                Err(Error::option("cache interval", "expected 1 (every call in full) or more, found 0"))
            }
            Self::Uniform { interval } => Ok((0..calls).map(|call| call % interval == 0).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(interval: usize, calls: usize) -> Vec<usize> {
        let full = CacheSchedule::Uniform { interval }.full_calls(calls).unwrap();
        assert_eq!(full.len(), calls);
        (0..calls).filter(|&call| full[call]).collect()
    }

    #[test]
    fn uniform_calls_are_an_interval_apart() {
        assert_eq!(full(3, 10), [0, 3, 6, 9]);
        assert_eq!(full(5, 5), [0]);
    }

    #[test]
    fn a_list_says_which_calls_are_full() {
        let schedule = CacheSchedule::List(vec![0, 2, 9]);
        assert_eq!(schedule.full_calls(4).unwrap(), [true, false, true, false]);
        for wrong in [vec![], vec![1, 2], vec![0, 3, 3], vec![0, 5, 4]] {
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
    }

    #[test]
    fn an_interval_of_zero_is_refused() {
        let error = CacheSchedule::Uniform { interval: 0 }.full_calls(4).unwrap_err();
        assert!(matches!(&error, Error::Option { option, .. } if option == "cache interval"), "{error}");
    }
}
