//! The ways down and up of a checkpoint's U-Net, unit by unit.

use super::blocks::{Counters, DownStep, DownUnit, Site, UpUnit};
use crate::error::Result;
use crate::models::unet::UNetConfig;
use crate::nn::{Downsample, Upsample};
use crate::weights::{Loader, Weights};

/// The way down, and the channels of the skips that it leaves.
pub(super) fn load_down(
    config: &UNetConfig,
    root: &Weights<'_>,
    loader: &mut Loader,
    counters: &mut Counters,
) -> Result<(Vec<DownUnit>, Vec<usize>)> {
    let mut units = Vec::new();
    let mut skips = vec![config.block_out_channels[0]];
    let mut inputs = config.block_out_channels[0];
    let levels = config.block_out_channels.len();
    for (level, &channels) in config.block_out_channels.iter().enumerate() {
        let block = format!("down_blocks.{level}");
        let weights = root.child(&block);
        let attention = config.down_attention[level].then_some(level);
        let downsamples = level + 1 < levels;
        for number in 0..config.layers_per_block {
            let mut site = Site { config, weights: weights.clone(), loader, counters };
            let step = DownStep::Layer(Box::new(site.layer(number, [inputs, channels], attention)?));
            let ends_block = !downsamples && number + 1 == config.layers_per_block;
            units.push(DownUnit { block: block.clone(), step, ends_block });
            skips.push(channels);
            inputs = channels;
        }
        if downsamples {
            let padding = config.downsample_padding;
            let downsample = Downsample::load(&weights, loader, "downsamplers.0", channels, padding)?;
            units.push(DownUnit {
                block,
                step: DownStep::Downsample(Box::new(downsample)),
                ends_block: true,
            });
            skips.push(channels);
        }
    }
    Ok((units, skips))
}

/// The way up; the returned units are ordered by the skip that they read.
pub(super) fn load_up(
    config: &UNetConfig,
    root: &Weights<'_>,
    loader: &mut Loader,
    counters: &mut Counters,
    skips: &[usize],
) -> Result<Vec<UpUnit>> {
    let levels = config.block_out_channels.len();
    let layers = config.layers_per_block + 1;
    let mut units = Vec::new();
    let mut inputs = config.block_out_channels[levels - 1];
    for number in 0..levels {
        let level = levels - 1 - number;
        let channels = config.block_out_channels[level];
        let block = format!("up_blocks.{number}");
        let weights = root.child(&block);
        let attention = config.up_attention[level].then_some(level);
        for layer in 0..layers {
            let skip = skips[skips.len() - 1 - units.len()];
            let mut site = Site { config, weights: weights.clone(), loader, counters };
            let made = site.layer(layer, [inputs + skip, channels], attention)?;
            let ends_block = layer + 1 == layers;
            let upsample = if ends_block && number + 1 < levels {
                Some(Upsample::load(&weights, loader, "upsamplers.0", channels)?)
            } else {
                None
            };
            units.push(UpUnit { block: block.clone(), layer: made, upsample, ends_block });
            inputs = channels;
        }
    }
    units.reverse();
    Ok(units)
}
