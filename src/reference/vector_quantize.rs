//! Twin of `vector_quantize`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::vector_quantize::{Params, vector_quantize as record_vector_quantize};

/// For each vector of `channels` values the nearest entry of the codebook, the first of equals.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 entries")]
pub fn vector_quantize(input: &[f64], codebook: &[f64], channels: usize) -> Vec<f64> {
    let nearest = |vector: &[f64]| {
        let distance =
            |entry: &[f64]| -> f64 { vector.iter().zip(entry).map(|(a, b)| (a - b) * (a - b)).sum() };
        let distances = codebook.chunks(channels).map(distance).enumerate();
        let (entry, _) =
            distances.fold((0, f64::INFINITY), |best, new| if new.1 < best.1 { new } else { best });
        entry as f64
    };
    input.chunks(channels).map(nearest).collect()
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let (input, codebook) = (operands.input("input"), operands.input("codebook"));
    vec![("output", vector_quantize(input, codebook, params.channels as usize))]
}

fn case(name: &'static str, input: Input, codebook: Input) -> Case {
    let channels = codebook.shape.channels();
    Case {
        name,
        inputs: vec![input, codebook],
        record: Box::new(|recording, tensors| record_vector_quantize(recording, &tensors[0], &tensors[1])),
        expected: Box::new(move |values| vector_quantize(&values[0], &values[1], channels)),
        terms: 1,
    }
}

/// Awkward inputs. Entries lie far enough apart for f32 to tell which is nearer.
#[must_use]
pub fn cases() -> Vec<Case> {
    let random = |shape: &[usize], seed| Input::random(shape, Role::Float, 1.0, seed);
    let whole = |shape: &[usize], modulus: usize| {
        let count: usize = shape.iter().product();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let values = (0..count).map(|index| (index * 7919 % modulus) as f64).collect();
        Input::given(shape, Role::Float, values)
    };
    vec![
        case("an image", random(&[1, 8, 8, 3], 1), random(&[256, 3], 2)),
        case("more entries than lanes, two images", random(&[2, 5, 7, 4], 3), random(&[1000, 4], 4)),
        case("one vector, one entry", random(&[1, 2], 5), random(&[1, 2], 6)),
        case("fewer entries than lanes", random(&[13, 1], 7), random(&[11, 1], 8)),
        case("equals: the first entry counts", whole(&[1, 6, 5, 2], 5), whole(&[200, 2], 3)),
        case("as many entries as ever", random(&[3, 3], 9), random(&[16384, 3], 10)),
        case("many vectors", whole(&[70_000, 1], 17), whole(&[17, 1], 17)),
    ]
}
