//! The columns of a call's matrix, and linear forms over them.

use std::ops::{Add, Mul, Sub};

/// The columns of [`Call::matrix`](super::Call::matrix); the history planes follow from [`HISTORY`] on.
pub(super) const SAMPLE: usize = 0;
pub(super) const OUTPUT: usize = 1;
pub(super) const NOISE: usize = 2;
pub(super) const PREDICTION: usize = 3;
pub(super) const HISTORY: usize = 4;

/// The most planes of history that any sampler keeps.
const MOST_HISTORY: usize = 8;

/// A weight for each column of a call's matrix, so a linear form over what a call works with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row([f64; HISTORY + MOST_HISTORY]);

impl Row {
    /// Nothing of anything.
    pub(super) const ZERO: Self = Self([0.0; HISTORY + MOST_HISTORY]);

    /// One column as it is.
    pub(super) fn column(place: usize) -> Self {
        let mut row = Self::ZERO;
        row.0[place] = 1.0;
        row
    }

    /// One plane of the history as it is, counted from 0.
    pub(super) fn plane(index: usize) -> Self {
        Self::column(HISTORY + index)
    }

    /// The sum of weighted forms.
    pub(super) fn sum<const COUNT: usize>(terms: [(f64, Self); COUNT]) -> Self {
        terms.into_iter().fold(Self::ZERO, |sum, (weight, row)| sum + weight * row)
    }

    /// The weights of the first columns.
    pub(super) fn weights(&self, columns: usize) -> &[f64] {
        &self.0[..columns]
    }

    /// The same form of a column that has been scaled down.
    pub(super) fn with_column_scaled(mut self, place: usize, factor: f64) -> Self {
        self.0[place] *= factor;
        self
    }

    pub(super) fn weight(&self, place: usize) -> f64 {
        self.0[place]
    }
}

impl Add for Row {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(weight, other)| *weight += other);
        self
    }
}

impl Sub for Row {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -1.0 * other
    }
}

impl Mul<Row> for f64 {
    type Output = Row;

    fn mul(self, mut row: Row) -> Row {
        row.0.iter_mut().for_each(|weight| *weight *= self);
        row
    }
}
