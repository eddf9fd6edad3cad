//! Which model, and on which device.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use deepcache::gpu::{Gpu, list_adapters};
use deepcache::pipelines::{DiffusionPipeline, LoadOptions, Planner, StorageType};
use deepcache::weights::{ModelFiles, ModelKind, Replacements, WeightStorage};
use deepcache::{Error, Result};

use super::{hub, kept};

/// The model that stands beside the examples: small, really trained, 128x128 pictures of coloured shapes.
const DEFAULT_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/tiny");

/// The model and the device.
#[derive(Debug, Args)]
pub(crate) struct ModelOptions {
    /// The model: a name on the Hugging Face hub (owner/name or owner/name@revision) where there is no such path, which is
    /// fetched into the hub's usual cache; a directory of the diffusers layout (Stable Diffusion v1, v2, XL, latent diffusion, DDPM), Stable
    /// Diffusion in one file (.safetensors), or another original checkpoint with its YAML file beside it.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_MODEL, hide_default_value = true)]
    pub(crate) model: PathBuf,

    #[arg(skip)]
    found: OnceCell<PathBuf>,

    /// Another VAE, or a tiny autoencoder (TAESD): a .safetensors file, or a directory with one.
    #[arg(long, value_name = "PATH")]
    pub(crate) vae: Option<PathBuf>,

    /// A tiny autoencoder (TAESD) that decodes previews: a .safetensors file, or a directory with one. Without it they are
    /// as small as the latents.
    #[arg(long, value_name = "PATH", help_heading = "Previews")]
    preview_vae: Option<PathBuf>,

    /// For Stable Diffusion in one file of an unusual shape: a diffusers directory, which needs no weights, with its
    /// configuration.
    #[arg(long, value_name = "DIRECTORY")]
    config: Option<PathBuf>,

    /// A LoRA, LoHa or `LoKr` for a Stable Diffusion model, with its weight if that is not 1; may be given several times.
    #[arg(long, value_name = "FILE[:WEIGHT]")]
    pub(crate) lora: Vec<String>,

    /// A textual inversion for a Stable Diffusion model, and the word of the prompt that it stands for, if that is not the
    /// one that the file names; may be given several times.
    #[arg(long, value_name = "FILE[:TOKEN]")]
    pub(crate) embedding: Vec<String>,

    /// The GPU, by its number or a part of its name, as --list-devices shows them.
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    device: Option<String>,

    /// Show the GPUs of this machine and end.
    #[arg(long, help_heading = "Device")]
    pub(crate) list_devices: bool,

    /// How values are stored: f16 or f32 [default: f16 on a GPU that can].
    #[arg(long, value_name = "TYPE", help_heading = "Device")]
    dtype: Option<String>,

    /// How the VAE's values are stored: f16 or f32 [default: as all others, but f32 where SDXL's goes beyond f16].
    #[arg(long, value_name = "TYPE", help_heading = "Device")]
    vae_dtype: Option<String>,

    /// How the matrices of U-Net and text encoders are stored: dtype, as all values are, or int8, which takes half of the
    /// memory of f16 and changes pictures a little.
    #[arg(long, value_name = "TYPE", default_value = "dtype", help_heading = "Memory")]
    pub(crate) weights: String,

    /// Have only those weights on the device that are needed: first the text encoders', then the U-Net's, then the
    /// VAE's, each read from its file when its time comes. The picture is the same.
    #[arg(long, help_heading = "Memory")]
    low_memory: bool,

    /// As --low-memory, and bring the U-Net's weights anew in every call, a part at a time, into a window of so many MiB [64
    /// where no number is given]. For a U-Net that does not fit; slow, but for the shallow calls of --cache-interval.
    #[arg(long, value_name = "MIB", num_args = 0..=1, require_equals = true, default_missing_value = "64",
          value_parser = clap::value_parser!(u64).range(1..=65536), help_heading = "Memory")]
    stream_weights: Option<u64>,
}

impl ModelOptions {
    /// Opens the GPU and loads the model, with what this machine keeps for them.
    pub(crate) fn load(&self) -> Result<DiffusionPipeline> {
        let options = self.load_options()?;
        let path = self.path()?;
        let gpu = Arc::new(Gpu::open(options.device.as_deref())?);
        kept::keep_pipelines(&gpu);
        let mut pipeline = DiffusionPipeline::load_on(gpu, path, &options)?;
        for warning in pipeline.warnings() {
            eprintln!("warning: {warning}");
        }
        kept::use_tuned(&mut pipeline);
        Ok(pipeline)
    }

    /// Reads what plans are made from, for the GPU that the model would be loaded onto.
    pub(crate) fn planner(&self) -> Result<Planner> {
        let options = self.load_options()?;
        let gpu = Gpu::open(options.device.as_deref())?;
        let files = ModelFiles::open_with(self.path()?, &options.replacements)?;
        Planner::open(&files, &options, kept::target(&gpu))
    }

    /// What is checked before anything is read.
    pub(crate) fn load_options(&self) -> Result<LoadOptions> {
        let storage = self.dtype.as_deref().map(str::parse::<StorageType>).transpose()?;
        let vae_storage = self.vae_dtype.as_deref().map(str::parse::<StorageType>).transpose()?;
        let loras = self.lora.iter().map(|text| text.parse()).collect::<Result<_>>()?;
        let (device, replacements) = (self.device.clone(), self.replacements());
        let embeddings = self.embedding.iter().map(|text| text.parse()).collect::<Result<_>>()?;
        let stream_weights = self.stream_weights.map(|mebibytes| mebibytes << 20);
        let (weights, low_memory) = (self.weights.parse()?, self.low_memory);
        Ok(LoadOptions {
            device,
            storage,
            vae_storage,
            weights,
            replacements,
            loras,
            embeddings,
            preview_vae: self.preview_vae.clone(),
            low_memory,
            stream_weights,
        })
    }

    /// The same for another model that goes on with the run.
    pub(crate) fn of_refiner(&self, model: PathBuf) -> Self {
        Self {
            model,
            found: OnceCell::new(),
            vae: self.vae.clone(),
            preview_vae: self.preview_vae.clone(),
            config: None,
            lora: Vec::new(),
            embedding: self.embedding.clone(),
            device: self.device.clone(),
            list_devices: false,
            dtype: self.dtype.clone(),
            vae_dtype: self.vae_dtype.clone(),
            weights: self.weights.clone(),
            low_memory: self.low_memory,
            stream_weights: self.stream_weights,
        }
    }

    /// What the model makes pictures from, told from its files.
    pub(crate) fn kind(&self) -> Result<ModelKind> {
        Ok(ModelFiles::open_with(self.path()?, &self.replacements())?.kind())
    }

    /// Where the model is; it is fetched if it is a name on the hub, the first time.
    fn path(&self) -> Result<&Path> {
        if let Some(path) = self.found.get() {
            return Ok(path);
        }
        let path = hub::find(&self.model)?;
        Ok(self.found.get_or_init(|| path))
    }

    fn replacements(&self) -> Replacements {
        Replacements { config: self.config.clone(), vae: self.vae.clone() }
    }

    /// Whether the model is the one that comes with deepcache.
    pub(crate) fn is_default(&self) -> bool {
        match (self.model.canonicalize(), Path::new(DEFAULT_MODEL).canonicalize()) {
            (Ok(model), Ok(default)) => model == default,
            _ => false,
        }
    }

    /// The last part of its path.
    pub(crate) fn name(&self) -> String {
        self.model.file_name().unwrap_or(self.model.as_os_str()).to_string_lossy().into_owned()
    }

    /// Says what runs where.
    pub(crate) fn introduce(&self, pipeline: &DiffusionPipeline) {
        let adapter = pipeline.gpu().description();
        let model = self.name();
        let weights = match pipeline.weight_storage() {
            WeightStorage::AsActivations => "",
            WeightStorage::Int8 => ", int8 weights",
        };
        eprintln!("{model} ({}{weights}) on {} ({})", pipeline.storage(), adapter.name, adapter.backend);
        if pipeline.gpu().is_software() {
            eprintln!(
                "no GPU here: a software driver computes on the CPU, slowly; its first run compiles for a while"
            );
        }
    }
}

/// Shows the GPUs of this machine.
pub(crate) fn list_devices() -> Result<()> {
    let adapters = list_adapters();
    if adapters.is_empty() {
        return Err(Error::NoAdapter { wanted: None, found: Vec::new() });
    }
    for adapter in adapters {
        super::print(adapter)?;
    }
    Ok(())
}
