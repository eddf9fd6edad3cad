//! What a stale feature costs: from what was measured in some calls to a weight for every call.

/// So small a change counts as none.
const LEAST: f64 = 1e-12;

/// Which calls are replayed: `count` of them, denser towards both ends of the run, where the gains change fastest
/// (Chebyshev points). The first call is always full.
pub(super) fn probed_calls(calls: usize, count: usize) -> Vec<usize> {
    if calls < 2 {
        return Vec::new();
    }
    let last = calls - 1;
    if count >= last {
        return (1..calls).collect();
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
    let place = |index: usize| {
        let angle = std::f64::consts::PI * index as f64 / count.saturating_sub(1).max(1) as f64;
        1.0 + (last - 1) as f64 * (1.0 - angle.cos()) / 2.0
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to the last call")]
    let mut chosen: Vec<usize> = (0..count).map(|index| place(index).round() as usize).collect();
    chosen.dedup();
    chosen
}

/// For every call, what a change of the model's output leaves at the end of the run, relative to the change.
///
/// `measured` are calls with the change at the end and the change of the output; between them the logarithm is
/// interpolated.
pub(super) fn gains(measured: &[(usize, f64, f64)], calls: usize) -> Vec<f64> {
    let known: Vec<(usize, f64)> = measured
        .iter()
        .filter(|(_, _, change)| *change > LEAST)
        .map(|(call, end, change)| (*call, (end / change).max(LEAST).ln()))
        .collect();
    let at = |call: usize| {
        let above = known.iter().find(|(other, _)| *other >= call).or(known.last())?;
        let below = known.iter().rfind(|(other, _)| *other <= call).or(known.first())?;
        if above.0 <= below.0 {
            return Some(above.1);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let part = (call - below.0) as f64 / (above.0 - below.0) as f64;
        Some(below.1 + part * (above.1 - below.1))
    };
    (0..calls).map(|call| at(call).map_or(0.0, f64::exp)).collect()
}

/// For every call, what a feature that is a distance of 1 away leaves at the end.
///
/// `changes` are the changes of the output of every call but the first with the feature of the call before.
pub(super) fn weights(gains: &[f64], changes: &[f64], distances: &[Vec<f64>]) -> Vec<f64> {
    let mut weights = vec![0.0; gains.len()];
    for (index, change) in changes.iter().enumerate() {
        let call = index + 1;
        let distance = distances[call - 1][call];
        if distance > LEAST {
            weights[call] = gains[call] * change / distance;
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_lie_denser_at_the_ends() {
        assert_eq!(probed_calls(50, 3), [1, 25, 49]);
        assert_eq!(probed_calls(50, 7), [1, 4, 13, 25, 37, 46, 49]);
        assert_eq!(probed_calls(4, 9), [1, 2, 3], "never more than there are");
        assert_eq!(probed_calls(20, 1), [1]);
        assert!(probed_calls(50, 0).is_empty() && probed_calls(1, 5).is_empty(), "nothing to probe");
    }

    #[test]
    fn gains_are_interpolated_in_the_logarithm() {
        let found = gains(&[(1, 0.4, 0.2), (3, 8.0, 1.0), (4, 1.0, 0.0)], 6);
        let expected = [2.0, 2.0, 4.0, 8.0, 8.0, 8.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
        assert_eq!(gains(&[], 3), [0.0; 3]);
    }

    #[test]
    fn a_weight_is_gain_times_sensitivity() {
        let distances = [[0.0, 0.5, 0.7], [0.5, 0.0, 0.0], [0.7, 0.0, 0.0]].map(Vec::from);
        assert_eq!(weights(&[9.0, 2.0, 3.0], &[0.25, 0.5], &distances), [0.0, 1.0, 0.0]);
    }
}
