//! The networks, and what their `config.json` may say.

pub mod clip;
mod config_reader;
mod from_tensors;
pub mod latent_diffusion;
mod original_ddpm;
pub mod tiny_autoencoder;
pub mod unet;
pub mod vae;
pub mod vq;

pub use original_ddpm::OriginalDdpmConfig;
