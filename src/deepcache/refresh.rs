//! Full calls that are decided while a run goes on, by how far what enters the cut has drifted.

/// Decides, call by call, which are full.
///
/// The drift is the relative L2 distance of the deepest skip tensor that every call computes from the same tensor
/// in the last full call. It is measured on the device, and the host waits for none of it: a call is decided from
/// the drift of the call before the last, continued at the pace of this stretch or, where nothing of this stretch
/// is known yet, of the one before. Only the third call of a run waits for the second, since nothing else is known.
/// So the decisions depend on numbers alone, not on how fast a machine is.
#[derive(Clone, Debug)]
pub struct Refresh {
    threshold: f64,
    /// The last full call.
    last_full: usize,
    /// Drift per call: of the last measurement that is known.
    pace: Option<f64>,
    /// The last measurement since the last full call: how many calls after it, and how large.
    measured: Option<(usize, f64)>,
}

impl Refresh {
    /// Measurements that are known when a call is decided are of calls at least so many before it.
    pub const LAG: usize = 2;

    /// A run in which the drift stays below `threshold`, as far as can be foreseen.
    #[must_use]
    pub fn new(threshold: f64) -> Self {
        Self { threshold, last_full: 0, pace: None, measured: None }
    }

    /// The call whose measurement must be [told](Self::tell) before `call` is decided, if any.
    #[must_use]
    pub fn needs(call: usize) -> Option<usize> {
        match call {
            0 | 1 => None,
            2 => Some(1),
            call => Some(call - Self::LAG),
        }
    }

    /// Takes in the drift of a call since the full call before it.
    pub fn tell(&mut self, call: usize, since: usize, drift: f64) {
        let distance = call.saturating_sub(since);
        if distance == 0 || !drift.is_finite() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let calls = distance as f64;
        self.pace = Some(drift / calls);
        if since == self.last_full {
            self.measured = Some((distance, drift));
        }
    }

    /// The drift that is expected at a call; `None` where nothing is known.
    #[must_use]
    pub fn expected(&self, call: usize) -> Option<f64> {
        let distance = call - self.last_full;
        let pace = self.pace?;
        let (known, drift) = self.measured.unwrap_or((0, 0.0));
        #[expect(clippy::cast_precision_loss, reason = "small counts")]
        let beyond = distance.saturating_sub(known) as f64;
        Some(drift + pace * beyond)
    }

    /// Whether a call is full, which it is in any case where it must be; calls must be asked for in order, each once.
    pub fn decide(&mut self, call: usize, must: bool) -> bool {
        let full = must || call == 0 || self.expected(call).is_some_and(|drift| drift > self.threshold);
        if full {
            self.last_full = call;
            self.measured = None;
        }
        full
    }

    /// The last call that was decided to be full.
    #[must_use]
    pub fn last_full(&self) -> usize {
        self.last_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The full calls of a run in which the tensor moves by `pace(call)` in every call.
    fn run(threshold: f64, calls: usize, pace: impl Fn(usize) -> f64) -> Vec<usize> {
        let mut refresh = Refresh::new(threshold);
        let mut full = Vec::new();
        // For every call: the full call before it, and the drift since.
        let mut measurements: Vec<(usize, f64)> = Vec::new();
        for call in 0..calls {
            if let Some(known) = Refresh::needs(call) {
                let (since, drift) = measurements[known];
                refresh.tell(known, since, drift);
            }
            let since = refresh.last_full();
            measurements.push((since, (since..call).map(&pace).sum()));
            if refresh.decide(call, false) {
                full.push(call);
            }
        }
        full
    }

    #[test]
    fn a_steady_drift_gives_a_uniform_schedule() {
        let full = run(0.35, 40, |_| 0.1);
        assert_eq!(full[..3], [0, 4, 8]);
        assert!(full.windows(2).all(|pair| pair[1] - pair[0] == 4), "{full:?}");
    }

    #[test]
    fn where_more_happens_more_calls_are_full() {
        let full = run(0.35, 60, |call| if (20..40).contains(&call) { 0.2 } else { 0.05 });
        let within = |range: std::ops::Range<usize>| full.iter().filter(|call| range.contains(call)).count();
        assert!(within(22..40) > 2 * within(2..20), "{full:?}");
        assert!(within(22..40) > 2 * within(42..60), "{full:?}");
    }

    #[test]
    fn a_high_threshold_leaves_the_first_call_full_and_a_low_one_nearly_all() {
        assert_eq!(run(1e9, 20, |_| 0.1), [0]);
        let full = run(1e-9, 20, |_| 0.1);
        assert_eq!(full[..2], [0, 2], "the second call is decided before anything is known");
        assert_eq!(full.len(), 19);
        assert_eq!(run(0.1, 20, |_| f64::NAN), [0], "what is not a number says nothing");
    }
}
