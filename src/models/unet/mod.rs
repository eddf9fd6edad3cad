//! The U-Net that predicts noise: `diffusers.UNet2DConditionModel` as Stable Diffusion has it, which attends to a
//! prompt or a class, and `diffusers.UNet2DModel`, which attends to nothing else.

mod blocks;
mod conditioning;
mod config;
mod network;
mod ways;

pub use conditioning::{Conditioning, Context, REFINER_SIZES, SIZES, TextTime};
pub use config::{TextTimeConfig, UNetConfig};
pub use network::{Flow, UNet};
