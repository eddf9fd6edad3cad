//! What a change adds to the values of a tensor, computed a run of a row at a time.
//!
//! Rows are outputs; columns are inputs and positions of the kernel, as files order them: `[O, I * K]`.

/// Columns that are computed at once: rows of so many stay in the first-level cache.
const RUN: usize = 320;

/// `up · down`.
#[derive(Debug)]
pub(super) struct Product {
    /// `[O, R]`
    pub(super) up: Vec<f32>,
    /// `[R, N]`
    pub(super) down: Vec<f32>,
    pub(super) rank: usize,
    /// N
    pub(super) columns: usize,
}

/// The values that a change is made of.
#[derive(Debug)]
pub(super) enum Factors {
    /// LoRA: Hu et al. 2021, <https://arxiv.org/abs/2106.09685>.
    LowRank(Product),
    /// LoHa, the products of two low-rank matrices value by value: Hyeon-Woo et al. 2021,
    /// <https://arxiv.org/abs/2108.06098>.
    Hadamard(Product, Product),
    /// LoKr, the Kronecker product: Yeh et al. 2023, <https://arxiv.org/abs/2309.14859>.
    Kronecker {
        /// `[A, B]`
        left: Vec<f32>,
        /// B
        left_columns: usize,
        /// `[C, D, K]`
        right: Vec<f32>,
        /// C
        right_rows: usize,
        /// `D * K`
        right_columns: usize,
    },
    /// All values, `[O, N]`.
    Full(Vec<f32>),
}

impl Product {
    /// Adds `scale` times the columns from `first` on of a row.
    fn add(&self, row: usize, first: usize, scale: f32, target: &mut [f32]) {
        let ups = &self.up[row * self.rank..][..self.rank];
        let count = target.len();
        let line = |term: usize| &self.down[term * self.columns + first..][..count];
        let whole = self.rank / 4 * 4;
        // Four terms at once, so that sums are read and written less often.
        for term in (0..whole).step_by(4) {
            let [a, b, c, d] = [0, 1, 2, 3].map(|next| scale * ups[term + next]);
            let lines = line(term).iter().zip(line(term + 1)).zip(line(term + 2)).zip(line(term + 3));
            for (value, (((w, x), y), z)) in target.iter_mut().zip(lines) {
                *value += (a * w + b * x) + (c * y + d * z);
            }
        }
        for (term, up) in (whole..).zip(&ups[whole..]) {
            for (value, down) in target.iter_mut().zip(line(term)) {
                *value += scale * up * down;
            }
        }
    }

    /// All values, `[O, N]`.
    pub(super) fn values(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.up.len() / self.rank * self.columns];
        for (row, target) in values.chunks_exact_mut(self.columns).enumerate() {
            self.add(row, 0, 1.0, target);
        }
        values
    }
}

impl Factors {
    /// Adds `scale` times the change to the values from `start` on, of a tensor with `columns` values in a row.
    pub(super) fn add(&self, start: usize, columns: usize, scale: f32, mut values: &mut [f32]) {
        let mut start = start;
        while !values.is_empty() {
            let (row, first) = (start / columns, start % columns);
            let count = values.len().min(columns - first).min(RUN);
            let (run, rest) = values.split_at_mut(count);
            self.add_run(row, first, columns, scale, run);
            start += count;
            values = rest;
        }
    }

    fn add_run(&self, row: usize, first: usize, columns: usize, scale: f32, target: &mut [f32]) {
        match self {
            Self::LowRank(product) => product.add(row, first, scale, target),
            Self::Hadamard(left, right) => {
                let (mut one, mut other) = ([0.0; RUN], [0.0; RUN]);
                let (one, other) = (&mut one[..target.len()], &mut other[..target.len()]);
                left.add(row, first, scale, one);
                right.add(row, first, 1.0, other);
                for ((value, one), other) in target.iter_mut().zip(one).zip(other) {
                    *value += *one * *other;
                }
            }
            Self::Kronecker { left, left_columns, right, right_rows, right_columns } => {
                let factors = &left[row / right_rows * left_columns..][..*left_columns];
                let line = &right[row % right_rows * right_columns..][..*right_columns];
                for (column, value) in (first..).zip(target) {
                    *value += scale * factors[column / right_columns] * line[column % right_columns];
                }
            }
            Self::Full(all) => {
                for (value, change) in target.iter_mut().zip(&all[row * columns + first..]) {
                    *value += scale * change;
                }
            }
        }
    }

    /// The same change of a tensor that is stored the other way round, `[N, O]`.
    pub(super) fn transposed(&self, rows: usize, columns: usize) -> Self {
        let mut row = vec![0.0; columns];
        let mut turned = vec![0.0; rows * columns];
        for output in 0..rows {
            row.fill(0.0);
            self.add(output * columns, columns, 1.0, &mut row);
            for (input, value) in row.iter().enumerate() {
                turned[input * rows + output] = *value;
            }
        }
        Self::Full(turned)
    }
}

/// What a core between two factors makes of the inner one: `Σ_j core[i, j, k] · down[j, n]` as `[I, N * K]`.
pub(super) fn through_core(core: &[f32], down: &[f32], rank: usize, inputs: usize) -> Vec<f32> {
    let inner = down.len() / inputs;
    let taps = core.len() / (rank * inner);
    let mut found = vec![0.0; rank * inputs * taps];
    for (outer, target) in found.chunks_exact_mut(inputs * taps).enumerate() {
        for (term, line) in down.chunks_exact(inputs).enumerate() {
            let weights = &core[(outer * inner + term) * taps..][..taps];
            for (values, down) in target.chunks_exact_mut(taps).zip(line) {
                for (value, weight) in values.iter_mut().zip(weights) {
                    *value += weight * down;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Factors, Product, through_core};

    fn product(rows: usize, rank: usize, columns: usize) -> Product {
        let values = |count: usize, step: f32| (0..count).map(|at| (step * at as f32).sin()).collect();
        Product { up: values(rows * rank, 0.7), down: values(rank * columns, 1.3), rank, columns }
    }

    fn added(factors: &Factors, rows: usize, columns: usize) -> Vec<f32> {
        let mut values = vec![0.0; rows * columns];
        factors.add(0, columns, 1.0, &mut values);
        values
    }

    #[test]
    fn any_run_of_values_is_that_of_the_whole() {
        let (rows, columns) = (6, 700);
        let left: Vec<f32> = (0..6).map(|value| value as f32 - 2.0).collect();
        let right = product(2, 3, 350).values();
        let kronecker =
            Factors::Kronecker { left, left_columns: 2, right, right_rows: 2, right_columns: 350 };
        for factors in [
            Factors::LowRank(product(rows, 5, columns)),
            Factors::Hadamard(product(rows, 2, columns), product(rows, 9, columns)),
            kronecker,
            Factors::Full(product(rows, 4, columns).values()),
        ] {
            let whole = added(&factors, rows, columns);
            for (start, count) in [(0, 1), (699, 2), (650, 1500), (4199, 1), (333, 320)] {
                let mut run = vec![0.0; count];
                factors.add(start, columns, 1.0, &mut run);
                for (found, expected) in run.iter().zip(&whole[start..]) {
                    assert!((found - expected).abs() < 1e-5, "{found} is not {expected} from {start} on");
                }
            }
            let turned = added(&factors.transposed(rows, columns), columns, rows);
            assert_eq!(turned[5 * rows + 3], whole[3 * columns + 5], "the other way round");
        }
    }

    #[test]
    fn a_kronecker_product_is_made_of_blocks() {
        let (left, right) = (vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0]);
        let factors = Factors::Kronecker { left, left_columns: 2, right, right_rows: 2, right_columns: 1 };
        assert_eq!(added(&factors, 4, 2), [5.0, 10.0, 6.0, 12.0, 15.0, 20.0, 18.0, 24.0]);
    }

    #[test]
    fn a_core_lies_between_the_factors() {
        // Two positions of the kernel, one rank outside, two inside, one input.
        let found = through_core(&[1.0, 2.0, 3.0, 4.0], &[10.0, 100.0], 1, 1);
        assert_eq!(found, [310.0, 420.0]);
    }
}
