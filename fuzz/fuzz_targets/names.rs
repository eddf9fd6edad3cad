//! Names of tensors of original checkpoints, there and back.

#![no_main]

use deepcache::weights::{
    names_latent_diffusion, names_open_clip, names_original_ddpm, originals_latent_diffusion,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, name)) = bytes.split_first() else { return };
    let Ok(name) = std::str::from_utf8(name) else { return };
    let (layers, levels) = (usize::from(choice & 7), usize::from(choice >> 3 & 7));
    let attention: Vec<bool> = (0..levels).map(|level| choice >> level & 1 == 1).collect();
    for prefix in ["", "model.diffusion_model."] {
        if let Some(today) = names_latent_diffusion::unet(&format!("{prefix}{name}"), layers) {
            let _ = originals_latent_diffusion::unet(&today, layers, &attention);
        }
    }
    let _ = originals_latent_diffusion::unet(name, layers, &attention);
    if let Some(today) = names_latent_diffusion::autoencoder(name, levels) {
        let _ = originals_latent_diffusion::autoencoder(&today, levels);
    }
    let _ = originals_latent_diffusion::autoencoder(name, levels);
    let _ = names_latent_diffusion::text_encoder(name);
    let _ = names_latent_diffusion::class_embedder(name);
    let _ = names_latent_diffusion::averaged(name);
    let _ = names_original_ddpm::unet(name, levels);
    if let Some(today) = names_open_clip::text_encoder(name) {
        if !today.contains("qkv_proj") && !today.ends_with("transposed") {
            assert_eq!(names_open_clip::original(&today).as_deref(), Some(name), "there and back");
        }
    }
    let _ = names_open_clip::original(name);
});
