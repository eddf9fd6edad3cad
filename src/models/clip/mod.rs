//! The text encoder: `transformers.CLIPTextModel`, and `CLIPTextModelWithProjection`, which also makes one vector of a
//! prompt.

mod config;
mod from_tensors;
mod text_model;

pub use config::ClipConfig;
pub use text_model::{ClipTextModel, TextStates};
