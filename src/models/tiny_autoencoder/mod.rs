//! From latents to pictures with a small part of a VAE's work: `diffusers.AutoencoderTiny`, the port of TAESD.

mod config;
mod decoder;
mod from_tensors;

pub use config::TinyAutoencoderConfig;
pub use decoder::TinyDecoder;
