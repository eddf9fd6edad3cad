//! What the original latent diffusion code calls a tensor of diffusers: [`names_latent_diffusion`] backwards.
//!
//! Errors name what is missing in a file by the file's own names.
//!
//! [`names_latent_diffusion`]: super::names_latent_diffusion

use super::names_diffusers::ATTENTION_OF_ORIGINAL;
use super::names_latent_diffusion::{RESNET, split_number};

/// A tensor of the U-Net, whose down blocks have `layers` residual blocks; `up_attention` says for every level,
/// from the outermost, whether its up block has attention.
#[must_use]
pub fn unet(name: &str, layers: usize, up_attention: &[bool]) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    let found = match part {
        "conv_in" => format!("input_blocks.0.0.{rest}"),
        "conv_norm_out" => format!("out.0.{rest}"),
        "conv_out" => format!("out.2.{rest}"),
        "time_embedding" => match rest.split_once('.')? {
            ("linear_1", leaf) => format!("time_embed.0.{leaf}"),
            ("linear_2", leaf) => format!("time_embed.2.{leaf}"),
            _ => return None,
        },
        "add_embedding" => match rest.split_once('.')? {
            ("linear_1", leaf) => format!("label_emb.0.0.{leaf}"),
            ("linear_2", leaf) => format!("label_emb.0.2.{leaf}"),
            _ => return None,
        },
        "mid_block" => match place(rest)? {
            ("resnets", number, leaf) => format!("middle_block.{}.{}", 2 * number, resnet(leaf)?),
            ("attentions", 0, leaf) => format!("middle_block.1.{leaf}"),
            _ => return None,
        },
        "down_blocks" => {
            let (level, rest) = split_number(rest)?;
            let first = 1 + level * (layers + 1);
            match place(rest)? {
                ("resnets", layer, leaf) => format!("input_blocks.{}.0.{}", first + layer, resnet(leaf)?),
                ("attentions", layer, leaf) => format!("input_blocks.{}.1.{leaf}", first + layer),
                ("downsamplers", 0, leaf) => {
                    format!("input_blocks.{}.0.op.{}", first + layers, leaf.strip_prefix("conv.")?)
                }
                _ => return None,
            }
        }
        "up_blocks" => {
            let (block, rest) = split_number(rest)?;
            let first = block * (layers + 1);
            match place(rest)? {
                ("resnets", layer, leaf) => format!("output_blocks.{}.0.{}", first + layer, resnet(leaf)?),
                ("attentions", layer, leaf) => format!("output_blocks.{}.1.{leaf}", first + layer),
                ("upsamplers", 0, leaf) => {
                    let attention = *up_attention.iter().rev().nth(block)?;
                    format!("output_blocks.{}.{}.{leaf}", first + layers, 1 + usize::from(attention))
                }
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(format!("model.diffusion_model.{found}"))
}

fn resnet(name: &str) -> Option<String> {
    RESNET.iter().find_map(|(original, today)| Some(format!("{original}{}", name.strip_prefix(today)?)))
}

/// A tensor of the autoencoder, whose decoder has `levels` levels, behind no prefix.
#[must_use]
pub fn autoencoder(name: &str, levels: usize) -> Option<String> {
    let (side, rest) = name.split_once('.')?;
    if matches!(side, "quant_conv" | "post_quant_conv" | "quantize") {
        return Some(name.to_owned());
    }
    let (part, rest) = rest.split_once('.')?;
    let found = match part {
        "conv_in" | "conv_out" => format!("{part}.{rest}"),
        "conv_norm_out" => format!("norm_out.{rest}"),
        "mid_block" => match place(rest)? {
            ("resnets", number, leaf) => format!("mid.block_{}.{}", number + 1, shortcut(leaf)),
            ("attentions", number, leaf) => format!("mid.attn_{}.{}", number + 1, attention(leaf)?),
            _ => return None,
        },
        "down_blocks" | "up_blocks" => {
            let (block, rest) = split_number(rest)?;
            let level = if part == "up_blocks" { levels.checked_sub(block + 1)? } else { block };
            let inner = match place(rest)? {
                ("resnets", number, leaf) => format!("block.{number}.{}", shortcut(leaf)),
                ("attentions", number, leaf) => format!("attn.{number}.{}", attention(leaf)?),
                ("downsamplers", 0, leaf) => format!("downsample.{leaf}"),
                ("upsamplers", 0, leaf) => format!("upsample.{leaf}"),
                _ => return None,
            };
            format!("{}.{level}.{inner}", part.trim_end_matches("_blocks"))
        }
        _ => return None,
    };
    Some(format!("{side}.{found}"))
}

fn shortcut(name: &str) -> String {
    name.replace("conv_shortcut.", "nin_shortcut.")
}

fn attention(name: &str) -> Option<String> {
    ATTENTION_OF_ORIGINAL.iter().find_map(|(original, today)| {
        let leaf = name.strip_prefix(today)?.strip_prefix('.')?;
        Some(format!("{original}.{leaf}"))
    })
}

/// `resnets.1.conv1.weight` as its three parts.
fn place(name: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = name.split_once('.')?;
    let (number, leaf) = split_number(rest)?;
    Some((list, number, leaf))
}

#[cfg(test)]
mod tests {
    use super::{autoencoder, unet};

    #[test]
    fn numbers_beyond_any_network_are_no_names() {
        for name in
            ["down_blocks.18331877777777777777", "mid_block.resnets.18331877777777777777", "up_blocks.65536"]
        {
            assert_eq!(unet(&format!("{name}.resnets.0.conv1.weight"), 2, &[]), None, "{name}");
            assert_eq!(autoencoder(&format!("decoder.{name}.resnets.0.conv1.weight"), 2), None, "{name}");
        }
        let found = unet("mid_block.resnets.1.conv1.weight", 2, &[]);
        assert_eq!(
            found.as_deref(),
            Some("model.diffusion_model.middle_block.2.in_layers.2.weight"),
            "a small one"
        );
    }
}
