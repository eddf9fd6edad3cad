//! Whole runs: from a request to pictures.

mod analysis;
mod cache;
mod checks;
mod diffusion;
mod frame;
mod latents;
mod loading;
mod model;
mod request;
mod run;
mod stable_diffusion;
mod statistics;
mod table;

pub use analysis::{Analysis, AnalysisOptions, BranchAnalysis, Stage};
pub use diffusion::{DiffusionPipeline, Generation};
pub use latents::Latents;
pub use loading::load_network;
pub use request::{CacheOptions, Condition, LoadOptions, Progress, Request, StorageType};
pub use statistics::{Statistics, StepKind, StepStatistics};
