//! Where what tuning found is kept: one file for all devices of a machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::gpu::Gpu;
use crate::gpu::choices::Tuned;
use crate::gpu::shader;
use crate::kernels::SHADERS;

/// What tuned choices depend on: the device, its driver, and the shaders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningKey {
    /// Name of the device.
    pub adapter: String,
    /// Graphics interface.
    pub backend: String,
    /// Family of kernels.
    pub family: String,
    /// Driver and its version.
    pub driver: String,
    /// A hash of all texts of shaders.
    pub shaders: String,
}

impl TuningKey {
    /// The key of a device.
    #[must_use]
    pub fn of(gpu: &Gpu) -> Self {
        let description = gpu.description();
        Self {
            adapter: description.name.clone(),
            backend: description.backend.clone(),
            family: gpu.family().to_string(),
            driver: description.driver.clone(),
            shaders: format!("{:016x}", shader_hash()),
        }
    }

    /// Whether it is the same device, perhaps with another driver or other shaders.
    fn same_device(&self, other: &Self) -> bool {
        let device = |key: &Self| (key.adapter.clone(), key.backend.clone(), key.family.clone());
        device(self) == device(other)
    }
}

/// FNV-1a of all texts, which is the same on every machine.
fn shader_hash() -> u64 {
    let preludes = SHADERS.iter().flat_map(|shader| shader.preludes.iter().copied());
    let texts = SHADERS.iter().map(|shader| shader.source).chain(preludes).chain(shader::COMMON);
    texts
        .flat_map(str::bytes)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What was found for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    key: TuningKey,
    products: Tuned,
}

/// What a file knows of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Its products, tuned with this driver and these shaders.
    Found(Tuned),
    /// It was tuned, but for something that has changed since: in words.
    Stale(String),
    /// Nothing.
    Missing,
}

/// The contents of a file of tuned choices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuningFile {
    tables: Vec<Table>,
}

impl TuningFile {
    /// Reads a file; one that is not there is empty.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Config`] if it is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io(path, "read", error)),
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::config_file(path, format!("is no file of tuned choices: {error}")))
    }

    /// What it knows of a device.
    #[must_use]
    pub fn find(&self, key: &TuningKey) -> Lookup {
        let Some(table) = self.tables.iter().find(|table| table.key.same_device(key)) else {
            return Lookup::Missing;
        };
        if table.key == *key {
            return Lookup::Found(table.products.clone());
        }
        let TuningKey { adapter, driver, .. } = &table.key;
        Lookup::Stale(if *driver == key.driver {
            format!("{adapter} was tuned for other shaders than these")
        } else {
            format!("{adapter} was tuned for the driver {driver}, this is {}", key.driver)
        })
    }

    /// Adds what was found for a device to what is known of it; what is stale is dropped.
    pub fn keep(&mut self, key: TuningKey, tuned: Tuned) {
        match self.tables.iter_mut().find(|table| table.key == key) {
            Some(table) => table.products.extend(tuned),
            None => {
                self.tables.retain(|table| !table.key.same_device(&key));
                self.tables.push(Table { key, products: tuned });
            }
        }
    }

    /// Writes a file, whole or not at all, and the folder that it is in.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    ///
    /// # Panics
    /// Never: the contents are plain text and numbers.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create", error))?;
        }
        let mut text = serde_json::to_vec_pretty(self).expect("text and numbers");
        text.push(b'\n');
        write_whole(path, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::choices::Tiling;

    fn key(adapter: &str, driver: &str, shaders: &str) -> TuningKey {
        let [adapter, driver, shaders] = [adapter, driver, shaders].map(str::to_owned);
        TuningKey { adapter, backend: "vulkan".to_owned(), family: "tiled".to_owned(), driver, shaders }
    }

    fn tuned(products: &[&str]) -> Tuned {
        let tiling = Tiling::Tiled { tile: [64, 64], lane: [8, 8], depth: 16, parts: 1 };
        products.iter().map(|product| ((*product).to_owned(), tiling)).collect()
    }

    #[test]
    fn what_is_kept_is_found_by_all_of_its_key() {
        let mut file = TuningFile::default();
        assert_eq!(file.find(&key("a", "1", "x")), Lookup::Missing);
        file.keep(key("a", "1", "x"), tuned(&["p"]));
        file.keep(key("b", "1", "x"), tuned(&["q"]));
        file.keep(key("a", "1", "x"), tuned(&["r"]));
        assert_eq!(file.find(&key("a", "1", "x")), Lookup::Found(tuned(&["p", "r"])));
        assert!(matches!(file.find(&key("a", "2", "x")), Lookup::Stale(why) if why.contains("driver 1")));
        assert!(matches!(file.find(&key("a", "1", "y")), Lookup::Stale(why) if why.contains("shaders")));
        file.keep(key("a", "2", "x"), tuned(&["s"]));
        assert_eq!(file.find(&key("a", "2", "x")), Lookup::Found(tuned(&["s"])));
        assert_eq!(file.find(&key("b", "1", "x")), Lookup::Found(tuned(&["q"])));
    }

    #[test]
    fn files_are_read_as_they_were_written_and_damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/tuning.json");
        assert_eq!(TuningFile::read(&path).unwrap(), TuningFile::default());
        let mut file = TuningFile::default();
        file.keep(key("a", "1", "x"), tuned(&["p"]));
        file.write(&path).unwrap();
        assert_eq!(TuningFile::read(&path).unwrap(), file);

        let text = std::fs::read_to_string(&path).unwrap();
        for broken in [&text[..text.len() / 2], "{}", &text.replace("\"tiled\": {", "\"square\": {")] {
            std::fs::write(&path, broken).unwrap();
            let error = TuningFile::read(&path).unwrap_err();
            assert!(matches!(error, Error::Config { .. }), "{broken}: {error}");
        }
    }

    #[test]
    fn the_hash_of_the_shaders_is_not_that_of_nothing() {
        assert_ne!(shader_hash(), 0xcbf2_9ce4_8422_2325);
    }
}
