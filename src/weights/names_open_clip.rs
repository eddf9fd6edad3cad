//! Names of `OpenCLIP`'s text encoders, which Stable Diffusion 2 and XL have in their single files, and those of
//! transformers.
//!
//! `OpenCLIP` keeps the projections to queries, keys and values in one tensor, and its last projection the other way
//! round; see [`Checkpoint::open_text_encoder`](super::Checkpoint::open_text_encoder).

/// Parts of a layer, there and in transformers.
const LAYER: [(&str, &str); 6] = [
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.out_proj.", "self_attn.out_proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
    // Three tensors in one, which are cut apart.
    ("attn.in_proj_", "self_attn.qkv_proj."),
];

/// What lies outside of the layers.
const OTHERS: [(&str, &str); 5] = [
    ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    ("ln_final.weight", "text_model.final_layer_norm.weight"),
    ("ln_final.bias", "text_model.final_layer_norm.bias"),
    ("text_projection", "text_projection.transposed"),
];

/// The first part of the name of every layer.
const LAYERS: &str = "transformer.resblocks.";
const LAYERS_TODAY: &str = "text_model.encoder.layers.";

/// A tensor's name in transformers.
///
/// - `transformer.resblocks.0.mlp.c_fc.bias` is `text_model.encoder.layers.0.mlp.fc1.bias`
#[must_use]
pub fn text_encoder(name: &str) -> Option<String> {
    if let Some((_, today)) = OTHERS.iter().find(|(original, _)| *original == name) {
        return Some((*today).to_owned());
    }
    let (number, leaf) = name.strip_prefix(LAYERS)?.split_once('.')?;
    let (original, today) = LAYER.iter().find(|(original, _)| leaf.starts_with(original))?;
    Some(format!("{LAYERS_TODAY}{number}.{today}{}", &leaf[original.len()..]))
}

/// The tensor that holds what transformers calls `name`.
#[must_use]
pub fn original(name: &str) -> Option<String> {
    if name == "text_projection.weight" {
        return Some("text_projection".to_owned());
    }
    if let Some((original, _)) = OTHERS.iter().find(|(_, today)| *today == name) {
        return Some((*original).to_owned());
    }
    let (number, leaf) = name.strip_prefix(LAYERS_TODAY)?.split_once('.')?;
    for part in ["q", "k", "v"] {
        if let Some(leaf) = leaf.strip_prefix(&format!("self_attn.{part}_proj.")) {
            return Some(format!("{LAYERS}{number}.attn.in_proj_{leaf}"));
        }
    }
    let (original, today) = LAYER.iter().find(|(_, today)| leaf.starts_with(today))?;
    Some(format!("{LAYERS}{number}.{original}{}", &leaf[today.len()..]))
}

#[cfg(test)]
mod tests {
    use super::{original, text_encoder};

    #[test]
    fn names_go_there_and_back() {
        for (name, today) in [
            ("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
            ("positional_embedding", "text_model.embeddings.position_embedding.weight"),
            ("transformer.resblocks.11.ln_1.bias", "text_model.encoder.layers.11.layer_norm1.bias"),
            (
                "transformer.resblocks.0.attn.out_proj.weight",
                "text_model.encoder.layers.0.self_attn.out_proj.weight",
            ),
            ("transformer.resblocks.3.mlp.c_proj.weight", "text_model.encoder.layers.3.mlp.fc2.weight"),
            ("ln_final.bias", "text_model.final_layer_norm.bias"),
        ] {
            assert_eq!(text_encoder(name).as_deref(), Some(today), "{name}");
            assert_eq!(original(today).as_deref(), Some(name), "{today}");
        }
        let fused = "transformer.resblocks.7.attn.in_proj_bias";
        let today = |part: &str| format!("text_model.encoder.layers.7.self_attn.{part}_proj.bias");
        assert_eq!(text_encoder(fused), Some(today("qkv")), "three in one");
        for part in ["q", "k", "v"] {
            assert_eq!(original(&today(part)).as_deref(), Some(fused), "{part}");
        }
        for other in ["logit_scale", "attn_mask", "visual.proj", "transformer.resblocks.0.other"] {
            assert_eq!(text_encoder(other), None, "{other}");
        }
    }
}
