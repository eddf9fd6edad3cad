//! A test case of a kernel: inputs, what to record, and the values that must come out.

use std::fmt;

use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::tensor::{ElementType, Shape, Tensor};

/// How an input is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In the element type under test.
    Element,
    /// A matrix of weights: in the element type under test, or in 8 bits where that is tested.
    Weight,
    /// As 32-bit float in any case.
    Float,
    /// As 32-bit unsigned integer.
    Index,
}

/// One input of a case.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its extents.
    pub shape: Shape,
    /// How it is stored.
    pub role: Role,
    /// Its values, before they are rounded to their storage.
    pub values: Vec<f64>,
}

impl Input {
    /// Roughly normal values of the given standard deviation, different for each `seed`.
    pub fn random(shape: impl Into<Shape>, role: Role, deviation: f64, seed: u64) -> Self {
        let shape = shape.into();
        let values = noise(shape.count(), seed).into_iter().map(|value| value * deviation).collect();
        Self { shape, role, values }
    }

    /// These values.
    pub fn given(shape: impl Into<Shape>, role: Role, values: Vec<f64>) -> Self {
        Self { shape: shape.into(), role, values }
    }
}

/// Records the operation under test and returns its output.
pub type Record = Box<dyn Fn(&mut Recording, &[Tensor]) -> Result<Tensor>>;

/// Computes the expected output from the inputs as stored, independent of any recording.
pub type Expected = Box<dyn Fn(&[Vec<f64>]) -> Vec<f64>>;

/// A test case of a kernel.
pub struct Case {
    /// What is awkward about it.
    pub name: &'static str,
    /// The inputs, in the order in which `record` and `expected` take them.
    pub inputs: Vec<Input>,
    /// Records the operation under test.
    pub record: Record,
    /// The naive formula.
    pub expected: Expected,
    /// Terms in the longest sum behind one output value; 1 for element-wise operations.
    pub terms: usize,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

/// How far a value may be from the twin's.
///
/// Half a storage rounding of the value itself, and for sums in `f32` a share of their root mean square that
/// grows with the square root of the number of terms.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    relative: f64,
    of_root_mean_square: f64,
}

/// One constant for all kernels.
const SAFETY: f64 = 4.0;

impl Tolerance {
    /// For an output stored as `element`, each value a sum of `terms` products in `f32`.
    ///
    /// # Panics
    /// If it came out so loose that it would test nothing.
    #[must_use]
    pub fn reduction(element: ElementType, terms: usize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 terms")]
        let sum = match element {
            ElementType::U32 | ElementType::Int8 => 0.0, // whole numbers are right or wrong
            ElementType::F32 | ElementType::F16 => {
                SAFETY * ElementType::F32.epsilon() * (terms as f64).sqrt()
            }
        };
        let tolerance = Self { relative: SAFETY * element.epsilon(), of_root_mean_square: sum };
        assert!(tolerance.of_root_mean_square < 0.01, "a tolerance that tests something");
        tolerance
    }

    /// The same for a kernel that rounds the factors of its sums to `element` on the way, which the twin does not:
    /// each product may be off by that much, and so may their sum.
    ///
    /// # Panics
    /// If it came out so loose that it would test nothing.
    #[must_use]
    pub fn with_factors_rounded_to(self, element: ElementType) -> Self {
        let of_root_mean_square = self.of_root_mean_square + SAFETY * element.epsilon();
        assert!(of_root_mean_square < 0.01, "a tolerance that tests something");
        Self { of_root_mean_square, ..self }
    }

    /// The largest deviation as a multiple of what is allowed: 1 is the limit.
    #[must_use]
    pub fn worst(&self, found: &[f64], expected: &[f64]) -> f64 {
        if found.len() != expected.len() {
            return f64::INFINITY;
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
        let count = expected.len().max(1) as f64;
        let square: f64 = expected.iter().map(|value| value * value).sum();
        let floor = self.of_root_mean_square * (square / count).sqrt() + 1e-30;
        let ratios = found.iter().zip(expected).map(|(found, expected)| {
            let allowed = self.relative * expected.abs() + floor;
            let ratio = (found - expected).abs() / allowed;
            if ratio.is_nan() { f64::INFINITY } else { ratio }
        });
        ratios.fold(0.0, f64::max)
    }
}

/// Roughly normal noise (a sum of uniforms), the same on every machine.
fn noise(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
        let value = (state >> 32) as f64 / f64::from(u32::MAX);
        value - 0.5
    };
    for _ in 0..16 {
        uniform();
    }
    (0..count).map(|_| (uniform() + uniform() + uniform() + uniform()) * 1.732_050_8).collect()
}
