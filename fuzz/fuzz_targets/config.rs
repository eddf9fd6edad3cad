//! JSON: the configurations of networks and schedulers, and `model_index.json`. The first byte chooses.

#![no_main]

mod folder;

use std::path::Path;

use deepcache::models::clip::ClipConfig;
use deepcache::models::unet::UNetConfig;
use deepcache::models::vae::VaeConfig;
use deepcache::models::vq::VqConfig;
use deepcache::schedulers::SchedulerConfig;
use deepcache::weights::ModelFiles;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, text)) = bytes.split_first() else { return };
    let path = folder::write("config.json", text);
    let path: &Path = &path;
    match choice % 6 {
        0 => drop(UNetConfig::from_file(path)),
        1 => drop(ClipConfig::from_file(path)),
        2 => drop(VaeConfig::from_file(path)),
        3 => drop(VqConfig::from_file(path)),
        4 => drop(SchedulerConfig::from_file(path)),
        _ => {
            folder::write("model_index.json", text);
            drop(ModelFiles::open(&*folder::FOLDER));
        }
    }
});
