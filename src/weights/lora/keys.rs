//! Which part of which layer's change a tensor of a LoRA file is, told by its name.
//!
//! - kohya: `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, `lora_te1_…`, and for SDXL also
//!   `lora_unet_input_blocks_4_1_proj_in.…`
//! - diffusers: `unet.….to_q.lora.down.weight`, `….processor.to_q_lora.down.weight`,
//!   `text_encoder.….q_proj.lora_linear_layer.down.weight`
//! - PEFT: `base_model.model.….to_q.lora_A.weight`, `unet.….to_q.lora_A.default.weight`
//! - LyCORIS: `….hada_w1_a`, `….lokr_w1`, as kohya's

/// A network that a LoRA can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    /// The U-Net.
    Unet,
    /// The text encoder, or the first of two.
    TextEncoder,
    /// The second text encoder of SDXL.
    TextEncoder2,
}

impl Network {
    /// Its folder in diffusers' layout, and the first part of the labels of its weights.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }
}

/// What a tensor of a file is, by its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) network: Network,
    /// The layer, with `_` for every dot.
    pub(super) layer: String,
    pub(super) part: &'static str,
}

/// The parts of a change, by the end of a name.
const PARTS: [(&str, &str); 29] = [
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    ("_lora.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".alpha", "alpha"),
    (".dora_scale", "dora"),
    (".lora_magnitude_vector", "dora"),
    (".hada_w1_a", "hada_w1_a"),
    (".hada_w1_b", "hada_w1_b"),
    (".hada_w2_a", "hada_w2_a"),
    (".hada_w2_b", "hada_w2_b"),
    (".hada_t1", "hada_t1"),
    (".hada_t2", "hada_t2"),
    (".lokr_w1", "lokr_w1"),
    (".lokr_w1_a", "lokr_w1_a"),
    (".lokr_w1_b", "lokr_w1_b"),
    (".lokr_w2", "lokr_w2"),
    (".lokr_w2_a", "lokr_w2_a"),
    (".lokr_w2_b", "lokr_w2_b"),
    (".lokr_t2", "lokr_t2"),
    (".diff", "diff"),
    (".diff_b", "diff_b"),
];
/// LyCORIS's names for a change of a norm.
const NORMS: [(&str, &str); 2] = [(".w_norm", "diff"), (".b_norm", "diff_b")];

/// The networks, by the start of a name.
const NETWORKS: [(&str, Network); 10] = [
    ("lora_unet_", Network::Unet),
    ("lora_te1_", Network::TextEncoder),
    ("lora_te2_", Network::TextEncoder2),
    ("lora_te_", Network::TextEncoder),
    ("unet.", Network::Unet),
    ("text_encoder.", Network::TextEncoder),
    ("text_encoder_2.", Network::TextEncoder2),
    ("model.diffusion_model.", Network::Unet),
    ("diffusion_model.", Network::Unet),
    ("text_model.", Network::TextEncoder),
];

/// Projections as attention processors of diffusers name them, and in a text encoder.
const PROJECTIONS: [(&str, &str, &str); 4] = [
    ("to_q", "to_q", "q_proj"),
    ("to_k", "to_k", "k_proj"),
    ("to_v", "to_v", "v_proj"),
    ("to_out", "to_out_0", "out_proj"),
];

impl Key {
    /// Reads a name; none for one that is no part of a change.
    pub(super) fn read(name: &str) -> Option<Self> {
        let whole = without_adapter(name);
        let ends = PARTS.iter().chain(&NORMS);
        let (layer, end, part) =
            ends.copied().find_map(|(end, part)| Some((whole.strip_suffix(end)?, end, part)))?;
        let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
        let found = NETWORKS.iter().find_map(|(start, network)| {
            let rest = layer.strip_prefix(start)?;
            // The last is a part of the layer's name.
            Some((*network, if *start == "text_model." { layer } else { rest }))
        });
        let (network, layer) = found.unwrap_or((Network::Unet, layer));
        let mut layer = layer.replace(".processor.", ".");
        if end.starts_with('_') {
            let (path, projection) = layer.rsplit_once('.')?;
            let (_, of_unet, of_text) = PROJECTIONS.iter().find(|(name, ..)| *name == projection)?;
            layer = format!("{path}.{}", if network == Network::Unet { of_unet } else { of_text });
        }
        Some(Self { network, layer: layer.replace('.', "_"), part })
    }
}

/// A name of PEFT without the name of the adapter: `….lora_A.default.weight` is `….lora_A.weight`.
fn without_adapter(name: &str) -> String {
    for part in [".lora_A.", ".lora_B.", ".lora_magnitude_vector."] {
        if let Some((layer, rest)) = name.split_once(part) {
            let part = part.trim_end_matches('.');
            match rest.split_once('.') {
                Some((adapter, "weight")) if !adapter.is_empty() => return format!("{layer}{part}.weight"),
                None if part.ends_with("vector") => return format!("{layer}{part}"),
                _ => {}
            }
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Key, Network};

    #[test]
    fn names_of_every_trainer_are_read() {
        let attention = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
        let dotted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1";
        let text = "text_model_encoder_layers_3_self_attn_q_proj";
        let dotted_text = "text_model.encoder.layers.3.self_attn";
        let out = attention.replace("to_q", "to_out_0");
        let rows = [
            (format!("lora_unet_{attention}.lora_down.weight"), Network::Unet, attention, "down"),
            (format!("lora_unet_{attention}.alpha"), Network::Unet, attention, "alpha"),
            (format!("lora_unet_{attention}.hada_w2_b"), Network::Unet, attention, "hada_w2_b"),
            (format!("lora_unet_{attention}.lokr_w1"), Network::Unet, attention, "lokr_w1"),
            (format!("unet.{dotted}.to_q.lora.down.weight"), Network::Unet, attention, "down"),
            (format!("unet.{dotted}.processor.to_q_lora.up.weight"), Network::Unet, attention, "up"),
            (format!("{dotted}.processor.to_out_lora.up.weight"), Network::Unet, &out, "up"),
            (format!("unet.{dotted}.to_q.lora_A.weight"), Network::Unet, attention, "down"),
            (format!("base_model.model.{dotted}.to_q.lora_B.weight"), Network::Unet, attention, "up"),
            (
                format!("base_model.model.unet.{dotted}.to_q.lora_A.default.weight"),
                Network::Unet,
                attention,
                "down",
            ),
            (format!("lora_te_{text}.lora_up.weight"), Network::TextEncoder, text, "up"),
            (format!("lora_te1_{text}.lora_up.weight"), Network::TextEncoder, text, "up"),
            (format!("lora_te2_{text}.lora_up.weight"), Network::TextEncoder2, text, "up"),
            (
                format!("text_encoder.{dotted_text}.q_proj.lora_linear_layer.down.weight"),
                Network::TextEncoder,
                text,
                "down",
            ),
            (
                format!("text_encoder_2.{dotted_text}.to_q_lora.down.weight"),
                Network::TextEncoder2,
                text,
                "down",
            ),
            (
                format!("base_model.model.{dotted_text}.q_proj.lora_A.weight"),
                Network::TextEncoder,
                text,
                "down",
            ),
            (
                "diffusion_model.input_blocks.4.1.proj_in.diff_b".to_owned(),
                Network::Unet,
                "input_blocks_4_1_proj_in",
                "diff_b",
            ),
        ];
        for (name, network, layer, part) in rows {
            let layer = layer.to_owned();
            assert_eq!(Key::read(&name), Some(Key { network, layer, part }), "{name}");
        }
        for other in ["emb_params", "lora_unet_x.weight", "unet.x.lora_A", "unet.conv_in_lora.down.weight"] {
            assert_eq!(Key::read(other), None, "{other}");
        }
    }
}
