//! Compiled pipelines in a file, for drivers that keep none of their own.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::write_whole;

/// Length of the checksum in front of the driver's bytes.
const CHECKSUM: usize = 4;

/// What a driver has compiled, and the file that keeps it.
#[derive(Debug)]
pub(super) struct PipelineCache {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl PipelineCache {
    /// Opens `folder/NAME.pipelines`, which need not be there. The name says which adapter and driver it is of.
    ///
    /// A file that was damaged or is of another program is not given to the driver; it is written anew.
    pub(super) fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo, folder: &Path) -> Result<Self> {
        let key = wgpu::util::pipeline_cache_key(info)
            .ok_or_else(|| Error::option("pipeline cache", "this graphics interface has none"))?;
        let driver: String = format!("{} {}", info.driver, info.driver_info)
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
            .collect();
        std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, "create", source))?;
        let path = folder.join(format!("{key}_{}.pipelines", driver.trim_matches('_')));
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(Error::io(&path, "read", source)),
        };
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("deepcache"), data: checked(&file), fallback: true };
        #[expect(unsafe_code, reason = "wgpu cannot know that the bytes of a file are its own")]
        // SAFETY: the bytes are those that `get_data` returned, as their checksum shows; whether they are of this
        // driver is seen by wgpu and by the driver itself.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Ok(Self { cache, path })
    }

    /// Writes the file, whole or not at all.
    pub(super) fn save(&self) -> Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        let mut file = checksum(&data).to_vec();
        file.extend_from_slice(&data);
        write_whole(&self.path, &file)
    }
}

fn checksum(data: &[u8]) -> [u8; CHECKSUM] {
    crc32fast::hash(data).to_le_bytes()
}

/// The driver's bytes of a file, if they are as they were written.
fn checked(file: &[u8]) -> Option<&[u8]> {
    let (sum, data) = file.split_at_checked(CHECKSUM)?;
    (checksum(data) == sum).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_reach_a_driver() {
        let data = b"what a driver compiled";
        let mut file = checksum(data).to_vec();
        file.extend_from_slice(data);
        assert_eq!(checked(&file), Some(&data[..]));
        assert_eq!(checked(&file[..file.len() - 1]), None);
        assert_eq!(checked(&file[..20]), None);
        assert_eq!(checked(b""), None);
        file[CHECKSUM] ^= 1;
        assert_eq!(checked(&file), None);
    }
}
