//! The autoencoder between latents and pixels: `diffusers.AutoencoderKL`.

mod config;

pub use config::VaeConfig;
