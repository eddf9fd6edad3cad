//! The original DDIM code's pixel-space models (<https://github.com/ermongroup/ddim>): what their YAML file may say.

use std::path::Path;

use serde_json::json;

use crate::error::Result;
use crate::models::config_reader::ConfigReader;
use crate::models::latent_diffusion::beta;
use crate::models::unet::UNetConfig;

/// A pixel-space model, such as `cifar10.yml` or `bedroom.yml` describe.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalDdpmConfig {
    /// The U-Net.
    pub unet: UNetConfig,
    /// The first beta of the noise schedule, which is linear.
    pub beta_start: f64,
    /// The last beta of the noise schedule.
    pub beta_end: f64,
    /// Training timesteps.
    pub timesteps: usize,
}

impl OriginalDdpmConfig {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the file cannot be read, [`Error::Config`](crate::Error::Config) if a
    /// key is missing, malformed, unknown, or asks for what is not supported.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = ConfigReader::open_yaml(path.as_ref())?;
        let unet = UNetConfig::from_original_ddpm(&mut file)?;
        let mut diffusion = file.child("diffusion")?;
        diffusion.only("beta_schedule", &[json!("linear")])?;
        let config = Self {
            unet,
            beta_start: beta(&mut diffusion, "beta_start", 1e-4)?,
            beta_end: beta(&mut diffusion, "beta_end", 2e-2)?,
            timesteps: diffusion.size("num_diffusion_timesteps", 1000)?,
        };
        diffusion.finish(&[])?;
        file.finish(&["training", "sampling", "optim"])?;
        Ok(config)
    }
}
