//! Twins of both shaders of `group_norm`.

use super::activation::activate;
use super::case::{Case, Input, Role};
use super::{Operands, Outputs};
use crate::kernels::Affine;
use crate::kernels::activation::Activation;
use crate::kernels::group_norm::{GroupNormConfig, Params, group_norm as record_group_norm};

/// Normalises each group of channels of `input [N, P, C]` over all pixels, then scales and shifts.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn group_norm(
    input: &[f64],
    weight: &[f64],
    bias: &[f64],
    [images, pixels, channels]: [usize; 3],
    groups: usize,
    epsilon: f64,
) -> Vec<f64> {
    let group_channels = channels / groups;
    let mut output = vec![0.0; input.len()];
    for image in 0..images {
        for group in 0..groups {
            let mut members = Vec::new();
            for pixel in 0..pixels {
                for channel in group * group_channels..(group + 1) * group_channels {
                    members.push(((image * pixels + pixel) * channels + channel, channel));
                }
            }
            let count = members.len() as f64;
            let mean = members.iter().map(|&(index, _)| input[index]).sum::<f64>() / count;
            let variance =
                members.iter().map(|&(index, _)| (input[index] - mean).powi(2)).sum::<f64>() / count;
            for (index, channel) in members {
                output[index] =
                    (input[index] - mean) / (variance + epsilon).sqrt() * weight[channel] + bias[channel];
            }
        }
    }
    output
}

/// `[R, C1]` and `[R, C2]` as `[R, C1 + C2]`.
#[must_use]
pub fn concatenate(input: &[f64], second: &[f64], [first, behind]: [usize; 2]) -> Vec<f64> {
    if behind == 0 {
        return input.to_vec();
    }
    let rows = input.chunks(first).zip(second.chunks(behind));
    rows.flat_map(|(input, second)| input.iter().chain(second).copied()).collect()
}

/// The inputs as one, `[N, P, C]`, and these extents.
fn joined(operands: &Operands<'_>, params: &Params) -> (Vec<f64>, [usize; 3]) {
    let pair = [params.first_channels, params.second_channels].map(|channels| channels as usize);
    let values = concatenate(operands.input("input"), operands.input("second"), pair);
    let (pixels, channels) = (params.pixels as usize, pair[0] + pair[1]);
    let images = values.len() / (pixels * channels);
    (values, [images, pixels, channels])
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(crate) fn moments_twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let (values, [images, pixels, channels]) = joined(operands, &params);
    let group_channels = channels / params.groups as usize;
    let mut moments = Vec::new();
    for image in 0..images {
        for group in 0..params.groups as usize {
            let at = |pixel: usize, channel: usize| {
                values[(image * pixels + pixel) * channels + group * group_channels + channel]
            };
            for tile in 0..params.tiles as usize {
                let first = tile * params.tile_pixels as usize;
                let end = (first + params.tile_pixels as usize).min(pixels);
                let members: Vec<f64> = (first..end)
                    .flat_map(|pixel| (0..group_channels).map(move |channel| (pixel, channel)))
                    .map(|(pixel, channel)| at(pixel, channel) - at(0, 0))
                    .collect();
                let count = members.len() as f64;
                let mean = members.iter().sum::<f64>() / count;
                let squares = members.iter().map(|value| (value - mean).powi(2)).sum();
                moments.extend([count, mean, squares]);
            }
        }
    }
    vec![("moments", moments)]
}

pub(crate) fn apply_twin(operands: &Operands<'_>) -> Outputs {
    let params: Params = operands.params();
    let (values, [images, pixels, channels]) = joined(operands, &params);
    let (groups, tiles) = (params.groups as usize, params.tiles as usize);
    let group_channels = channels / groups;
    let (moments, weight, bias) =
        (operands.input("moments"), operands.input("weight"), operands.input("bias"));
    let code = operands.constant("ACTIVATION").unwrap_or(0.0);
    let mut output = vec![0.0; values.len()];
    for image in 0..images {
        for group in 0..groups {
            let parts = moments[(image * groups + group) * tiles * 3..][..tiles * 3].chunks(3);
            let count: f64 = parts.clone().map(|part| part[0]).sum();
            let mean = parts.clone().map(|part| part[0] * part[1]).sum::<f64>() / count;
            let squares: f64 = parts.map(|part| part[2] + part[0] * (part[1] - mean).powi(2)).sum();
            let shift = values[image * pixels * channels + group * group_channels];
            let deviation = (squares / count + f64::from(params.epsilon)).sqrt();
            for pixel in 0..pixels {
                for channel in group * group_channels..(group + 1) * group_channels {
                    let index = (image * pixels + pixel) * channels + channel;
                    let normal = (values[index] - shift - mean) / deviation;
                    output[index] = activate(code, normal * weight[channel] + bias[channel]);
                }
            }
        }
    }
    vec![("output", output)]
}

fn case(name: &'static str, first: Input, second: Option<Input>, groups: usize, silu: bool) -> Case {
    let config = GroupNormConfig { groups, epsilon: 1e-5, silu };
    let extents = first.shape.extents();
    let (images, rows) = (extents[0], first.shape.rows());
    let pair = [first.shape.channels(), second.as_ref().map_or(0, |second| second.shape.channels())];
    let (pixels, channels) = (rows / images, pair[0] + pair[1]);
    let mut inputs = vec![
        Input::random([channels], Role::Float, 1.0, 11),
        Input::random([channels], Role::Float, 1.0, 12),
        first,
    ];
    inputs.extend(second);
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            let affine = Affine { weight: tensors[0].clone(), bias: tensors[1].clone() };
            record_group_norm(recording, &tensors[2], tensors.get(3), &affine, &config)
        }),
        expected: Box::new(move |values| {
            let second = values.get(3).map_or(&[][..], |second| &second[..]);
            let input = concatenate(&values[2], second, pair);
            let epsilon = f64::from(config.epsilon);
            let normal =
                group_norm(&input, &values[0], &values[1], [images, pixels, channels], groups, epsilon);
            let kind = if silu { Activation::Silu } else { Activation::None };
            normal.into_iter().map(|x| activate(f64::from(kind.code()), x)).collect()
        }),
        terms: pixels * channels / groups,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let random = |shape: [usize; 4], seed| Input::random(shape, Role::Element, 2.0, seed);
    let shifted = |role, mean: f64| {
        let mut input = Input::random([1, 17, 13, 8], role, 1.0, 7);
        input.values.iter_mut().for_each(|value| *value += mean);
        input
    };
    let mut outlier = Input::random([1, 40, 40, 4], Role::Element, 0.01, 9);
    outlier.values[0] = 300.0;
    vec![
        case("plain", random([1, 8, 8, 64], 1), None, 32, false),
        case("two images, silu", random([2, 16, 16, 32], 2), None, 8, true),
        case("one pixel", random([2, 1, 1, 24], 3), None, 4, false),
        case("one pixel, one channel a group", random([1, 1, 1, 5], 4), None, 5, false),
        case("one channel a group", random([1, 7, 11, 70], 5), None, 70, true),
        case("odd channels a group, primes", random([2, 13, 19, 21], 6), None, 3, false),
        case("one group of more channels than lanes", random([1, 3, 2, 303], 7), None, 1, true),
        case("tokens", Input::random([2, 77, 40], Role::Element, 1.0, 8), None, 8, false),
        case("many tiles, uneven", random([1, 211, 173, 6], 9), None, 2, true),
        case("mean of 1000", shifted(Role::Element, 1000.0), None, 2, false),
        case("first value far away", outlier, None, 2, false),
        case("constant", Input::given([1, 5, 5, 4], Role::Element, vec![3.5; 100]), None, 2, true),
        case("two inputs", random([2, 8, 8, 64], 10), Some(random([2, 8, 8, 32], 11)), 32, true),
        case("group over both inputs", random([1, 9, 7, 10], 12), Some(random([1, 9, 7, 5], 13)), 3, true),
        case(
            "tokens of two inputs",
            Input::random([2, 31, 7], Role::Element, 1.0, 14),
            Some(Input::random([2, 31, 11], Role::Element, 3.0, 15)),
            2,
            false,
        ),
    ]
}
