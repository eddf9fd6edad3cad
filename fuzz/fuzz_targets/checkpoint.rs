//! A checkpoint: damaged headers, and networks whose shape is told from their tensors.

#![no_main]

mod folder;

use deepcache::models::clip::{ClipConfig, ClipTextModel};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::models::vae::{VaeConfig, VaeDecoder};
use deepcache::tensor::ElementType;
use deepcache::weights::{Checkpoint, CheckpointKind, Loader, ModelFiles};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = folder::write("model.safetensors", bytes);
    let _ = ModelFiles::open(&path);
    let paths = [path];
    let Ok(checkpoint) = Checkpoint::open(&paths) else { return };
    let _ = CheckpointKind::of(&checkpoint);
    let names: Vec<String> = checkpoint.names().map(str::to_owned).collect();
    for name in &names {
        let _ = checkpoint.values(name);
    }
    let mut loader = Loader::new("fuzz", ElementType::F16);
    if let Ok(unet) = Checkpoint::open_unet(&paths) {
        if let Ok(config) = UNetConfig::from_tensors(&unet) {
            let _ = UNet::load(config, &unet, &mut loader);
        }
    }
    if let Ok(vae) = Checkpoint::open_vae(&paths) {
        if let Ok(config) = VaeConfig::xl_from_tensors(&vae) {
            let _ = VaeDecoder::load(config, &vae, &mut loader);
        }
    }
    for open in [Checkpoint::open_text_encoder, Checkpoint::open_second_text_encoder] {
        if let Ok(encoder) = open(&paths) {
            if let Ok(config) = ClipConfig::from_tensors(&encoder) {
                let _ = ClipTextModel::load_with_projection(config, &encoder, &mut loader);
            }
        }
    }
    for pending in loader.into_pending() {
        let _ = pending.write(&checkpoint, &mut |_, _| Ok(()));
    }
});
