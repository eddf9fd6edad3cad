//! The layers of a network, by the names that LoRA files have for them.

use std::collections::BTreeMap;

use super::keys::Network;
use crate::weights::checkpoint::Checkpoint;
use crate::weights::originals_latent_diffusion as originals;

/// What the last projection of a text encoder is called where it is stored the other way round.
const TRANSPOSED: &str = "text_projection.transposed";

/// A layer that can be changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// The name of its weight in the checkpoint.
    pub(super) weight: Option<String>,
    /// The name of its bias in the checkpoint.
    pub(super) bias: Option<String>,
    /// Whether the weight is stored as `[inputs, outputs]`.
    pub(super) transposed: bool,
}

/// All layers of a network, by their names with `_` for every dot.
#[derive(Debug)]
pub(super) struct Targets(BTreeMap<String, Target>);

impl Targets {
    pub(super) fn of(network: Network, checkpoint: &Checkpoint) -> Self {
        let original = Originals::of(checkpoint);
        let mut targets: BTreeMap<String, Target> = BTreeMap::new();
        for name in checkpoint.readable() {
            let Some((layer, leaf)) = name.rsplit_once('.') else { continue };
            let mut names = vec![layer.to_owned()];
            if network == Network::Unet {
                names.extend(original.layer(layer));
            } else {
                names.extend(other_text_name(layer));
            }
            for layer in names {
                let target = targets.entry(layer.replace('.', "_")).or_default();
                match leaf {
                    "weight" => target.weight = Some(name.to_owned()),
                    "bias" => target.bias = Some(name.to_owned()),
                    _ if name == TRANSPOSED => {
                        target.weight = Some(name.to_owned());
                        target.transposed = true;
                    }
                    _ => {}
                }
            }
        }
        Self(targets)
    }

    pub(super) fn get(&self, layer: &str) -> Option<&Target> {
        self.0.get(layer)
    }
}

/// `text_model.` comes and goes between versions of transformers.
fn other_text_name(layer: &str) -> Option<String> {
    if layer == "text_projection" {
        return None;
    }
    Some(match layer.strip_prefix("text_model.") {
        Some(short) => short.to_owned(),
        None => format!("text_model.{layer}"),
    })
}

/// The names of a U-Net in the original code, by which some trainers go, whatever the model's own files have.
struct Originals {
    layers: usize,
    up_attention: Vec<bool>,
}

impl Originals {
    fn of(checkpoint: &Checkpoint) -> Self {
        let layers = checkpoint.count(|layer| format!("down_blocks.0.resnets.{layer}.conv1.weight"));
        let levels = checkpoint.count(|level| format!("down_blocks.{level}.resnets.0.conv1.weight"));
        let attends =
            |block: usize| checkpoint.shape(&format!("up_blocks.{block}.attentions.0.norm.weight")).is_some();
        Self { layers, up_attention: (0..levels).rev().map(attends).collect() }
    }

    fn layer(&self, layer: &str) -> Option<String> {
        let name = originals::unet(&format!("{layer}.weight"), self.layers, &self.up_attention)?;
        Some(name.strip_prefix("model.diffusion_model.")?.strip_suffix(".weight")?.to_owned())
    }
}
