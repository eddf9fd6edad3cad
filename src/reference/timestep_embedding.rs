//! Twin of `timestep_embedding`.

use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::timestep_embedding::{
    TimestepEmbeddingConfig, frequencies, timestep_embedding as record_timestep_embedding,
};
use crate::tensor::ElementType;

/// Sines of all angles, then cosines, or the other way round, for each timestep.
///
/// The angle is rounded to f32, as it is in the shader and in diffusers: at 1000 radians that is a sixteen
/// thousandth of a radian, which is no error of the sine.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the angle is an f32 by definition")]
pub fn timestep_embedding(timesteps: &[f64], frequencies: &[f64], cosines_first: bool) -> Vec<f64> {
    let mut output = Vec::new();
    for &timestep in timesteps {
        let angles = frequencies.iter().map(|&frequency| f64::from(timestep as f32 * frequency as f32));
        let (sines, cosines) = (angles.clone().map(f64::sin), angles.map(f64::cos));
        if cosines_first {
            output.extend(cosines.chain(sines));
        } else {
            output.extend(sines.chain(cosines));
        }
    }
    output
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let (timesteps, frequencies) = (operands.input("timesteps"), operands.input("frequencies"));
    vec![("output", timestep_embedding(timesteps, frequencies, operands.flag("COSINES_FIRST")))]
}

fn case(
    name: &'static str,
    timesteps: Vec<f64>,
    size: usize,
    shift: f64,
    flip: bool,
    element: ElementType,
) -> Case {
    let frequencies: Vec<f64> = frequencies(size, shift).into_iter().map(f64::from).collect();
    let config = TimestepEmbeddingConfig { flip_sin_to_cos: flip };
    Case {
        name,
        inputs: vec![
            Input::given([timesteps.len()], Role::Float, timesteps),
            Input::given([frequencies.len()], Role::Float, frequencies),
        ],
        record: Box::new(move |recording, tensors| {
            record_timestep_embedding(recording, &tensors[0], &tensors[1], element, &config)
        }),
        expected: Box::new(move |values| timestep_embedding(&values[0], &values[1], flip)),
        terms: 1,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    use ElementType::{F16, F32};
    let all = || (0..=1000).map(f64::from).collect();
    vec![
        case("every timestep", all(), 320, 0.0, true, F32),
        case("every timestep, f16", all(), 64, 0.0, true, F16),
        case("sines first, shifted", vec![999.0, 1.0, 0.0], 32, 1.0, false, F32),
        case("fractions", vec![0.5, 123.456, 981.03], 34, 0.0, true, F32),
        case("one frequency", vec![7.0], 2, 0.0, false, F32),
    ]
}
