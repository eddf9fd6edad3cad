//! Between pictures and latents: `diffusers.AutoencoderKL`.

mod autoencoder;
mod config;
mod from_tensors;
pub mod tiling;

pub use autoencoder::{VaeDecoder, VaeEncoder};
pub use config::VaeConfig;
pub(super) use config::scaling_factor;
