//! The text encoder: `transformers.CLIPTextModel`.

mod config;

pub use config::{Activation, ClipConfig};
