//! The U-Net that predicts noise: `diffusers.UNet2DConditionModel` of Stable Diffusion v1's topology, which attends to a
//! prompt or a class, and `diffusers.UNet2DModel`, which attends to nothing else.

mod blocks;
mod conditioning;
mod config;
mod network;

pub use conditioning::Conditioning;
pub use config::UNetConfig;
pub use network::{Flow, UNet};
