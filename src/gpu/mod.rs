//! The device layer. Only this module, without [`recording`] and [`shader`], imports wgpu.

pub mod recording;
pub mod shader;
