//! The U-Net that predicts noise: `diffusers.UNet2DConditionModel` as in Stable Diffusion 1 and 2.

mod config;

pub use config::UNetConfig;
