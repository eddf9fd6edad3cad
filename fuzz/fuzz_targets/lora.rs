//! Files that change a model: LoRAs, whose first byte here is even, and textual inversions.

#![no_main]

mod folder;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use deepcache::pipelines::{LoadOptions, PlanTarget, Planner};
use deepcache::weights::{Embedding, Lora, ModelFiles};
use libfuzzer_sys::fuzz_target;

/// The small model of Stable Diffusion's shape.
static FILES: LazyLock<ModelFiles> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/sd1/model");
    ModelFiles::open(path).expect("the repository's own model")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let path = folder::write("change.safetensors", bytes);
    let options = match kind % 2 {
        0 => LoadOptions { loras: vec![Lora::new(path)], ..LoadOptions::default() },
        _ => LoadOptions { embeddings: vec![Embedding::new(path)], ..LoadOptions::default() },
    };
    let target = PlanTarget { name: "none".to_owned(), choices: Arc::default(), binding_limit: 1 << 27, f16: true };
    let _ = Planner::open(&FILES, &options, target);
});
