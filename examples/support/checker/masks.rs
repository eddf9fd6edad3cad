//! Sets of pixels, and what mathematical morphology does with them.

/// Which pixels of a square picture belong to something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    side: usize,
    /// Rows from the top.
    pixels: Vec<bool>,
}

/// The smallest rectangle around a mask; the ends lie behind the last row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) top: usize,
    pub(super) bottom: usize,
    pub(super) left: usize,
    pub(super) right: usize,
}

impl Bounds {
    /// The longer side.
    pub(super) fn longest(&self) -> usize {
        (self.bottom - self.top).max(self.right - self.left)
    }

    /// Column and row of the middle.
    pub(super) fn middle(&self) -> (f64, f64) {
        ((self.left + self.right) as f64 / 2.0, (self.top + self.bottom) as f64 / 2.0)
    }
}

impl Mask {
    /// A mask of `side` rows of `side` pixels each.
    pub(super) fn new(side: usize, pixels: Vec<bool>) -> Self {
        assert_eq!(pixels.len(), side * side, "a mask is square");
        Self { side, pixels }
    }

    /// The pixels, rows from the top.
    pub(super) fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// How many pixels belong to it.
    pub(super) fn area(&self) -> usize {
        self.pixels.iter().filter(|inside| **inside).count()
    }

    /// The rectangle around it; nothing if it is empty.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let rows = || self.pixels.chunks_exact(self.side);
        let occupied = |row: &[bool]| row.contains(&true);
        let column = |column: &usize| rows().any(|row| row[*column]);
        Some(Bounds {
            top: rows().position(occupied)?,
            bottom: rows().rposition(occupied)? + 1,
            left: (0..self.side).find(column)?,
            right: (0..self.side).rfind(column)? + 1,
        })
    }

    /// The pixels of which the four neighbours belong to it as well; what is outside the picture does not.
    pub(super) fn eroded(&self) -> Self {
        self.combined(|pixel, neighbours| pixel && neighbours.iter().all(|inside| *inside))
    }

    /// Its pixels and their four neighbours.
    pub(super) fn dilated(&self) -> Self {
        self.combined(|pixel, neighbours| pixel || neighbours.contains(&true))
    }

    /// Without what is too thin for a cross of five pixels.
    pub(super) fn opened(&self) -> Self {
        self.eroded().dilated()
    }

    fn combined(&self, rule: impl Fn(bool, [bool; 4]) -> bool) -> Self {
        let last = self.side - 1;
        let place = |row: usize, column: usize| self.pixels[row * self.side + column];
        let pixel = |row: usize, column: usize| {
            let neighbours = [
                row > 0 && place(row - 1, column),
                row < last && place(row + 1, column),
                column > 0 && place(row, column - 1),
                column < last && place(row, column + 1),
            ];
            rule(place(row, column), neighbours)
        };
        let pixels = (0..self.side).flat_map(|row| (0..self.side).map(move |column| (row, column)));
        Self { side: self.side, pixels: pixels.map(|(row, column)| pixel(row, column)).collect() }
    }

    /// The parts that hang together by the sides of pixels, in the order of their first pixels.
    pub(super) fn parts(&self) -> Vec<Self> {
        let mut rest = self.pixels.clone();
        let mut parts = Vec::new();
        while let Some(first) = rest.iter().position(|inside| *inside) {
            let mut part = vec![false; rest.len()];
            let mut open = vec![first];
            rest[first] = false;
            while let Some(pixel) = open.pop() {
                part[pixel] = true;
                let (row, column) = (pixel / self.side, pixel % self.side);
                let neighbours = [
                    (row > 0).then(|| pixel - self.side),
                    (row + 1 < self.side).then(|| pixel + self.side),
                    (column > 0).then(|| pixel - 1),
                    (column + 1 < self.side).then(|| pixel + 1),
                ];
                for neighbour in neighbours.into_iter().flatten() {
                    if std::mem::take(&mut rest[neighbour]) {
                        open.push(neighbour);
                    }
                }
            }
            parts.push(Self { side: self.side, pixels: part });
        }
        parts
    }

    /// The mask in a square around `bounds`, a little larger than it, sampled at `count` x `count` points.
    pub(super) fn sampled(&self, bounds: &Bounds, count: usize) -> Self {
        let (x, y) = bounds.middle();
        let place = |middle: f64, point: usize| {
            let step = ((point as f64 + 0.5) / count as f64 - 0.5) * bounds.longest() as f64 * 1.04;
            let place = (middle + step).floor();
            #[expect(clippy::cast_possible_truncation, reason = "it is a pixel of the picture")]
            (0.0..self.side as f64).contains(&place).then_some(place as usize)
        };
        let columns: Vec<Option<usize>> = (0..count).map(|point| place(x, point)).collect();
        let pixels = (0..count).flat_map(|point| {
            let row = place(y, point);
            let inside = |column: &Option<usize>| {
                row.zip(*column).is_some_and(|(row, column)| self.pixels[row * self.side + column])
            };
            columns.iter().map(inside).collect::<Vec<_>>()
        });
        Self { side: count, pixels: pixels.collect() }
    }

    /// The share of pixels of both masks together that belong to both of them; 0 if there are none.
    pub(super) fn overlap(&self, other: &Self) -> f64 {
        let pairs = || self.pixels.iter().zip(&other.pixels);
        let both = pairs().filter(|(a, b)| **a && **b).count();
        let either = pairs().filter(|(a, b)| **a || **b).count();
        if either == 0 { 0.0 } else { both as f64 / either as f64 }
    }
}
