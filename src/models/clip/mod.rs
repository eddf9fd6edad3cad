//! The text encoder: `transformers.CLIPTextModel`.

mod config;
mod from_tensors;
mod text_model;

pub use config::ClipConfig;
pub use text_model::ClipTextModel;
