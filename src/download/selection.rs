//! Which files of a repository a model needs.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What the hub says about one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) path: String,
    pub(super) size: u64,
    /// What the file is called in the cache.
    pub(super) blob: String,
    /// As 64 hexadecimal digits; of large files only.
    pub(super) sha256: Option<String>,
}

/// The parts of a pipeline that are loaded, with the stem of their weights.
const NETWORKS: [(&str, &str); 5] = [
    ("unet", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model"),
    ("vqvae", "diffusion_pytorch_model"),
    ("text_encoder", "model"),
    ("text_encoder_2", "model"),
];
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];
const OF_TOKENIZERS: [&str; 6] = [
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];
/// Which weights are taken, the first that are there.
const VARIANTS: [&str; 4] = [".fp16", "", ".bf16", ".fp32"];

/// The files that the model of a `model_index.json` needs, besides that one.
pub(super) fn needed<'a>(
    index: &Map<String, Value>,
    all: &'a [Listed],
    model: &str,
) -> Result<Vec<&'a Listed>> {
    let is_there = |part: &str| {
        index
            .get(part)
            .and_then(Value::as_array)
            .is_some_and(|class| class.first().is_some_and(Value::is_string))
    };
    let find = |path: String| all.iter().find(|file| file.path == path);
    let mut files: Vec<&Listed> = Vec::new();
    for (part, stem) in NETWORKS.into_iter().filter(|(part, _)| is_there(part)) {
        // The first models of DDPM have their files in the root.
        let in_root = part == "unet" && !all.iter().any(|file| file.path.starts_with("unet/"));
        let folder = if in_root { String::new() } else { format!("{part}/") };
        let weights = weights(all, &format!("{folder}{stem}"));
        if weights.is_empty() {
            let problem =
                format!("{model} has no {folder}{stem}.safetensors or a variant of it; pickles are not read");
            return Err(Error::option("model", problem));
        }
        files.extend(find(format!("{folder}config.json")));
        files.extend(weights);
    }
    for part in TOKENIZERS.into_iter().filter(|part| is_there(part)) {
        files.extend(OF_TOKENIZERS.iter().filter_map(|name| find(format!("{part}/{name}"))));
    }
    files.extend(
        ["scheduler/scheduler_config.json", "scheduler_config.json"]
            .iter()
            .filter_map(|path| find((*path).to_owned())),
    );
    Ok(files)
}

/// The weights of one network: one variant, in one file or in shards with their index.
fn weights<'a>(all: &'a [Listed], stem: &str) -> Vec<&'a Listed> {
    for variant in VARIANTS {
        let whole = format!("{stem}{variant}.safetensors");
        if let Some(file) = all.iter().find(|file| file.path == whole) {
            return vec![file];
        }
        let indices = [
            format!("{stem}.safetensors.index{variant}.json"),
            format!("{stem}{variant}.safetensors.index.json"),
        ];
        let Some(index) = all.iter().find(|file| indices.contains(&file.path)) else { continue };
        let shards = all.iter().filter(|file| {
            let shard = file.path.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".safetensors"));
            let number = shard.and_then(|shard| shard.strip_prefix(variant).or(shard.strip_suffix(variant)));
            number.is_some_and(|number| {
                number.strip_prefix('-').and_then(|number| number.split_once("-of-")).is_some_and(
                    |(one, of)| {
                        [one, of]
                            .iter()
                            .all(|part| !part.is_empty() && part.bytes().all(|sign| sign.is_ascii_digit()))
                    },
                )
            })
        });
        return std::iter::once(index).chain(shards).collect();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Vec<Listed> {
        let one =
            |path: &&str| Listed { path: (*path).to_owned(), size: 1, blob: String::new(), sha256: None };
        paths.iter().map(one).collect()
    }

    fn chosen(paths: &[&str], stem: &str) -> Vec<String> {
        weights(&listed(paths), stem).iter().map(|file| file.path.clone()).collect()
    }

    #[test]
    fn one_variant_is_taken_and_never_a_pickle() {
        let all =
            ["u/m.bin", "u/m.fp16.bin", "u/m.fp16.safetensors", "u/m.non_ema.safetensors", "u/m.safetensors"];
        assert_eq!(chosen(&all, "u/m"), ["u/m.fp16.safetensors"]);
        assert_eq!(chosen(&["u/m.safetensors", "u/m.bf16.safetensors"], "u/m"), ["u/m.safetensors"]);
        assert_eq!(chosen(&["u/m.bin", "u/m.ckpt"], "u/m"), [""; 0]);
        let shards = [
            "u/m-00001-of-00002.safetensors",
            "u/m-00002-of-00002.safetensors",
            "u/m.fp16-00001-of-00001.safetensors",
            "u/m.safetensors.index.fp16.json",
            "u/m.safetensors.index.json",
        ];
        assert_eq!(
            chosen(&shards, "u/m"),
            ["u/m.safetensors.index.fp16.json", "u/m.fp16-00001-of-00001.safetensors"]
        );
        assert_eq!(
            chosen(&[shards[0], shards[1], shards[2], shards[4]], "u/m"),
            ["u/m.safetensors.index.json", shards[0], shards[1]]
        );
    }
}
