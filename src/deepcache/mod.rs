//! DeepCache: what changes little from step to step is computed in some steps and kept for the others.
//!
//! Ma, Fang & Wang 2024, *DeepCache: Accelerating Diffusion Models for Free*, <https://arxiv.org/abs/2312.00858>.
//! In a *full* call the whole U-Net runs and the deep feature that enters the up path at the skip index is kept; in
//! a *shallow* call only the layers outside of the cut run, with the kept feature in place of the rest.
//!
//! Everything here is pure: no tensor, no device.

mod branch;
mod placement;
mod planning;
mod profile;
mod refresh;
mod reuse;
mod schedule;

pub use branch::{describe_branch, parse_branch};
pub use planning::{Budget, Placement, Plan};
pub use profile::{BranchProfile, CacheProfile, ProfileSubject, Trial};
pub use refresh::Refresh;
pub use reuse::Reuse;
pub use schedule::CacheSchedule;
