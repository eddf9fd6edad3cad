//! Diffusion U-Nets on any GPU through wgpu, with DeepCache.

pub mod deepcache;
pub mod error;
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
