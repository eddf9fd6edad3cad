//! The YAML files beside original checkpoints. The first byte chooses.

#![no_main]

mod folder;

use deepcache::models::OriginalDdpmConfig;
use deepcache::models::latent_diffusion::LatentDiffusionConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let path = folder::write("config.yaml", text);
    match choice % 2 {
        0 => drop(LatentDiffusionConfig::from_file(&path)),
        _ => drop(OriginalDdpmConfig::from_file(&path)),
    }
});
