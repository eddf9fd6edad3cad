//! Between pictures and latents that come from a codebook: `diffusers.VQModel`, the VQ-f4 of latent diffusion.

mod autoencoder;
mod config;

pub use autoencoder::VqDecoder;
pub use config::VqConfig;
