//! The device layer. Only this module imports wgpu, and of it not [`choices`], [`recording`], [`shader`], `slots` and
//! `segments`.
//!
//! [`Gpu`] is one adapter with its device and queue; [`Memory`] holds what outlives a recording;
//! an [`Executor`] turns recordings into [`Program`]s over shared slots and plays them.

mod adapters;
pub mod choices;
mod context;
mod cooperative;
mod environment;
mod executor;
mod memory;
mod pipeline_cache;
mod pipelines;
mod profiler;
mod program;
pub mod recording;
mod segments;
pub mod shader;
mod slots;

pub use adapters::{AdapterDescription, list_adapters};
pub use context::Gpu;
pub use executor::{Executor, Play};
pub use memory::{Memory, PendingRead, Purpose, allocated_bytes, packed_bytes};
pub use profiler::{Profile, ProfileRow};
pub use program::Program;
pub use segments::{Part, Segments, plan_segments};
pub use slots::{PlanMode, SlotPlan, plan_slots};
