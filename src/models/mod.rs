//! The networks, and what their `config.json` may say.

pub mod clip;
mod config_reader;
pub mod unet;
pub mod vae;
