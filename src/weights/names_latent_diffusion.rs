//! Names of the original latent diffusion code (CompVis), turned into those of diffusers.
//!
//! One file holds several networks side by side. Each function here knows one of them: it gives a tensor's name
//! in diffusers, without any prefix, or nothing where the tensor belongs to another network.

use super::names_diffusers::attention_of_original;

/// `model.diffusion_model.…`: the U-Net, whose blocks have `layers` residual blocks on the way down.
///
/// - `input_blocks.1.0.in_layers.2.weight` is `down_blocks.0.resnets.0.conv1.weight`
/// - `output_blocks.2.1.conv.weight` is `up_blocks.0.upsamplers.0.conv.weight`
#[must_use]
pub fn unet(name: &str, layers: usize) -> Option<String> {
    let name = name.strip_prefix("model.diffusion_model.")?;
    let (part, rest) = name.split_once('.')?;
    match part {
        "time_embed" => {
            let (number, leaf) = rest.split_once('.')?;
            let number = match number {
                "0" => 1,
                "2" => 2,
                _ => return None,
            };
            Some(format!("time_embedding.linear_{number}.{leaf}"))
        }
        "label_emb" => match rest.strip_prefix("0.")?.split_once('.')? {
            ("0", leaf) => Some(format!("add_embedding.linear_1.{leaf}")),
            ("2", leaf) => Some(format!("add_embedding.linear_2.{leaf}")),
            _ => None,
        },
        "input_blocks" => input_block(rest, layers),
        "middle_block" => {
            let (number, rest) = split_number(rest)?;
            match number {
                0 => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
                1 => Some(format!("mid_block.attentions.0.{rest}")),
                2 => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
                _ => None,
            }
        }
        "output_blocks" => output_block(rest, layers),
        "out" => {
            let (number, leaf) = split_number(rest)?;
            match number {
                0 => Some(format!("conv_norm_out.{leaf}")),
                2 => Some(format!("conv_out.{leaf}")),
                _ => None,
            }
        }
        _ => None,
    }
}

/// `input_blocks.0` is the first convolution; then every level has its residual blocks and a downsampler.
fn input_block(name: &str, layers: usize) -> Option<String> {
    let (block, rest) = split_number(name)?;
    let (part, rest) = split_number(rest)?;
    if block == 0 {
        return (part == 0).then(|| format!("conv_in.{rest}"));
    }
    let (level, layer) = ((block - 1) / (layers + 1), (block - 1) % (layers + 1));
    match (part, rest.strip_prefix("op.")) {
        (0, Some(leaf)) => Some(format!("down_blocks.{level}.downsamplers.0.conv.{leaf}")),
        (0, None) => Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
        (1, None) => Some(format!("down_blocks.{level}.attentions.{layer}.{rest}")),
        _ => None,
    }
}

/// Every level has one residual block more on the way up; the upsampler follows the last layer's attention, or
/// stands in its place.
fn output_block(name: &str, layers: usize) -> Option<String> {
    let (block, rest) = split_number(name)?;
    let (part, rest) = split_number(rest)?;
    let (block, layer) = (block / (layers + 1), block % (layers + 1));
    match (part, rest.strip_prefix("conv.")) {
        (0, _) => Some(format!("up_blocks.{block}.resnets.{layer}.{}", resnet(rest)?)),
        (1 | 2, Some(leaf)) => Some(format!("up_blocks.{block}.upsamplers.0.conv.{leaf}")),
        (1, None) => Some(format!("up_blocks.{block}.attentions.{layer}.{rest}")),
        _ => None,
    }
}

/// Parts of a residual block of the U-Net, there and in diffusers.
pub(super) const RESNET: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];

fn resnet(name: &str) -> Option<String> {
    RESNET.iter().find_map(|(original, today)| Some(format!("{today}{}", name.strip_prefix(original)?)))
}

/// `first_stage_model.…`: the autoencoder, whose decoder has `levels` levels. A file that holds nothing else has no
/// such prefix.
///
/// - `decoder.up.0.block.1.conv1.weight` is `decoder.up_blocks.{levels - 1}.resnets.1.conv1.weight`
#[must_use]
pub fn autoencoder(name: &str, levels: usize) -> Option<String> {
    let name = name.strip_prefix("first_stage_model.").unwrap_or(name);
    let (side, rest) = name.split_once('.')?;
    match side {
        "quant_conv" | "post_quant_conv" | "quantize" => Some(name.to_owned()),
        "encoder" | "decoder" => Some(format!("{side}.{}", coder(rest, levels)?)),
        _ => None,
    }
}

fn coder(name: &str, levels: usize) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    match part {
        "conv_in" | "conv_out" => Some(name.to_owned()),
        "norm_out" => Some(format!("conv_norm_out.{rest}")),
        "mid" => Some(format!("mid_block.{}", middle(rest)?)),
        "down" => {
            let (level, rest) = split_number(rest)?;
            Some(format!("down_blocks.{level}.{}", block(rest)?))
        }
        "up" => {
            let (level, rest) = split_number(rest)?;
            let number = levels.checked_sub(1)?.checked_sub(level)?;
            Some(format!("up_blocks.{number}.{}", block(rest)?))
        }
        _ => None,
    }
}

/// A middle block of an autoencoder, or of the original DDPM's U-Net.
pub(super) fn middle(name: &str) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    match part {
        "block_1" => Some(format!("resnets.0.{}", shortcut(rest))),
        "attn_1" => Some(format!("attentions.0.{}", attention_of_original(rest)?)),
        "block_2" => Some(format!("resnets.1.{}", shortcut(rest))),
        _ => None,
    }
}

/// A block of an autoencoder, or of the original DDPM's U-Net, of one level.
pub(super) fn block(name: &str) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    match part {
        "block" => {
            let (number, rest) = split_number(rest)?;
            Some(format!("resnets.{number}.{}", shortcut(rest)))
        }
        "attn" => {
            let (number, rest) = split_number(rest)?;
            Some(format!("attentions.{number}.{}", attention_of_original(rest)?))
        }
        "downsample" => Some(format!("downsamplers.0.{rest}")),
        "upsample" => Some(format!("upsamplers.0.{rest}")),
        _ => None,
    }
}

fn shortcut(name: &str) -> String {
    name.replace("nin_shortcut.", "conv_shortcut.").replace("temb_proj.", "time_emb_proj.")
}

/// The text encoder of Stable Diffusion 1, behind `cond_stage_model.transformer.`, and the first of SDXL, behind
/// `conditioner.embedders.0.transformer.`
///
/// - `text_model.final_layer_norm.bias` is itself; some files leave `text_model.` out
#[must_use]
pub fn text_encoder(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    ["embeddings.", "encoder.layers.", "final_layer_norm."]
        .iter()
        .any(|part| name.starts_with(part))
        .then(|| format!("text_model.{name}"))
}

/// `cond_stage_model.embedding.…`: the table of classes.
#[must_use]
pub fn class_embedder(name: &str) -> Option<String> {
    name.strip_prefix("cond_stage_model.").filter(|rest| rest.starts_with("embedding.")).map(str::to_owned)
}

/// The averaged copy of a tensor `model.…`, whose name has lost its dots: `model_ema.diffusion_modelout0weight`.
#[must_use]
pub fn averaged(name: &str) -> Option<String> {
    Some(format!("model_ema.{}", name.strip_prefix("model.")?.replace('.', "")))
}

/// `12.rest` as its two parts; no network has blocks beyond 16 bits.
pub(super) fn split_number(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse::<u16>().ok()?.into(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unet_has_the_names_of_diffusers() {
        for (original, today) in [
            ("time_embed.2.bias", "time_embedding.linear_2.bias"),
            ("input_blocks.0.0.weight", "conv_in.weight"),
            ("input_blocks.1.0.in_layers.2.weight", "down_blocks.0.resnets.0.conv1.weight"),
            ("input_blocks.3.0.op.bias", "down_blocks.0.downsamplers.0.conv.bias"),
            ("input_blocks.5.1.proj_in.weight", "down_blocks.1.attentions.1.proj_in.weight"),
            ("middle_block.1.norm.bias", "mid_block.attentions.0.norm.bias"),
            ("middle_block.2.out_layers.3.bias", "mid_block.resnets.1.conv2.bias"),
            ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
            ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
            ("output_blocks.11.0.skip_connection.bias", "up_blocks.3.resnets.2.conv_shortcut.bias"),
            ("out.0.weight", "conv_norm_out.weight"),
            ("out.2.bias", "conv_out.bias"),
            ("label_emb.0.0.weight", "add_embedding.linear_1.weight"),
            ("label_emb.0.2.bias", "add_embedding.linear_2.bias"),
        ] {
            let found = unet(&format!("model.diffusion_model.{original}"), 2);
            assert_eq!(found.as_deref(), Some(today), "{original}");
        }
        for other in
            ["model_ema.decay", "model.diffusion_model.out.1.weight", "first_stage_model.x.y", "betas"]
        {
            assert_eq!(unet(other, 2), None, "{other}");
        }
    }

    #[test]
    fn the_autoencoder_has_the_names_of_diffusers() {
        for (original, today) in [
            (
                "encoder.down.1.block.0.nin_shortcut.bias",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
            ),
            ("encoder.down.0.downsample.conv.bias", "encoder.down_blocks.0.downsamplers.0.conv.bias"),
            ("decoder.up.0.block.2.norm1.weight", "decoder.up_blocks.2.resnets.2.norm1.weight"),
            ("decoder.up.2.upsample.conv.bias", "decoder.up_blocks.0.upsamplers.0.conv.bias"),
            ("decoder.mid.attn_1.proj_out.weight", "decoder.mid_block.attentions.0.to_out.0.weight"),
            ("decoder.mid.attn_1.norm.weight", "decoder.mid_block.attentions.0.group_norm.weight"),
            ("decoder.mid.block_2.conv2.bias", "decoder.mid_block.resnets.1.conv2.bias"),
            ("decoder.norm_out.bias", "decoder.conv_norm_out.bias"),
            ("quantize.embedding.weight", "quantize.embedding.weight"),
            ("post_quant_conv.bias", "post_quant_conv.bias"),
        ] {
            let found = autoencoder(&format!("first_stage_model.{original}"), 3);
            assert_eq!(found.as_deref(), Some(today), "{original}");
        }
        for other in ["first_stage_model.decoder.up.3.block.0.norm1.weight", "first_stage_model.loss.logvar"]
        {
            assert_eq!(autoencoder(other, 3), None, "{other}");
        }
    }

    #[test]
    fn averaged_weights_have_names_without_dots() {
        let found = averaged("model.diffusion_model.input_blocks.0.0.weight");
        assert_eq!(found.as_deref(), Some("model_ema.diffusion_modelinput_blocks00weight"));
    }
}
