//! Models by their name on the Hugging Face hub.

use std::path::{Path, PathBuf};

use deepcache::Result;

/// The folder of a model: the path itself if there is one, or if it can be no name on the hub.
#[cfg(feature = "download")]
pub(super) fn find(model: &Path) -> Result<PathBuf> {
    use deepcache::download::{HubModel, HubOptions, fetch};
    use indicatif::{ProgressBar, ProgressStyle};

    let name = model.to_str().and_then(|text| text.parse::<HubModel>().ok());
    let Some(name) = name.filter(|_| !model.exists()) else { return Ok(model.to_owned()) };
    let style = "{msg} {wide_bar} {bytes}/{total_bytes} [{elapsed} < {eta}]";
    let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let found = fetch(&name, &HubOptions::from_environment()?, |fetched| {
        bar.set_message(fetched.file.to_owned());
        bar.set_length(fetched.of);
        bar.set_position(fetched.bytes);
    });
    bar.finish_and_clear();
    found
}

/// Without downloads, every model is a path.
#[cfg(not(feature = "download"))]
pub(super) fn find(model: &Path) -> Result<PathBuf> {
    Ok(model.to_owned())
}
