//! The original latent diffusion models (<https://github.com/CompVis/latent-diffusion>): what their YAML file says
//! of the parts, and the embedder of classes.

mod class_embedder;
mod config;
mod imagenet;

pub use class_embedder::ClassEmbedder;
pub use config::LatentDiffusionConfig;
pub(super) use config::beta;
pub use imagenet::{IMAGENET_CLASSES, find_imagenet_class, imagenet_class};
