//! What the paper's models cost: multiply-accumulates counted from recordings, without weights, against the
//! published tables.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its counts")]
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]

use std::path::{Path, PathBuf};

use deepcache::gpu::recording::Recording;
use deepcache::models::OriginalDdpmConfig;
use deepcache::models::latent_diffusion::LatentDiffusionConfig;
use deepcache::models::unet::{Context, SIZES, UNet, UNetConfig};
use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, Loader};

fn published(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/published").join(file)
}

/// A U-Net without weights, and the batch and context of a call.
struct Counted {
    unet: UNet,
    tokens: usize,
}

/// Billions of multiply-accumulates of a call on one image.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Convolutions and linear layers, which the published tables count.
    layers: f64,
    /// The products of attention.
    attention: f64,
}

impl Counted {
    fn new(config: UNetConfig, tokens: usize) -> Self {
        let mut loader = Loader::new("unet", ElementType::F16);
        Self { unet: UNet::load(config, &Checkpoint::assumed(), &mut loader).unwrap(), tokens }
    }

    /// A full call, or a shallow one of a branch; with what is computed once per run, as the published code
    /// computes it in every call.
    fn call(&self, branch: Option<usize>) -> Cost {
        let config = self.unet.config();
        let [height, width] = config.sample_size.unwrap();
        let conditioning = self.unet.conditioning(1, self.tokens, 1);
        let sample = Tensor::external("sample", [1, height, width, config.in_channels], ElementType::F16);
        let context = config
            .cross_attention_dim
            .map(|channels| Tensor::external("context", [1, self.tokens, channels], ElementType::F16));
        let mut once = Recording::new("once");
        let pooled = config.text_time.map(|text_time| {
            let channels = text_time.input_channels - SIZES * text_time.time_channels;
            Tensor::external("pooled", [1, channels], ElementType::F16)
        });
        let context = Context { pooled: pooled.as_ref(), ..Context::from(context.as_ref()) };
        self.unet.record_conditioning(&mut once, context, &conditioning).unwrap();
        let mut call = Recording::new("call");
        match branch {
            None => {
                self.unet.record_full(&mut call, &sample, &conditioning, &[]).unwrap();
            }
            Some(branch) => {
                let kept = self.unet.kept_feature(branch, 1, height, width).unwrap();
                self.unet.record_shallow(&mut call, &sample, &conditioning, branch, &kept).unwrap();
            }
        }
        let mut cost = Cost { layers: 0.0, attention: 0.0 };
        for command in call.commands() {
            let count = command.cost.multiply_accumulates as f64 / 1e9;
            if command.shader.name.starts_with("attention") {
                cost.attention += count;
            } else {
                cost.layers += count;
            }
        }
        // Projections of the time embedding and the context belong to the block that reads them.
        let blocks: Vec<String> = call.commands().iter().map(|command| block(&command.label)).collect();
        for command in once.commands() {
            let own = block(&command.label);
            if ["time_embedding", "add_embedding"].contains(&own.as_str()) || blocks.contains(&own) {
                cost.layers += command.cost.multiply_accumulates as f64 / 1e9;
            }
        }
        cost
    }

    /// The mean over the calls of a run with a uniform interval.
    fn mean(&self, branch: usize, interval: usize, calls: usize) -> f64 {
        let full = calls.div_ceil(interval);
        let (all, some) = (self.call(None).layers, self.call(Some(branch)).layers);
        (full as f64 * all + (calls - full) as f64 * some) / calls as f64
    }
}

/// The layer of a label: `call/down_blocks.0/resnets.1/conv1/…` is in `down_blocks.0/resnets.1`.
fn block(label: &str) -> String {
    let parts: Vec<&str> = label.split('/').skip(1).collect();
    let length = if parts[0].contains("_blocks") || parts[0] == "mid_block" { 2 } else { 1 };
    parts[..length.min(parts.len())].join("/")
}

fn diffusers(file: &str) -> Counted {
    Counted::new(UNetConfig::from_file(published(file)).unwrap(), 77)
}

fn stable_diffusion() -> Counted {
    diffusers("sd-v1-5.json")
}

fn latent_diffusion() -> Counted {
    Counted::new(LatentDiffusionConfig::from_file(published("cin256-v2.yaml")).unwrap().unet, 1)
}

fn pixels(file: &str) -> Counted {
    Counted::new(OriginalDdpmConfig::from_file(published(file)).unwrap().unet, 0)
}

fn near(what: &str, found: f64, published: f64, limit: f64) {
    let apart = found / published - 1.0;
    println!("{what}: {found:.2} G, published {published} G ({:+.2} %)", 100.0 * apart);
    assert!(apart.abs() <= limit, "{what}: {found:.3} G, published {published} G");
}

/// One per cent, the least that the published figures are rounded to.
const LIMIT: f64 = 0.01;

#[test]
fn full_calls_cost_what_is_published() {
    near("SD v1.5, one guidance half", stable_diffusion().call(None).layers, 338.83, LIMIT);
    near("LDM-4-G", latent_diffusion().call(None).layers, 99.82, LIMIT);
    near("DDPM CIFAR-10", pixels("cifar10.yml").call(None).layers, 6.1, LIMIT);
    near("DDPM LSUN", pixels("bedroom.yml").call(None).layers, 248.7, LIMIT);
}

#[test]
fn table_1_latent_diffusion_at_skip_branch_0() {
    let counted = latent_diffusion();
    for (interval, published) in [(2, 52.12), (3, 36.48), (5, 23.50), (10, 13.97), (20, 9.39)] {
        near(&format!("LDM-4-G, N = {interval}"), counted.mean(0, interval, 250), published, LIMIT);
    }
}

#[test]
fn table_2_ddpm_at_skip_branch_2() {
    let cifar = pixels("cifar10.yml");
    for (interval, published) in [(2, 4.15), (3, 3.54), (5, 3.01), (10, 2.63)] {
        near(&format!("CIFAR-10, N = {interval}"), cifar.mean(2, interval, 100), published, LIMIT);
    }
    let lsun = pixels("bedroom.yml");
    for (interval, published) in [(2, 190.8), (3, 172.3), (5, 156.0)] {
        near(&format!("LSUN, N = {interval}"), lsun.mean(2, interval, 100), published, LIMIT);
    }
}

#[test]
fn table_12_ddpm_on_cifar_at_every_branch() {
    let counted = pixels("cifar10.yml");
    let published = [1.60, 2.24, 3.01, 3.89, 4.58, 5.31, 5.45, 5.60, 5.88, 5.95, 5.99, 6.03];
    assert_eq!(published.len(), counted.unet.skip_count());
    for (branch, published) in published.into_iter().enumerate() {
        // At these two the published code seems to leave out one layer: 0.14 G of every shallow call.
        let limit = if [6, 7].contains(&branch) { 0.025 } else { LIMIT };
        near(&format!("CIFAR-10, N = 5, s = {branch}"), counted.mean(branch, 5, 100), published, limit);
    }
}

/// The paper's Table 3 gives 130.45 G for Stable Diffusion with N = 5, which is no branch's: it lies between 1 and 2.
#[test]
fn the_figure_of_table_3_belongs_to_no_branch() {
    let counted = stable_diffusion();
    let means = [0, 1, 2, 3].map(|branch| counted.mean(branch, 5, 50));
    println!("SD v1.5, N = 5, s = 0 to 3: {means:.2?} G, published 130.45 G");
    assert!(means[1] < 115.0 && means[2] > 145.0, "{means:?}");
}

/// The rows of `docs/costs.md`.
fn rows() -> Vec<String> {
    let models = vec![
        ("Stable Diffusion v1.5, 512x512, one guidance half", stable_diffusion()),
        ("Stable Diffusion v2.1, 768x768, one guidance half", diffusers("sd-v2-1.json")),
        ("SDXL base 1.0, 1024x1024, one guidance half", diffusers("sdxl-base-1.0.json")),
        ("LDM-4-G, ImageNet 256x256, one guidance half", latent_diffusion()),
        ("DDPM, CIFAR-10 32x32", pixels("cifar10.yml")),
        ("DDPM, LSUN 256x256", pixels("bedroom.yml")),
    ];
    let mut rows = Vec::new();
    for (name, counted) in &models {
        let full = counted.call(None);
        let all = full.layers + full.attention;
        rows.push(format!("| {name} | full | {:.2} | {:.2} | 100 % | 1 |", full.layers, full.attention));
        for branch in 0..counted.unet.skip_count() {
            let Cost { layers, attention } = counted.call(Some(branch));
            let share = (layers + attention) / all;
            rows.push(format!(
                "| | {branch} | {layers:.2} | {attention:.2} | {:.1} % | {:.2} |",
                100.0 * share,
                1.0 / share
            ));
        }
    }
    rows
}

#[test]
fn the_table_in_the_documents_is_what_is_counted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/costs.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let found: Vec<&str> = text.lines().take_while(|line| !line.starts_with("## ")).collect();
    let found: Vec<&str> = found.into_iter().filter(|line| line.starts_with("| ")).skip(1).collect();
    let rows = rows();
    assert_eq!(found, rows, "docs/costs.md; the rows should be\n{}", rows.join("\n"));
}
