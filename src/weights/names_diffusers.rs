//! Names that older files give to the tensors that diffusers and transformers name today.

/// Attention projections of autoencoders and unconditional U-Nets before diffusers 0.18.
const ATTENTION: [(&str, &str); 4] =
    [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];

/// Other names under which the tensor called `name` today may be stored.
///
/// - `….attentions.0.to_q.weight` was `….attentions.0.query.weight`
/// - `text_model.encoder.…` is `encoder.…` in files of transformers 5, and the other way round
pub(super) fn alternatives(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    if name.contains("attentions.") {
        for (today, before) in ATTENTION {
            if name.contains(today) {
                found.push(name.replace(today, before));
            }
        }
    }
    if let Some(short) = name.strip_prefix("text_model.") {
        found.push(short.to_owned());
    } else if ["embeddings.", "encoder.layers.", "final_layer_norm."]
        .iter()
        .any(|start| name.starts_with(start))
    {
        found.push(format!("text_model.{name}"));
    }
    found
}

/// Parts of a plain attention block in the original code, and today.
pub(super) const ATTENTION_OF_ORIGINAL: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

/// Names within an attention block of the original code of latent diffusion and DDPM: `q.weight` is `to_q.weight`.
pub(super) fn attention_of_original(name: &str) -> Option<String> {
    let (part, leaf) = name.split_once('.')?;
    ATTENTION_OF_ORIGINAL
        .iter()
        .find(|(original, _)| *original == part)
        .map(|(_, today)| format!("{today}.{leaf}"))
}

#[cfg(test)]
mod tests {
    use super::alternatives;

    #[test]
    fn attention_projections_have_their_old_names() {
        let path = "decoder.mid_block.attentions.0";
        for (today, before) in
            [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")]
        {
            assert_eq!(
                alternatives(&format!("{path}.{today}.bias")),
                [format!("{path}.{before}.bias")],
                "{today} has another old name"
            );
        }
    }

    #[test]
    fn the_prefix_of_the_text_model_may_come_and_go() {
        assert_eq!(
            alternatives("text_model.final_layer_norm.weight"),
            ["final_layer_norm.weight"],
            "the prefix stays"
        );
        assert_eq!(
            alternatives("encoder.layers.0.mlp.fc1.weight"),
            ["text_model.encoder.layers.0.mlp.fc1.weight"],
            "the prefix is not tried"
        );
    }

    #[test]
    fn other_names_have_no_alternatives() {
        assert!(
            alternatives("down_blocks.0.resnets.0.conv1.weight").is_empty(),
            "an alias came from nowhere"
        );
        assert!(alternatives("conv_in.to_q.weight").is_empty(), "an alias outside of attention");
    }
}
