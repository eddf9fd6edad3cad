//! What a LoRA file of PEFT or diffusers says of its scale where it has no `alpha` beside its factors.
//!
//! diffusers writes `lora_adapter_metadata` into the header of the file; PEFT has `adapter_config.json` beside it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::weights::checkpoint::Checkpoint;

/// The entry of a header.
const ENTRY: &str = "lora_adapter_metadata";
/// The file beside an `adapter_model.safetensors`.
const BESIDE: &str = "adapter_config.json";

/// Scales by network.
#[derive(Debug, Default)]
pub(super) struct Scales {
    entries: Map<String, Value>,
}

/// What a layer's factors are multiplied by, if its file has no `alpha`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Alpha {
    pub(super) alpha: f64,
    /// Divided by the square root of the rank instead of the rank: Kalajdzievski 2023,
    /// <https://arxiv.org/abs/2312.03732>.
    pub(super) by_root: bool,
}

impl Alpha {
    /// The scale of factors of a rank.
    pub(super) fn scale(self, rank: usize) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "ranks are small")]
        let rank = rank as f64;
        self.alpha / if self.by_root { rank.sqrt() } else { rank }
    }
}

impl Scales {
    pub(super) fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.files().next().unwrap_or(Path::new(""));
        let (text, file) = if let Some(text) = checkpoint.note(ENTRY) {
            (text.to_owned(), path.to_owned())
        } else {
            let beside = path.with_file_name(BESIDE);
            let of_peft = path.file_stem().is_some_and(|stem| stem == "adapter_model") && beside.is_file();
            if !of_peft {
                return Ok(Self::default());
            }
            let text =
                std::fs::read_to_string(&beside).map_err(|source| Error::io(&beside, "read", source))?;
            (text, beside)
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(entries)) => Ok(Self { entries }),
            Ok(_) => Err(Error::config(file, ENTRY, "is not a JSON object")),
            Err(error) => Err(Error::config(file, ENTRY, format!("is not JSON: {error}"))),
        }
    }

    /// The alpha of a layer of a network, which is called `prefix` there.
    pub(super) fn alpha(&self, prefix: &str, layer: &str) -> Option<Alpha> {
        let entry =
            |name: &str| self.entries.get(&format!("{prefix}.{name}")).or_else(|| self.entries.get(name));
        // Patterns name a layer, or the end of its name.
        let pattern = entry("alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let fits = |name: &str| {
                let name = name.replace('.', "_");
                layer == name || layer.ends_with(&format!("_{name}"))
            };
            patterns.iter().find(|(name, _)| fits(name)).and_then(|(_, alpha)| alpha.as_f64())
        });
        let alpha = pattern.or_else(|| entry("lora_alpha")?.as_f64()).filter(|alpha| alpha.is_finite())?;
        let by_root = entry("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        Some(Alpha { alpha, by_root })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Alpha, Scales};

    #[test]
    fn scales_are_told_by_network_and_layer() {
        let Some(entries) = json!({
            "unet.lora_alpha": 8, "unet.alpha_pattern": {"mid_block.attn1.to_q": 2, "to_k": 4},
            "text_encoder.lora_alpha": 3, "text_encoder.use_rslora": true
        })
        .as_object()
        .cloned() else {
            unreachable!("it is an object")
        };
        let scales = Scales { entries };
        let plain = |alpha| Some(Alpha { alpha, by_root: false });
        assert_eq!(scales.alpha("unet", "mid_block_attn1_to_q"), plain(2.0), "a whole name");
        assert_eq!(scales.alpha("unet", "up_attn1_to_k"), plain(4.0), "the end of a name");
        assert_eq!(scales.alpha("unet", "up_attn1_to_v"), plain(8.0), "the network's");
        assert_eq!(scales.alpha("text_encoder", "x").map(|alpha| alpha.scale(9)), Some(1.0), "the root");
        assert_eq!(scales.alpha("text_encoder_2", "x"), None, "nothing is said");
    }
}
