//! What a full call is made of.

use std::collections::HashMap;

use super::Stage;
use crate::gpu::{Profile, Program};

/// The parts of a U-Net call with their shares of its cost and its time.
pub(super) fn stages(profile: Option<&Profile>, program: &Program) -> Vec<Stage> {
    let mut stages: Vec<(String, f64, f64)> = Vec::new();
    let mut times: HashMap<String, f64> = HashMap::new();
    for row in profile.map(Profile::rows).unwrap_or_default() {
        *times.entry(stage_of(&row.label)).or_default() += row.seconds;
    }
    for (label, cost) in program.costs() {
        let name = stage_of(label);
        #[expect(clippy::cast_precision_loss, reason = "a share is wanted")]
        let macs = cost.multiply_accumulates as f64;
        match stages.iter_mut().find(|(other, ..)| *other == name) {
            Some(stage) => stage.1 += macs,
            None => {
                let time = times.get(&name).copied().unwrap_or_default();
                stages.push((name, macs, time));
            }
        }
    }
    let [all_macs, all_time] = [0, 1].map(|part| {
        let sum: f64 = stages.iter().map(|stage| if part == 0 { stage.1 } else { stage.2 }).sum();
        sum.max(f64::MIN_POSITIVE)
    });
    stages
        .into_iter()
        .map(|(name, macs, time)| Stage {
            name,
            macs: macs / all_macs,
            time: profile.map(|_| time / all_time),
        })
        .collect()
}

/// `full/unet/down_blocks.0/resnets.1/…` belongs to `down_blocks.0`, what is not of the U-Net to itself.
fn stage_of(label: &str) -> String {
    let mut parts = label.split('/').skip(1);
    match (parts.next(), parts.next()) {
        (Some("unet"), Some("conv_norm_out" | "conv_out")) => "head".to_owned(),
        (Some("unet"), Some(module)) => module.to_owned(),
        (Some(other), _) => other.to_owned(),
        (None, _) => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::stage_of;

    #[test]
    fn dispatches_belong_to_the_blocks_of_their_network() {
        for (label, stage) in [
            ("full/unet/down_blocks.0/resnets.1/conv1/conv2d", "down_blocks.0"),
            ("full/unet/conv_in/conv2d", "conv_in"),
            ("full/unet/conv_norm_out/group_norm", "head"),
            ("full/unet/conv_out/conv2d", "head"),
            ("full/scheduler/guidance", "scheduler"),
            ("full", "full"),
        ] {
            assert_eq!(stage_of(label), stage, "{label}");
        }
    }
}
