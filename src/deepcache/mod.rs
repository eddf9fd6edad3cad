//! DeepCache: what changes little from step to step is computed in some steps and kept for the others.
//!
//! Ma, Fang & Wang 2024, *DeepCache: Accelerating Diffusion Models for Free*, <https://arxiv.org/abs/2312.00858>.
//! In a *full* call the whole U-Net runs and the deep feature that enters the up path at the skip index is kept; in
//! a *shallow* call only the layers outside of the cut run, with the kept feature in place of the rest.

mod schedule;

pub use schedule::CacheSchedule;
