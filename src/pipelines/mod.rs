//! Whole runs: from a request to pictures.

mod analysis;
mod cache;
mod checks;
mod choosing;
mod diffusion;
mod embeddings;
mod frame;
mod latents;
mod loading;
mod loras;
mod model;
mod one_text;
mod request;
mod run;
mod stable_diffusion;
mod stable_diffusion_xl;
mod statistics;
mod table;
mod tuning;
mod tuning_file;
mod two_texts;
mod wording;

pub use crate::tokenizer::PromptSyntax;
pub use analysis::{Analysis, AnalysisOptions, BranchAnalysis, Stage};
pub use diffusion::{DiffusionPipeline, Generation};
pub use latents::Latents;
pub use loading::load_network;
pub use request::{CacheOptions, Condition, LoadOptions, Progress, Request, StorageType};
pub use statistics::{Statistics, StepKind, StepStatistics};
pub use tuning::{Trial, TunedProduct, Tuning, tune};
pub use tuning_file::{Lookup, TuningFile, TuningKey};
