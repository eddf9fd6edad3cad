//! Layers: weights with a name, and the commands that they record.
//!
//! Each layer is named as its module in the checkpoint; the name is its part of every label that it records.

pub mod attention;
mod attention_block;
mod convolution;
mod embedding;
mod feed_forward;
mod linear;
mod normalization;
mod resample;
mod resnet_block;
mod transformer_block;

pub use attention::{CrossAttention, SelfAttention};
pub use attention_block::{AttentionBlock, AttentionBlockConfig};
pub use convolution::Convolution;
pub use embedding::{Additions, ImageEmbeddings, TextTimeEmbedding, TimestepEmbedding, TokenEmbedding};
pub use feed_forward::{GegluFeedForward, Mlp};
pub use linear::Linear;
pub use normalization::{GroupNorm, LayerNorm};
pub use resample::{Downsample, Upsample};
pub use resnet_block::{ResnetBlock, ResnetConfig, TimeTables};
pub use transformer_block::{BasicTransformerBlock, Transformer2D, TransformerConfig};
