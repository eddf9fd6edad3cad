//! The shapes that the work of the models lies in: a step of Stable Diffusion v1.5 and SDXL, the VAE, CLIP.

use deepcache::Result;
use deepcache::gpu::recording::Recording;
use deepcache::kernels::Affine;
use deepcache::kernels::attention::{AttentionConfig, View, attention};
use deepcache::kernels::conv2d::{self, Conv2dConfig, Padding, conv2d};
use deepcache::kernels::geglu::geglu;
use deepcache::kernels::group_norm::{GroupNormConfig, group_norm};
use deepcache::kernels::layer_norm::layer_norm;
use deepcache::kernels::matmul::{self, matmul};
use deepcache::tensor::{ElementType, Tensor};

use super::support::Bench;

/// An operation with its extents.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// Images, height, width, channels, outputs, window, stride.
    Convolution([usize; 7]),
    /// M, K, N.
    Product([usize; 3]),
    /// Images, heads, queries, keys, channels of a head.
    Attention([usize; 5]),
    /// Images, height, width, channels.
    GroupNorm([usize; 4]),
    /// Rows, channels.
    LayerNorm([usize; 2]),
    /// Rows, channels.
    Geglu([usize; 2]),
}

/// An operation of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) model: &'static str,
    pub(crate) operation: Operation,
    /// Whether `--quick` has it.
    pub(crate) quick: bool,
}

const fn shape(model: &'static str, operation: Operation) -> Shape {
    Shape { model, operation, quick: false }
}

const fn main_shape(model: &'static str, operation: Operation) -> Shape {
    Shape { model, operation, quick: true }
}

/// Both guidance halves at 512x512 for Stable Diffusion v1.5, one half for SDXL at 1024x1024.
pub(crate) const SHAPES: [Shape; 33] = {
    use Operation::{Attention, Convolution, Geglu, GroupNorm, LayerNorm, Product};
    [
        main_shape("sd15", Convolution([1, 64, 64, 320, 320, 3, 1])),
        main_shape("sd15", Convolution([1, 32, 32, 640, 640, 3, 1])),
        main_shape("sd15", Convolution([1, 16, 16, 1280, 1280, 3, 1])),
        shape("sd15", Convolution([2, 64, 64, 320, 320, 3, 1])),
        shape("sd15", Convolution([2, 32, 32, 1280, 1280, 3, 1])),
        shape("sd15", Convolution([2, 8, 8, 1280, 1280, 3, 1])),
        shape("sd15", Convolution([2, 64, 64, 320, 320, 3, 2])),
        shape("sd15", Convolution([2, 64, 64, 640, 320, 1, 1])),
        shape("sd15", Convolution([2, 64, 64, 4, 320, 3, 1])),
        shape("sd15", Convolution([2, 64, 64, 320, 4, 3, 1])),
        main_shape("sd15", Product([4096, 320, 2560])),
        main_shape("sd15", Product([1024, 640, 5120])),
        main_shape("sd15", Product([256, 1280, 10240])),
        shape("sd15", Product([8192, 320, 320])),
        shape("sd15", Product([8192, 1280, 320])),
        shape("sd15", Product([512, 5120, 1280])),
        shape("sd15", Product([154, 768, 1280])),
        main_shape("sd15", Attention([1, 8, 4096, 4096, 40])),
        main_shape("sd15", Attention([1, 8, 1024, 1024, 80])),
        shape("sd15", Attention([2, 8, 256, 256, 160])),
        shape("sd15", Attention([2, 8, 4096, 77, 40])),
        main_shape("sd15", GroupNorm([1, 64, 64, 320])),
        shape("sd15", GroupNorm([2, 64, 64, 960])),
        shape("sd15", GroupNorm([2, 8, 8, 2560])),
        shape("sd15", LayerNorm([8192, 320])),
        shape("sd15", Geglu([8192, 1280])),
        shape("sdxl", Product([4096, 640, 5120])),
        shape("sdxl", Product([1024, 1280, 10240])),
        shape("sdxl", Attention([1, 10, 4096, 4096, 64])),
        shape("sdxl", Convolution([1, 64, 64, 640, 640, 3, 1])),
        shape("vae", Convolution([1, 256, 256, 256, 256, 3, 1])),
        shape("vae", Attention([1, 1, 4096, 4096, 512])),
        shape("clip", Product([77, 768, 3072])),
    ]
};

impl Operation {
    /// `conv 3x3 320->320 at 64x64`.
    pub(crate) fn name(&self) -> String {
        match *self {
            Self::Convolution([images, height, width, channels, outputs, window, stride]) => {
                let stride = if stride == 1 { String::new() } else { format!(" /{stride}") };
                format!("{images} x conv {window}x{window}{stride} {channels}->{outputs} at {height}x{width}")
            }
            Self::Product([rows, terms, columns]) => format!("matmul {rows}x{terms}x{columns}"),
            Self::Attention([images, heads, queries, keys, size]) => {
                format!("attention {images}x{heads} heads of {size}, {queries} on {keys}")
            }
            Self::GroupNorm([images, height, width, channels]) => {
                format!("group_norm {images}x{height}x{width}x{channels}")
            }
            Self::LayerNorm([rows, channels]) => format!("layer_norm {rows}x{channels}"),
            Self::Geglu([rows, channels]) => format!("geglu {rows}x{channels}"),
        }
    }

    /// Records it with inputs of random numbers.
    pub(crate) fn record(
        &self,
        bench: &mut Bench,
        recording: &mut Recording,
        element: ElementType,
    ) -> Result<Tensor> {
        match *self {
            Self::Convolution([images, height, width, channels, outputs, window, stride]) => {
                let input = bench.random(&[images, height, width, channels], element)?;
                let weight = bench.random(&[window * window * channels, outputs], element)?;
                let bias = bench.random(&[outputs], ElementType::F32)?;
                let config = Conv2dConfig { kernel: [window; 2], stride, padding: Padding::same(window / 2) };
                let epilogue = conv2d::Epilogue { bias: Some(&bias), ..conv2d::Epilogue::default() };
                conv2d(recording, &input, None, &weight, &config, &epilogue)
            }
            Self::Product([rows, terms, columns]) => {
                let input = bench.random(&[rows, terms], element)?;
                let weight = bench.random(&[terms, columns], element)?;
                let bias = bench.random(&[columns], ElementType::F32)?;
                let epilogue = matmul::Epilogue { bias: Some(&bias), ..matmul::Epilogue::default() };
                matmul(recording, &input, &weight, &epilogue)
            }
            Self::Attention([images, heads, queries, keys, head_size]) => {
                let width = heads * head_size;
                let query = bench.random(&[images, queries, width], element)?;
                let [key, value] = [
                    bench.random(&[images, keys, width], element)?,
                    bench.random(&[images, keys, width], element)?,
                ];
                #[expect(clippy::cast_precision_loss, reason = "a small number")]
                let scale = (head_size as f32).powf(-0.5);
                let config = AttentionConfig { heads, head_size, causal: false, scale };
                let view = |tensor| View { tensor, first_channel: 0 };
                attention(recording, view(&query), view(&key), view(&value), &config)
            }
            Self::GroupNorm([images, height, width, channels]) => {
                let input = bench.random(&[images, height, width, channels], element)?;
                let affine = affine(bench, channels)?;
                let config = GroupNormConfig { groups: 32, epsilon: 1e-5, silu: true };
                group_norm(recording, &input, None, &affine, &config)
            }
            Self::LayerNorm([rows, channels]) => {
                let input = bench.random(&[rows, channels], element)?;
                let affine = affine(bench, channels)?;
                layer_norm(recording, &input, &affine, 1e-5)
            }
            Self::Geglu([rows, channels]) => {
                let input = bench.random(&[rows, 2 * channels], element)?;
                geglu(recording, &input)
            }
        }
    }
}

fn affine(bench: &mut Bench, channels: usize) -> Result<Affine> {
    let weight = bench.random(&[channels], ElementType::F32)?;
    Ok(Affine { weight, bias: bench.random(&[channels], ElementType::F32)? })
}
