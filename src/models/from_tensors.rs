//! Checks of networks whose shape is told from their tensors, where there is no configuration.

use std::ops::RangeInclusive;

use crate::error::Result;
use crate::weights::Checkpoint;

/// What helps where a model is not of the usual shape.
const ADVICE: &str = "if the model is of another shape, give the directory of its configuration (--config)";

/// Levels of a network; the tensor `first` is what every one has.
pub(super) fn expect_levels(checkpoint: &Checkpoint, first: &str, levels: usize, least: usize) -> Result<()> {
    let supported: RangeInclusive<usize> = least..=6;
    if levels == 0 {
        checkpoint.extents::<4>(first)?;
    }
    if supported.contains(&levels) {
        return Ok(());
    }
    Err(checkpoint.refuse(format!("has a network of {levels} levels, supported are {least} to 6")))
}

/// Channels that a tensor has must be divisible by what models of this kind divide them by.
pub(super) fn expect_divisible(
    checkpoint: &Checkpoint,
    name: &str,
    channels: usize,
    divisor: usize,
    what: &str,
) -> Result<()> {
    if channels.is_multiple_of(divisor) {
        return Ok(());
    }
    let problem =
        format!("has {channels} channels, which do not fit {what} as in the released models; {ADVICE}");
    Err(checkpoint.problem(name, problem))
}
