//! Diffusion U-Nets on any GPU through wgpu, with DeepCache.
//!
//! Stable Diffusion v1, v2 and XL, class-conditional latent diffusion and DDPM models run on Vulkan, Metal and DX12 with
//! hand-written WGSL kernels: no CUDA, no Python, no C++ runtime. [DeepCache](https://arxiv.org/abs/2312.00858) keeps the deep
//! features of the U-Net on the GPU between denoising steps, so that most steps recompute only the shallow layers.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use deepcache::pipelines::{CacheOptions, DiffusionPipeline, LoadOptions, Request};
//!
//! # fn main() -> deepcache::Result<()> {
//! let mut pipeline = DiffusionPipeline::load("models/stable-diffusion-v1-5", &LoadOptions::default())?;
//! let request = Request {
//!     seed: 7,
//!     cache: Some(CacheOptions::uniform(3, 0)),
//!     ..Request::prompt("a lighthouse at dusk")
//! };
//! // Called between steps: show the progress, or answer `Break` to stop.
//! let generation = pipeline.generate(&request, |progress| {
//!     println!("{progress:?}");
//!     ControlFlow::Continue(())
//! })?;
//! generation.pictures[0].save("lighthouse.png", &[])?;
//! # Ok(())
//! # }
//! ```
//!
//! [`pipelines`] is the front door. Below it, [`models`] record their work into a
//! [`Recording`](gpu::recording::Recording), which a [`gpu::Executor`] plays on a device and [`mod@reference`] on the
//! CPU; an application with a pipeline of its own can use them as [`pipelines`] does.

pub mod deepcache;
#[cfg(feature = "download")]
pub mod download;
pub mod error;
pub mod files;
pub mod gpu;
pub mod image;
pub mod kernels;
pub mod models;
pub mod nn;
pub mod pipelines;
pub mod random;
pub mod reference;
pub mod schedulers;
pub mod tensor;
pub mod tokenizer;
pub mod weights;

pub use error::{Error, Result};

/// The README's code is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
