//! Skip branches under the names of the published codes.
//!
//! One number serves every model here, the *skip index* `s`: the feature that enters the up layer which reads skip
//! tensor `s` is kept. Skip tensors are counted in the order in which the way down leaves them.

use crate::error::{Error, Result};

/// The name of the option in errors.
const OPTION: &str = "cache branch";

/// Reads a skip index: a number, or a number of one of the published codes.
///
/// | text | code | skip index |
/// |---|---|---|
/// | `S` | | `S` |
/// | `helper:B` | `DeepCacheSDHelper`, `cache_branch_id` B | `B` |
/// | `paper:L,B` | the paper's Stable Diffusion pipelines, `cache_layer_id` L, `cache_block_id` B | `(n + 1) L + B + 1` |
/// | `ddpm:B` | the paper's DDPM code, `--branch` B | `B + 1` |
/// | `ldm` | the paper's latent diffusion code, which knows one branch | `0` |
///
/// `n` is the number of residual blocks of a down block, `layers`; the helper assumes two.
///
/// # Errors
/// [`Error::Option`] saying what was expected.
pub fn parse_branch(text: &str, layers: usize) -> Result<usize> {
    let refuse = || {
        let expected = "a skip index, helper:B, paper:LAYER,BLOCK, ddpm:B or ldm";
        Err(Error::option(OPTION, format!("expected {expected}, found \"{text}\"")))
    };
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 1 << 16);
    let (code, rest) = text.split_once(':').unwrap_or(("", text));
    match (code, rest.split_once(',')) {
        ("", None) if rest == "ldm" => Ok(0),
        ("", None) => number(rest).map_or_else(refuse, Ok),
        ("helper", None) => match number(rest) {
            Some(_) if layers != 2 => {
                let problem =
                    format!("helper:B is for models with 2 layers per block, this one has {layers}");
                Err(Error::option(OPTION, problem))
            }
            Some(branch) => Ok(branch),
            None => refuse(),
        },
        ("paper", Some((layer, block))) => match (number(layer), number(block)) {
            (Some(layer), Some(block)) if block <= layers => Ok((layers + 1) * layer + block + 1),
            (Some(_), Some(block)) => {
                let problem = format!("expected a block from 0 to {layers}, found {block}");
                Err(Error::option(OPTION, problem))
            }
            _ => refuse(),
        },
        ("ddpm", None) => number(rest).map_or_else(refuse, |branch| Ok(branch + 1)),
        _ => refuse(),
    }
}

/// What the published codes call a skip index, for people who know one of them.
///
/// ```
/// assert_eq!(
///     deepcache::deepcache::describe_branch(1, 2),
///     "skip branch 1 (cache_branch_id 1 of DeepCacheSDHelper; cache_layer_id 0, cache_block_id 0 of the paper's \
///      Stable Diffusion code; --branch 0 of its DDPM code)"
/// );
/// ```
#[must_use]
pub fn describe_branch(skip_index: usize, layers: usize) -> String {
    let mut names = Vec::new();
    if layers == 2 {
        names.push(format!("cache_branch_id {skip_index} of DeepCacheSDHelper"));
    }
    match skip_index.checked_sub(1) {
        Some(before) => {
            let (layer, block) = (before / (layers + 1), before % (layers + 1));
            names.push(format!(
                "cache_layer_id {layer}, cache_block_id {block} of the paper's Stable Diffusion code"
            ));
            names.push(format!("--branch {before} of its DDPM code"));
        }
        None => names.push("the branch of the paper's latent diffusion code".to_owned()),
    }
    format!("skip branch {skip_index} ({})", names.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_numbers() {
        for (text, expected) in [
            ("0", 0),
            ("11", 11),
            ("ldm", 0),
            ("helper:3", 3),
            ("paper:0,0", 1),
            ("paper:0,1", 2),
            ("paper:2,1", 8),
            ("ddpm:1", 2),
            ("ddpm:2", 3),
        ] {
            assert_eq!(parse_branch(text, 2).unwrap(), expected, "{text}");
        }
        assert_eq!(parse_branch("paper:1,2", 3).unwrap(), 7, "three layers per block");
        assert!(describe_branch(0, 2).contains("latent diffusion"));
        assert!(describe_branch(8, 2).contains("cache_layer_id 2, cache_block_id 1"));
        assert!(!describe_branch(8, 3).contains("DeepCacheSDHelper"));
    }

    #[test]
    fn other_words_are_refused() {
        for text in
            ["", "x", "-1", "1.5", "helper:", "helper:1,2", "paper:1", "paper:0,3", "ddpm:x", "ldm:1", "a:1"]
        {
            assert!(matches!(parse_branch(text, 2), Err(Error::Option { .. })), "{text}");
        }
        assert!(parse_branch("helper:1", 3).is_err());
    }
}
