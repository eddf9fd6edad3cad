//! Whole runs: from a prompt to pictures.

mod latents;
mod loading;
mod request;
mod run;
mod statistics;
mod text_to_image;

pub use latents::Latents;
pub use loading::load_model;
pub use request::{CacheOptions, LoadOptions, Progress, StorageType, TextToImageRequest};
pub use statistics::{Statistics, StepKind, StepStatistics};
pub use text_to_image::{Generation, TextToImage};
