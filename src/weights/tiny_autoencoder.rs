//! Tiny autoencoders in one file: the names that their tensors go by.
//!
//! diffusers counts the layers of a decoder from its first convolution, `decoder.layers.0.weight`. The original code
//! has a layer without weights before it, so that the convolution is `1.weight`; other programs put words in front.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpoint::Checkpoint;
use super::names_latent_diffusion::split_number;
use crate::error::Result;

/// A network of layers with numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layers {
    /// What stands in front of the numbers.
    prefix: String,
    /// The number of the first convolution.
    first: usize,
    /// Channels that the first convolution reads.
    inputs: usize,
    /// Channels that the last one makes.
    outputs: usize,
}

impl Layers {
    /// Pictures have three channels, and latents more.
    fn is_decoder(&self) -> bool {
        self.inputs > 3 && self.outputs == 3
    }

    fn is_encoder(&self) -> bool {
        self.inputs == 3 && self.outputs > 3
    }
}

/// The networks of a file whose residual blocks are three convolutions `conv.0`, `conv.2` and `conv.4`.
fn networks(checkpoint: &Checkpoint) -> Vec<Layers> {
    let is_block = |name: &str| {
        let Some(block) = name.strip_suffix(".conv.0.weight") else { return false };
        let has = |leaf: &str| checkpoint.shape(&format!("{block}.{leaf}")).is_some();
        has("conv.2.weight") && has("conv.4.weight")
    };
    let blocks = checkpoint.names().filter(|name| is_block(name));
    let prefixes: BTreeSet<&str> = blocks.filter_map(|name| Some(split_layer(name)?.0)).collect();
    prefixes.into_iter().filter_map(|prefix| layers(checkpoint, prefix)).collect()
}

fn layers(checkpoint: &Checkpoint, prefix: &str) -> Option<Layers> {
    let own = checkpoint.names().filter_map(|name| split_number(name.strip_prefix(prefix)?));
    let convolutions: BTreeMap<usize, [usize; 2]> = own
        .filter(|(_, leaf)| *leaf == "weight")
        .filter_map(|(number, _)| match checkpoint.shape(&format!("{prefix}{number}.weight"))? {
            [outputs, inputs, 3, 3] => Some((number, [*outputs, *inputs])),
            _ => None,
        })
        .collect();
    let (&first, &[_, inputs]) = convolutions.first_key_value()?;
    let (_, &[outputs, _]) = convolutions.last_key_value()?;
    Some(Layers { prefix: prefix.to_owned(), first, inputs, outputs })
}

/// `decoder.layers.12.conv.0.weight` as what stands in front of the number, and the number.
fn split_layer(name: &str) -> Option<(&str, usize)> {
    let block = name.strip_suffix(".conv.0.weight")?;
    let start = block.rfind('.').map_or(0, |dot| dot + 1);
    Some((&block[..start], block[start..].parse::<u16>().ok()?.into()))
}

impl Checkpoint {
    /// Whether these tensors are, or have among them, the decoder or the encoder of a tiny autoencoder.
    #[must_use]
    pub fn has_tiny_autoencoder(&self) -> bool {
        networks(self).iter().any(|network| network.is_decoder() || network.is_encoder())
    }

    /// The decoder of a tiny autoencoder under the names of diffusers, whatever the file's own are.
    ///
    /// # Errors
    /// [`Error::Weights`](crate::Error::Weights) if there is none, or more than one.
    pub fn into_tiny_decoder(self) -> Result<Self> {
        let networks = networks(&self);
        let decoders: Vec<&Layers> = networks.iter().filter(|network| network.is_decoder()).collect();
        let decoder = match decoders[..] {
            [decoder] => decoder.clone(),
            [] if networks.iter().any(Layers::is_encoder) => {
                let problem = "holds the encoder of a tiny autoencoder (TAESD) alone, expected its decoder";
                return Err(self.refuse(problem));
            }
            [] => {
                let problem = "holds no decoder of a tiny autoencoder (TAESD) by the names and shapes of its tensors: \
                    looked for 1.weight, 3.conv.0.weight, … (the original code) and decoder.layers.0.weight, \
                    decoder.layers.2.conv.0.weight, … (diffusers), with or without words in front";
                return Err(self.refuse(problem));
            }
            [first, second, ..] => {
                let problem = format!(
                    "holds several decoders of tiny autoencoders: {}* and {}*",
                    first.prefix, second.prefix
                );
                return Err(self.refuse(problem));
            }
        };
        const TODAY: &str = "decoder.layers.";
        let Layers { prefix, first, .. } = decoder;
        let renamed = self.renamed(|name| {
            let (number, leaf) = split_number(name.strip_prefix(&prefix)?)?;
            Some(format!("{TODAY}{}.{leaf}", number.checked_sub(first)?))
        });
        Ok(renamed.with_original_names(move |name| {
            let (number, leaf) = split_number(name.strip_prefix(TODAY)?)?;
            Some(format!("{prefix}{}.{leaf}", number + first))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::split_layer;

    #[test]
    fn layers_have_numbers_behind_any_prefix() {
        for (name, prefix, number) in [
            ("3.conv.0.weight", "", 3),
            ("decoder.layers.12.conv.0.weight", "decoder.layers.", 12),
            ("taesd_decoder.4.conv.0.weight", "taesd_decoder.", 4),
        ] {
            assert_eq!(split_layer(name), Some((prefix, number)), "{name}");
        }
        for other in
            ["conv.0.weight", "decoder.mid.conv.0.weight", "3.conv.2.weight", "9999999.conv.0.weight"]
        {
            assert_eq!(split_layer(other), None, "{other}");
        }
    }
}
