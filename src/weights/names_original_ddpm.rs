//! Names of the original DDIM code (<https://github.com/ermongroup/ddim>), turned into those of diffusers.

use super::names_latent_diffusion::{block, middle};

/// The U-Net of `levels` levels.
///
/// - `down.0.block.1.temb_proj.bias` is `down_blocks.0.resnets.1.time_emb_proj.bias`
/// - `up.0.…` is the outermost level, `up_blocks.{levels - 1}.…`
#[must_use]
pub fn unet(name: &str, levels: usize) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    match part {
        "conv_in" | "conv_out" => Some(name.to_owned()),
        "norm_out" => Some(format!("conv_norm_out.{rest}")),
        "temb" => {
            let (number, leaf) = rest.strip_prefix("dense.")?.split_once('.')?;
            let number = usize::from(number.parse::<u16>().ok()?);
            (number < 2).then(|| format!("time_embedding.linear_{}.{leaf}", number + 1))
        }
        "mid" => Some(format!("mid_block.{}", middle(rest)?)),
        "down" | "up" => {
            let (level, rest) = rest.split_once('.')?;
            let level = usize::from(level.parse::<u16>().ok()?);
            let number = if part == "up" { levels.checked_sub(1)?.checked_sub(level)? } else { level };
            Some(format!("{part}_blocks.{number}.{}", block(rest)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::unet;

    #[test]
    fn the_unet_has_the_names_of_diffusers() {
        for (original, today) in [
            ("temb.dense.0.weight", "time_embedding.linear_1.weight"),
            ("temb.dense.1.bias", "time_embedding.linear_2.bias"),
            ("conv_in.bias", "conv_in.bias"),
            ("norm_out.weight", "conv_norm_out.weight"),
            ("down.1.block.0.nin_shortcut.bias", "down_blocks.1.resnets.0.conv_shortcut.bias"),
            ("down.0.block.1.temb_proj.bias", "down_blocks.0.resnets.1.time_emb_proj.bias"),
            ("down.1.attn.0.q.weight", "down_blocks.1.attentions.0.to_q.weight"),
            ("down.2.downsample.conv.bias", "down_blocks.2.downsamplers.0.conv.bias"),
            ("mid.attn_1.proj_out.bias", "mid_block.attentions.0.to_out.0.bias"),
            ("up.0.block.2.conv1.bias", "up_blocks.3.resnets.2.conv1.bias"),
            ("up.3.upsample.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ] {
            assert_eq!(unet(original, 4).as_deref(), Some(today), "{original}");
        }
        for other in ["logvar", "temb.dense.2.weight", "up.4.block.0.conv1.bias", "module.conv_in.bias"] {
            assert_eq!(unet(other, 4), None, "{other}");
        }
    }
}
