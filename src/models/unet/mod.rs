//! The U-Net that predicts noise: `diffusers.UNet2DConditionModel` of Stable Diffusion v1's topology.

mod blocks;
mod conditioning;
mod config;
mod network;

pub use conditioning::Conditioning;
pub use config::UNetConfig;
pub use network::UNet;
