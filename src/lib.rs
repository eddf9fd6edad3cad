//! Diffusion U-Nets on any GPU through wgpu, with DeepCache.

pub mod deepcache;
pub mod error;
pub mod gpu;
pub mod kernels;
pub mod random;
pub mod reference;
pub mod schedulers;
pub mod models;
pub mod tensor;
pub mod weights;
pub mod tokenizer;

pub use error::{Error, Result};
