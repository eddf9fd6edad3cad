//! The U-Net that predicts noise: `diffusers.UNet2DConditionModel` of Stable Diffusion v1's topology.

mod blocks;
mod config;
mod network;

pub use config::UNetConfig;
pub use network::{Conditioning, UNet};
