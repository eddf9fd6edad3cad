//! Models from their files onto the device.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::autoencoder::load_preview;
use super::diffusion::{expect_storable, storage};
use super::embeddings::expect_no_embeddings;
use super::loras::expect_no_loras;
use super::model::{Conditioner, Decoder, Model};
use super::residency::{ModelWeights, Part, Residency, Stored};
use super::{DiffusionPipeline, LoadOptions, StorageType, stable_diffusion, stable_diffusion_xl};
use crate::error::{Error, Result};
use crate::gpu::{Executor, Gpu, Memory, Purpose};
use crate::models::OriginalDdpmConfig;
use crate::models::latent_diffusion::{ClassEmbedder, LatentDiffusionConfig};
use crate::models::unet::{UNet, UNetConfig};
use crate::models::vq::{VqConfig, VqDecoder};
use crate::schedulers::SchedulerConfig;
use crate::tensor::ElementType;
use crate::weights::names_latent_diffusion as ldm;
use crate::weights::{
    Checkpoint, Component, Embedding, Loader, LoraFiles, ModelFiles, Network, Original, WeightStorage,
    names_original_ddpm, originals_latent_diffusion, write_all,
};

/// Builds one network of a checkpoint and uploads its weights, chunk by chunk.
///
/// `loader` says how matrices are stored, and what their labels begin with.
///
/// # Errors
/// [`Error::Weights`] and [`Error::Io`] from the files, [`Error::OutOfMemory`] and other faults of the device.
pub fn load_network<N>(
    checkpoint: &Checkpoint,
    memory: &mut Memory,
    mut loader: Loader,
    build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<N>,
) -> Result<N> {
    let network = build(checkpoint, &mut loader)?;
    let pending = loader.into_pending();
    memory.allocate_packed(pending.iter().map(|pending| &pending.tensor), Purpose::Weights)?;
    let pending: Vec<_> = pending.iter().collect();
    write_all(&pending, checkpoint, &mut |tensor, offset, bytes| memory.write(tensor, offset, bytes))?;
    Ok(network)
}

impl DiffusionPipeline {
    /// Loads a model: a directory of diffusers' layout, Stable Diffusion in one file, or another original checkpoint with
    /// its YAML file. See [`ModelFiles::open`] for what is recognised.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::Io`], [`Error::Config`] and [`Error::Weights`] for files that are missing,
    /// damaged or unsupported; [`Error::NoAdapter`], [`Error::OutOfMemory`] and [`Error::Device`] from the device.
    pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(options.device.as_deref())?);
        Self::load_on(gpu, path, options)
    }

    /// Loads a model onto a GPU that is already open; the device of the options is not asked for.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::load`].
    pub fn load_on(gpu: Arc<Gpu>, path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::load_files(gpu, &ModelFiles::open_with(path, &options.replacements)?, options)
    }

    /// Loads the model of these files onto a GPU that is already open; device and replacements of the options are not
    /// asked for.
    ///
    /// # Errors
    /// As [`DiffusionPipeline::load`].
    pub fn load_files(gpu: Arc<Gpu>, files: &ModelFiles, options: &LoadOptions) -> Result<Self> {
        let started = Instant::now();
        let name = &gpu.description().name;
        expect_storable(name, gpu.has_f16(), options.vae_storage)?;
        let storage = storage(name, gpu.has_f16(), gpu.is_software(), options.storage)?;
        let mut memory = Memory::new(Arc::clone(&gpu));
        let Opened { model, weights, mut warnings, told } =
            open_model(files, options, storage.element(), gpu.binding_limit())?;
        let weights = ModelWeights::new(weights, Residency::of(options), &mut memory)?;
        let own_warnings = warnings.len();
        warnings.extend(told);
        let executor = Executor::new(Arc::clone(&gpu));
        let loras = options.loras.clone();
        let load_seconds = started.elapsed().as_secs_f64();
        Ok(Self {
            gpu,
            memory,
            executor,
            model,
            weights,
            storage,
            weight_storage: options.weights,
            load_seconds,
            warnings,
            own_warnings,
            loras,
        })
    }
}

/// A model as its files describe it: nothing is on the device.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) model: Model,
    pub(super) weights: Vec<Stored>,
    /// What there is to say about the model's files.
    pub(super) warnings: Vec<String>,
    /// What there is to say about the LoRAs.
    pub(super) told: Vec<String>,
}

/// Builds the model of these files, whose matrices are stored as `element`, for a device that binds tensors of up to
/// `limit` bytes.
pub(super) fn open_model(
    files: &ModelFiles,
    options: &LoadOptions,
    element: ElementType,
    limit: u64,
) -> Result<Opened> {
    let warnings = match files {
        ModelFiles::StableDiffusion(files) => files.warnings.clone(),
        ModelFiles::StableDiffusionXl(files) => files.warnings.clone(),
        ModelFiles::StableDiffusionXlRefiner(files) => files.warnings.clone(),
        _ => {
            expect_no_loras(&options.loras)?;
            expect_no_embeddings(&options.embeddings)?;
            Vec::new()
        }
    };
    let mut site = Site {
        weights: Vec::new(),
        element,
        vae_element: options.vae_storage.map(StorageType::element),
        storage: options.weights,
        limit,
        loras: LoraFiles::open(&options.loras)?,
        embeddings: &options.embeddings,
        told: Vec::new(),
    };
    let mut model = match files {
        ModelFiles::StableDiffusion(files) => stable_diffusion::load(files, &mut site)?,
        ModelFiles::StableDiffusionXl(files) => stable_diffusion_xl::load(files, &mut site)?,
        ModelFiles::StableDiffusionXlRefiner(files) => stable_diffusion_xl::load_refiner(files, &mut site)?,
        ModelFiles::LatentDiffusion { unet, vqvae, scheduler } => {
            let unet_config = UNetConfig::from_file(&unet.config)?;
            let vq_config = VqConfig::from_file(&vqvae.config)?;
            expect_channels(&unet.config, &unet_config, vq_config.autoencoder.embed_channels)?;
            expect_no_context(&unet.config, &unet_config)?;
            let scheduler = SchedulerConfig::from_file(scheduler)?;
            let unet = site.component(Part::Network, unet, "unet", |file, loader| {
                UNet::load(unet_config, file, loader)
            })?;
            let vq = site.component(Part::Decoder, vqvae, "vqvae", |file, loader| {
                VqDecoder::load(vq_config, file, loader)
            })?;
            let (conditioner, decoder) = (Conditioner::Nothing, Decoder::Vq(Box::new(vq)));
            Model { conditioner, unet, decoder, encoder: None, preview: None, scheduler }
        }
        ModelFiles::Pixels { unet, scheduler } => {
            let config = UNetConfig::from_file(&unet.config)?;
            expect_pixels(&unet.config, &config)?;
            expect_no_context(&unet.config, &config)?;
            let scheduler = SchedulerConfig::from_file(scheduler)?;
            let unet =
                site.component(Part::Network, unet, "unet", |file, loader| UNet::load(config, file, loader))?;
            Model::of_pixels(unet, scheduler)
        }
        ModelFiles::OriginalLatentDiffusion(files) => site.latent_diffusion(files)?,
        ModelFiles::OriginalDdpm(files) => site.original_ddpm(files)?,
    };
    if let Some(path) = &options.preview_vae {
        model.preview = Some(load_preview(path, &model, &mut site)?);
    }
    Ok(Opened { model, weights: site.weights, warnings, told: site.told })
}

/// Where networks are built.
pub(super) struct Site<'a> {
    weights: Vec<Stored>,
    pub(super) element: ElementType,
    /// What was asked for the VAE.
    pub(super) vae_element: Option<ElementType>,
    storage: WeightStorage,
    limit: u64,
    loras: LoraFiles,
    pub(super) embeddings: &'a [Embedding],
    /// What there is to say about the LoRAs.
    told: Vec<String>,
}

impl Site<'_> {
    /// Lets the LoRAs change networks that are not loaded yet.
    pub(super) fn change(&mut self, networks: &mut [(Network, &mut Checkpoint)]) -> Result<()> {
        let read: Vec<(Network, &Checkpoint)> =
            networks.iter().map(|(network, checkpoint)| (*network, &**checkpoint)).collect();
        let (changes, told) = self.loras.fit(&read)?;
        for ((_, checkpoint), changes) in networks.iter_mut().zip(changes) {
            checkpoint.change(changes);
        }
        self.told.extend(told);
        Ok(())
    }

    /// As [`network`](Self::network), for one whose weights can be changed later.
    pub(super) fn changeable<N>(
        &mut self,
        network: Network,
        checkpoint: Checkpoint,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<N>,
    ) -> Result<N> {
        let part = if network == Network::Unet { Part::Network } else { Part::Text };
        let built = self.network(part, checkpoint, network.folder(), build)?;
        let stored = self.weights.pop().map(|stored| stored.changeable(network));
        self.weights.extend(stored);
        Ok(built)
    }

    fn component<N>(
        &mut self,
        part: Part,
        component: &Component,
        name: &str,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<N>,
    ) -> Result<N> {
        self.network(part, Checkpoint::open(&component.weights)?, name, build)
    }

    pub(super) fn network<N>(
        &mut self,
        part: Part,
        checkpoint: Checkpoint,
        name: &str,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<N>,
    ) -> Result<N> {
        self.network_as(part, checkpoint, name, self.element, build)
    }

    /// As [`network`](Self::network), with matrices stored as `element`.
    pub(super) fn network_as<N>(
        &mut self,
        part: Part,
        checkpoint: Checkpoint,
        name: &str,
        element: ElementType,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<N>,
    ) -> Result<N> {
        // A decoder is small, and what it gets wrong is seen.
        let storage = if part == Part::Decoder { WeightStorage::AsActivations } else { self.storage };
        let mut loader =
            Loader::new(name, element).with_binding_limit(self.limit).with_weight_storage(storage);
        let network = build(&checkpoint, &mut loader)?;
        self.weights.push(Stored::new(part, name, checkpoint, loader.into_pending()));
        Ok(network)
    }

    fn latent_diffusion(&mut self, files: &Original) -> Result<Model> {
        let config = LatentDiffusionConfig::from_file(&files.config)?;
        let checkpoint = Checkpoint::open(std::slice::from_ref(&files.weights))?;
        let layers = config.unet.layers_per_block;
        let levels = config.vq.autoencoder.levels();
        // A run of the original code swaps averaged weights in, where the file has them.
        let averaged = |name: &str| ldm::averaged(name).filter(|name| checkpoint.shape(name).is_some());
        let swap = config.use_ema && checkpoint.names().any(|name| averaged(name).is_some());
        let originals: Vec<String> = checkpoint.names().map(str::to_owned).collect();
        let unet = if swap {
            let names = originals.iter().filter_map(|name| Some((averaged(name)?, ldm::unet(name, layers)?)));
            let names: std::collections::BTreeMap<String, String> = names.collect();
            checkpoint.renamed(|name| names.get(name).cloned())
        } else {
            checkpoint.renamed(|name| ldm::unet(name, layers))
        };
        let up_attention = config.unet.up_attention.clone();
        let unet = unet
            .with_original_names(move |name| originals_latent_diffusion::unet(name, layers, &up_attention));
        let embedder = checkpoint.renamed(ldm::class_embedder);
        let autoencoder =
            checkpoint.renamed(|name| ldm::autoencoder(name, levels)).with_original_names(move |name| {
                Some(format!("first_stage_model.{}", originals_latent_diffusion::autoencoder(name, levels)?))
            });

        let channels = config.unet.cross_attention_dim.unwrap_or_default();
        let embedder = self.network(Part::Network, embedder, "class_embedder", |file, loader| {
            ClassEmbedder::load([config.classes, channels], file, loader)
        })?;
        let unet =
            self.network(Part::Network, unet, "unet", |file, loader| UNet::load(config.unet, file, loader))?;
        let vq = self.network(Part::Decoder, autoencoder, "vq", |file, loader| {
            VqDecoder::load(config.vq, file, loader)
        })?;
        let scheduler =
            SchedulerConfig::latent_diffusion(config.linear_start, config.linear_end, config.timesteps)?;
        let decoder = Decoder::Vq(Box::new(vq));
        let conditioner = Conditioner::Classes(embedder);
        Ok(Model { conditioner, unet, decoder, encoder: None, preview: None, scheduler })
    }

    fn original_ddpm(&mut self, files: &Original) -> Result<Model> {
        let config = OriginalDdpmConfig::from_file(&files.config)?;
        expect_pixels(&files.config, &config.unet)?;
        let checkpoint = Checkpoint::open(std::slice::from_ref(&files.weights))?;
        let levels = config.unet.levels();
        // Files that were saved from several GPUs have another word in front.
        let renamed = checkpoint
            .renamed(|name| names_original_ddpm::unet(name.strip_prefix("module.").unwrap_or(name), levels));
        let unet = self
            .network(Part::Network, renamed, "unet", |file, loader| UNet::load(config.unet, file, loader))?;
        let scheduler = SchedulerConfig::original_ddpm(config.beta_start, config.beta_end, config.timesteps)?;
        Ok(Model::of_pixels(unet, scheduler))
    }
}

/// A U-Net must make what it reads, and the decoder must read that.
fn expect_channels(file: &PathBuf, unet: &UNetConfig, expected: usize) -> Result<()> {
    if unet.in_channels == expected && unet.out_channels == expected {
        return Ok(());
    }
    let problem = format!(
        "found {} in and {} out, expected the autoencoder's {expected} latent channels",
        unet.in_channels, unet.out_channels
    );
    Err(Error::config(file, "in_channels", problem))
}

/// An unconditional pipeline has nothing that its U-Net could attend to.
fn expect_no_context(file: &PathBuf, unet: &UNetConfig) -> Result<()> {
    if unet.cross_attention_dim.is_none() {
        return Ok(());
    }
    Err(Error::config(file, "_class_name", "expected \"UNet2DModel\", since the pipeline has no condition"))
}

/// A U-Net that makes pictures makes grey or coloured ones, and predicts nothing besides.
fn expect_pixels(file: &PathBuf, unet: &UNetConfig) -> Result<()> {
    if unet.in_channels == unet.out_channels && [1, 3].contains(&unet.in_channels) {
        return Ok(());
    }
    let problem = format!(
        "found {} in and {} out; supported are 1 (grey) or 3 (red, green, blue), in as out",
        unet.in_channels, unet.out_channels
    );
    Err(Error::config(file, "in_channels", problem))
}
