//! Where the full calls of a run lie: dynamic programming over what reuse would leave at its end.
//!
//! A call that takes a feature `F'` for its own `F` moves the final latents by about `w |F' - F|`, where the weight
//! `w` of the call is measured. The moves of the calls that share a kept feature add up, since they point the same
//! way; those of different kept features add up as squares. A schedule's cost is therefore
//! `Σ (Σ w |F' - F|)²`, the outer sum over its full calls, the inner one over the shallow calls after each.

use super::profile::BranchProfile;
use super::reuse::Reuse;

impl BranchProfile {
    /// The expected distance of the final latents from those of the uncached run, as a root mean square, for any
    /// schedule that starts with a full call.
    ///
    /// # Panics
    /// If the first call is not full, or a call is beyond the run.
    #[must_use]
    pub fn expected_error(&self, full: &[usize], reuse: Reuse) -> f64 {
        assert_eq!(full.first(), Some(&0), "the first call is full");
        let ends = full[1..].iter().copied().chain(std::iter::once(self.calls()));
        let blocks = full.iter().zip(ends).enumerate().map(|(index, (start, end))| {
            let known: Vec<usize> = full[..=index].iter().rev().take(reuse.features()).copied().collect();
            let moves = (start + 1..end).map(|call| self.weights[call] * self.drift(&known, reuse, call));
            moves.sum::<f64>().powi(2)
        });
        blocks.sum::<f64>().sqrt()
    }

    /// How far what stands for the feature of a call is from it, where these full calls are kept, the newest first.
    fn drift(&self, known: &[usize], reuse: Reuse, call: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let places: Vec<f64> = known.iter().map(|&known| known as f64).collect();
        #[expect(clippy::cast_precision_loss, reason = "counts of calls")]
        let weights = reuse.weights(&places, call as f64);
        // |Σ a F|² of coefficients that sum to zero is - Σ over pairs of a a' |F - F'|².
        let mut terms: Vec<(usize, f64)> = known.iter().copied().zip(weights).collect();
        terms.push((call, -1.0));
        let mut square = 0.0;
        for (index, (left, a)) in terms.iter().enumerate() {
            for (right, b) in &terms[index + 1..] {
                square -= a * b * self.squared_distance(*left, *right);
            }
        }
        square.max(0.0).sqrt()
    }

    /// So many full calls, as evenly as can be.
    pub(super) fn place_evenly(&self, count: usize) -> Vec<usize> {
        (0..count).map(|index| index * self.calls() / count).collect()
    }

    /// The schedule with the least cost where features are held.
    pub(super) fn place_for_holding(&self, count: usize) -> Vec<usize> {
        let calls = self.calls();
        // costs[i][d]: of the d shallow calls after a full call i
        let costs: Vec<Vec<f64>> = (0..calls)
            .map(|start| {
                let mut sum = 0.0;
                let moves = (start + 1..calls).map(|call| {
                    sum += self.weights[call] * self.drift(&[start], Reuse::Hold, call);
                    sum * sum
                });
                std::iter::once(0.0).chain(moves).collect()
            })
            .collect();
        // least[end] for a number of full calls that cover the calls before `end`, and the last of them
        let mut least = vec![f64::INFINITY; calls + 1];
        least[0] = 0.0;
        let mut choices: Vec<Vec<usize>> = Vec::with_capacity(count);
        for _ in 0..count {
            let mut next = vec![f64::INFINITY; calls + 1];
            let mut choice = vec![0; calls + 1];
            for start in 0..calls {
                if least[start].is_infinite() {
                    continue;
                }
                for (distance, cost) in costs[start].iter().enumerate() {
                    let (end, sum) = (start + 1 + distance, least[start] + cost);
                    if sum < next[end] {
                        next[end] = sum;
                        choice[end] = start;
                    }
                }
            }
            least = next;
            choices.push(choice);
        }
        let mut full = Vec::with_capacity(count);
        let mut end = calls;
        for choice in choices.iter().rev() {
            end = choice[end];
            full.push(end);
        }
        full.reverse();
        full
    }

    /// The schedule with the least cost where a line through the last two features is continued.
    pub(super) fn place_for_lines(&self, count: usize) -> Vec<usize> {
        let calls = self.calls();
        let block = |known: &[usize], end: usize, sum: &mut f64| {
            // Goes on from the block that is one shallow call shorter.
            if end > known[0] + 1 {
                *sum += self.weights[end - 1] * self.drift(known, Reuse::Linear, end - 1);
            }
            *sum * *sum
        };
        // least[[i, j]] for full calls i < j, the last two: cost of all calls before j, and the full call before i
        let place = |earlier: usize, later: usize| earlier * (calls + 1) + later;
        let size = (calls + 1) * (calls + 1);
        let mut least = vec![f64::INFINITY; size];
        let mut sum = 0.0;
        for end in 1..=calls {
            least[place(0, end)] = block(&[0], end, &mut sum);
        }
        let mut choices: Vec<Vec<usize>> = Vec::with_capacity(count);
        for _ in 1..count {
            let mut next = vec![f64::INFINITY; size];
            let mut choice = vec![0; size];
            for earlier in 0..calls {
                for later in earlier + 1..calls {
                    let before = least[place(earlier, later)];
                    if before.is_infinite() {
                        continue;
                    }
                    let mut sum = 0.0;
                    for end in later + 1..=calls {
                        let cost = before + block(&[later, earlier], end, &mut sum);
                        let target = place(later, end);
                        if cost < next[target] {
                            next[target] = cost;
                            choice[target] = earlier;
                        }
                    }
                }
            }
            least = next;
            choices.push(choice);
        }
        let last = (0..calls).min_by(|a, b| least[place(*a, calls)].total_cmp(&least[place(*b, calls)]));
        let (mut later, mut end) = (last.unwrap_or(0), calls);
        let mut full = vec![later];
        for choice in choices.iter().rev() {
            (later, end) = (choice[place(later, end)], later);
            full.push(later);
        }
        full.reverse();
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features that wander through `dimensions` with a pace of their own in every call.
    fn wandering(calls: usize, dimensions: usize, seed: u64) -> BranchProfile {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f64 / (1_u64 << 24) as f64
        };
        let mut place = vec![0.0; dimensions];
        let mut places = Vec::new();
        for _ in 0..calls {
            let pace = random() * random();
            place.iter_mut().for_each(|value| *value += pace * (random() - 0.3));
            places.push(place.clone());
        }
        let distance = |left: &[f64], right: &[f64]| {
            left.iter().zip(right).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
        };
        let row =
            |call: usize| (call + 1..calls).map(|other| distance(&places[call], &places[other])).collect();
        BranchProfile {
            branch: 0,
            shallow_cost: 0.25,
            weights: (0..calls).map(|call| if call == 0 { 0.0 } else { 0.1 + random() }).collect(),
            distances: (0..calls).map(row).collect(),
            trials: Vec::new(),
        }
    }

    /// All schedules of so many full calls.
    fn schedules(calls: usize, count: usize) -> Vec<Vec<usize>> {
        let all = (0_u32..1 << (calls - 1)).filter(|bits| bits.count_ones() as usize + 1 == count);
        let numbers = |bits: u32| (1..calls).filter(move |call| bits >> (call - 1) & 1 == 1);
        all.map(|bits| std::iter::once(0).chain(numbers(bits)).collect()).collect()
    }

    #[test]
    fn no_other_schedule_is_better() {
        for seed in 0..8 {
            let branch = wandering(9, 3, seed);
            for count in 1..=9 {
                for (reuse, planned) in [
                    (Reuse::Hold, branch.place_for_holding(count)),
                    (Reuse::Linear, branch.place_for_lines(count)),
                ] {
                    assert_eq!(planned.len(), count, "{planned:?}");
                    let found = branch.expected_error(&planned, reuse);
                    let errors =
                        schedules(9, count).into_iter().map(|full| branch.expected_error(&full, reuse));
                    let best = errors.fold(f64::INFINITY, f64::min);
                    assert!((found - best).abs() <= 1e-12, "{reuse}, {count} full: {found}, best {best}");
                }
            }
        }
    }

    #[test]
    fn features_on_a_line_are_forecast_without_error() {
        // Steps of 2 in one direction: what a line continues exactly.
        let row = |call: usize| (call + 1..6).map(|other| 2.0 * (other - call) as f64).collect();
        let distances = (0..6).map(row).collect();
        let branch = BranchProfile {
            branch: 0,
            shallow_cost: 0.5,
            weights: vec![1.0; 6],
            distances,
            trials: Vec::new(),
        };
        assert!(branch.expected_error(&[0, 1], Reuse::Linear) < 1e-12);
        // Held from call 1: 2 + 4 + 6 + 8
        assert!((branch.expected_error(&[0, 1], Reuse::Hold) - 20.0).abs() < 1e-12);
        assert_eq!(branch.place_for_lines(2), [0, 1]);
    }

    #[test]
    fn even_places_are_as_many_as_asked_for() {
        let branch = wandering(10, 2, 1);
        assert_eq!(branch.place_evenly(4), [0, 2, 5, 7]);
        assert_eq!(branch.place_evenly(10), (0..10).collect::<Vec<_>>());
    }
}
