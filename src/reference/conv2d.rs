//! Twin of `conv2d`: seven loops.

use super::activation::activate;
use super::case::{Case, Input, Role};
use super::matmul::only_rows;
use super::{Operands, Outputs, add_parts};
use crate::kernels::activation::Activation;
use crate::kernels::conv2d::{Conv2dConfig, Epilogue, Padding, Params, TimeRow, conv2d};

/// Extents and geometry of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    /// `[N, H, W, C]` of the image.
    pub image: [usize; 4],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Distance between neighbouring windows.
    pub stride: usize,
    /// Zeros above and left of the image.
    pub before: [usize; 2],
    /// `[OH, OW, O]` of the output.
    pub output: [usize; 3],
}

/// The convolution of `image [N, H, W, C]` with `weight [KH, KW, C, O]`.
#[must_use]
pub fn convolution(image: &[f64], weight: &[f64], geometry: &Geometry) -> Vec<f64> {
    let [images, height, width, channels] = geometry.image;
    let [kernel_height, kernel_width] = geometry.kernel;
    let [output_height, output_width, columns] = geometry.output;
    let mut output = vec![0.0; images * output_height * output_width * columns];
    for (row, sums) in output.chunks_exact_mut(columns).enumerate() {
        let n = row / (output_height * output_width);
        let output_y = row / output_width % output_height;
        let output_x = row % output_width;
        for tap_y in 0..kernel_height {
            for tap_x in 0..kernel_width {
                let y = (output_y * geometry.stride + tap_y).wrapping_sub(geometry.before[0]);
                let x = (output_x * geometry.stride + tap_x).wrapping_sub(geometry.before[1]);
                if y >= height || x >= width {
                    continue;
                }
                for channel in 0..channels {
                    let value = image[((n * height + y) * width + x) * channels + channel];
                    let term = (tap_y * kernel_width + tap_x) * channels + channel;
                    for (sum, weight) in sums.iter_mut().zip(&weight[term * columns..]) {
                        *sum += value * weight;
                    }
                }
            }
        }
    }
    output
}

/// `second [.., C2]` behind the channels of `first [.., C1]`.
#[must_use]
pub fn concatenate(first: &[f64], first_channels: usize, second: &[f64], second_channels: usize) -> Vec<f64> {
    let pairs = first.chunks_exact(first_channels).zip(second.chunks_exact(second_channels));
    pairs.flat_map(|(first, second)| [first, second].concat()).collect()
}

/// The image of a command, joined from its inputs, and the geometry.
fn image(operands: &Operands<'_>) -> (Vec<f64>, Geometry) {
    let params: Params = operands.params();
    let size = |extent: u32| extent as usize;
    let [height, width, channels] = [params.height, params.width, params.channels].map(size);
    let [second_channels, columns, rows] = [params.second_channels, params.columns, params.rows].map(size);
    let [output_height, output_width] = [params.output_height, params.output_width].map(size);
    let first = operands.input("input");
    let image = if operands.flag("HAS_SECOND") {
        concatenate(first, channels, operands.input("second"), second_channels)
    } else {
        first.to_vec()
    };
    let geometry = Geometry {
        image: [rows / (output_height * output_width), height, width, channels + second_channels],
        kernel: [params.kernel_height, params.kernel_width].map(size),
        stride: size(params.stride),
        before: [params.top, params.left].map(size),
        output: [output_height, output_width, columns],
    };
    (image, geometry)
}

pub(crate) fn twin(operands: &Operands<'_>) -> Outputs {
    let (image, geometry) = image(operands);
    finish(operands, convolution(&image, operands.input("weight"), &geometry))
}

pub(crate) fn partial_twin(operands: &Operands<'_>) -> Outputs {
    let (image, geometry) = image(operands);
    let [.., channels] = geometry.image;
    let [.., columns] = geometry.output;
    // A part begins at a step: so many channels of one tap, or what is left of them.
    let depth = operands.definition("DEPTH") as usize;
    let tap_steps = channels.div_ceil(depth);
    let steps = operands.part_terms(geometry.kernel[0] * geometry.kernel[1] * tap_steps, 1);
    let term = |step: usize| step / tap_steps * channels + (step % tap_steps * depth).min(channels);
    let sums = steps.iter().flat_map(|steps| {
        let weight = only_rows(operands.input("weight"), columns, &(term(steps.start)..term(steps.end)));
        convolution(&image, &weight, &geometry)
    });
    vec![("sums", sums.collect())]
}

pub(crate) fn merge_twin(operands: &Operands<'_>) -> Outputs {
    let count = operands.count("output");
    finish(operands, add_parts(operands.input("sums"), count))
}

/// Bias, time embedding, residual and activation.
fn finish(operands: &Operands<'_>, mut output: Vec<f64>) -> Outputs {
    let columns = operands.params::<Params>().columns as usize;
    let time = operands.flag("HAS_TIME").then(|| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a u32 stored as f64")]
        let step = operands.input("step")[0] as usize;
        &operands.input("time")[step * columns..][..columns]
    });
    for (index, value) in output.iter_mut().enumerate() {
        if operands.flag("HAS_BIAS") {
            *value += operands.input("bias")[index % columns];
        }
        if let Some(time) = time {
            *value += time[index % columns];
        }
        if operands.flag("HAS_RESIDUAL") {
            *value += operands.input("residual")[index];
        }
        *value = activate(operands.constant("ACTIVATION").unwrap_or(0.0), *value);
    }
    vec![("output", output)]
}

/// Without a second input or an epilogue.
fn plain(name: &'static str, image: [usize; 4], columns: usize, config: Conv2dConfig) -> Case {
    case(name, image, None, columns, config, None)
}

/// With `extras`, the bias, row 2 of a table of 4 time embeddings, and a residual are added, and the sum is activated.
fn case(
    name: &'static str,
    image: [usize; 4],
    second_channels: Option<usize>,
    columns: usize,
    config: Conv2dConfig,
    extras: Option<Activation>,
) -> Case {
    const STEPS: usize = 4;
    const STEP: usize = 2;
    let [images, height, width, first_channels] = image;
    let channels = first_channels + second_channels.unwrap_or(0);
    let terms = config.kernel[0] * config.kernel[1] * channels;
    let padding = config.padding;
    let output_height = (padding.top + height + padding.bottom - config.kernel[0]) / config.stride + 1;
    let output_width = (padding.left + width + padding.right - config.kernel[1]) / config.stride + 1;
    let geometry = Geometry {
        image: [images, height, width, channels],
        kernel: config.kernel,
        stride: config.stride,
        before: [padding.top, padding.left],
        output: [output_height, output_width, columns],
    };
    #[expect(clippy::cast_precision_loss, reason = "small extents")]
    let deviation = 1.0 / (terms as f64).sqrt();
    let mut inputs = vec![
        Input::random(image, Role::Element, 1.0, 1),
        Input::random([terms, columns], Role::Weight, deviation, 2),
    ];
    if let Some(second_channels) = second_channels {
        inputs.push(Input::random([images, height, width, second_channels], Role::Element, 1.0, 3));
    }
    let first_extra = inputs.len();
    if extras.is_some() {
        inputs.push(Input::random([columns], Role::Float, 1.0, 4));
        inputs.push(Input::random([STEPS, columns], Role::Element, 1.0, 5));
        inputs.push(Input::given([1], Role::Index, vec![2.0]));
        inputs.push(Input::random([images, output_height, output_width, columns], Role::Element, 1.0, 6));
    }
    Case {
        name,
        inputs,
        record: Box::new(move |recording, tensors| {
            let second = second_channels.map(|_| &tensors[2]);
            let epilogue = match &tensors[first_extra..] {
                [bias, table, step, residual] => Epilogue {
                    bias: Some(bias),
                    time: Some(TimeRow { table, step }),
                    residual: Some(residual),
                    activation: extras.unwrap_or_default(),
                },
                _ => Epilogue::default(),
            };
            conv2d(recording, &tensors[0], second, &tensors[1], &config, &epilogue)
        }),
        expected: Box::new(move |values| {
            let image = second_channels.map_or_else(
                || values[0].clone(),
                |second_channels| concatenate(&values[0], first_channels, &values[2], second_channels),
            );
            let mut output = convolution(&image, &values[1], &geometry);
            if let [bias, table, _, residual] = &values[first_extra..] {
                for (index, value) in output.iter_mut().enumerate() {
                    let column = index % columns;
                    *value += bias[column] + table[STEP * columns + column] + residual[index];
                    *value = activate(f64::from(extras.unwrap_or_default().code()), *value);
                }
            }
            output
        }),
        terms,
    }
}

/// Awkward inputs.
#[must_use]
pub fn cases() -> Vec<Case> {
    let config = |kernel, stride, padding| Conv2dConfig { kernel, stride, padding: Padding::same(padding) };
    let same = config([3, 3], 1, 1);
    let asymmetric =
        Conv2dConfig { kernel: [3, 3], stride: 2, padding: Padding { top: 0, left: 0, bottom: 1, right: 1 } };
    let tall =
        Conv2dConfig { kernel: [5, 3], stride: 1, padding: Padding { top: 1, left: 2, bottom: 3, right: 0 } };
    let none = Some(Activation::None);
    vec![
        plain("1x1", [1, 8, 8, 32], 64, config([1, 1], 1, 0)),
        plain("3x3, padding 1", [1, 8, 8, 32], 64, same),
        plain("stride 2", [1, 9, 10, 17], 20, config([3, 3], 2, 1)),
        plain("padding behind only, stride 2", [1, 12, 10, 16], 70, asymmetric),
        plain("kernel 5x3, uneven padding", [1, 9, 7, 5], 6, tall),
        plain("9x13, two images", [2, 9, 13, 19], 67, same),
        case("second input", [1, 5, 6, 21], Some(10), 33, same, None),
        plain("one pixel", [1, 1, 1, 7], 9, same),
        plain("3 columns", [1, 10, 9, 40], 3, same),
        plain("1x1, one column", [2, 5, 7, 24], 1, config([1, 1], 1, 0)),
        plain("1x1, stride 2, two columns", [1, 5, 8, 13], 2, config([1, 1], 2, 0)),
        case("17 columns, everything fused", [1, 6, 5, 16], Some(12), 17, config([3, 3], 2, 1), none),
        case("5 columns, odd inputs, everything fused", [1, 6, 5, 3], Some(4), 5, same, none),
        plain("odd inputs, columns in fours", [1, 6, 7, 33], 40, same),
        plain("4 channels", [2, 6, 5, 4], 80, same),
        plain("padding wider than the image", [1, 2, 3, 4], 5, config([3, 3], 3, 4)),
        case("everything fused, in fours", [2, 7, 11, 20], Some(8), 68, config([3, 3], 2, 1), none),
        case("everything fused", [2, 7, 11, 18], Some(5), 66, config([3, 3], 2, 1), none),
        case("multiples of four, everything fused", [2, 7, 11, 20], Some(36), 68, config([3, 3], 2, 1), none),
        plain("long sums", [1, 4, 5, 640], 33, same),
        plain("long sums in fours, more than a tile", [1, 9, 9, 68], 68, same),
        case("relu", [1, 5, 7, 12], None, 21, same, Some(Activation::Relu)),
        case("relu, in fours", [2, 7, 5, 64], None, 64, same, Some(Activation::Relu)),
        case("long sums, silu", [1, 3, 3, 640], None, 12, same, Some(Activation::Silu)),
        case("long sums, everything fused", [1, 3, 3, 640], Some(320), 4, same, none),
    ]
}
