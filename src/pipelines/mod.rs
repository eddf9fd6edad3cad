//! Whole runs: from a request to pictures.

mod analysis;
mod cache;
mod checks;
mod choosing;
mod decoding;
mod diffusion;
mod frame;
mod latents;
mod loading;
mod memory_plan;
mod model;
mod prepared;
mod recorded;
mod request;
mod residency;
mod run;
mod stable_diffusion;
mod stable_diffusion_xl;
mod statistics;
mod table;
mod tuning;
mod tuning_file;
mod two_texts;

pub use analysis::{Analysis, AnalysisOptions, BranchAnalysis, Stage};
pub use diffusion::{DiffusionPipeline, Generation};
pub use latents::Latents;
pub use loading::load_network;
pub use memory_plan::{MemoryPlan, NetworkMemory, PlanTarget, Planner, StageMemory, plan};
pub use request::{CacheOptions, Condition, LoadOptions, Progress, Request, StorageType, VaeTiling};
pub use statistics::{Statistics, StepKind, StepStatistics};
pub use tuning::{Trial, TunedProduct, Tuning, tune};
pub use tuning_file::{Lookup, TuningFile, TuningKey};
