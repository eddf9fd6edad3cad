//! What DeepCache takes on the device: `docs/memory.md`.

#![expect(clippy::unwrap_used, reason = "a test program that prints its counts")]
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]

#[path = "support/loops.rs"]
mod loops;
mod support;

use std::path::Path;

use deepcache::deepcache::Reuse;
use deepcache::gpu::recording::Recording;
use deepcache::gpu::{Memory, PlanMode, Purpose, plan_slots};
use deepcache::models::unet::{UNet, UNetConfig};
use deepcache::pipelines::{CacheOptions, Request, StorageType};
use deepcache::schedulers::SchedulerKind;
use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, Loader};
use loops::{GPU, load, run};
use support::repository;

const TOKENS: usize = 77;
/// Both guidance halves.
const COPIES: usize = 2;

fn stable_diffusion() -> UNet {
    let config = UNetConfig::from_file(repository("tests/published/sd-v1-5.json")).unwrap();
    UNet::load(config, &Checkpoint::assumed(), &mut Loader::new("unet", ElementType::F16)).unwrap()
}

/// Bytes that the kept features of a branch take on the device, once they are allocated.
fn kept_bytes(unet: &UNet, branch: usize, reuse: Reuse, side: usize) -> u64 {
    let mut memory = Memory::new(GPU.clone());
    let features: Vec<Tensor> =
        (0..reuse.features()).map(|_| unet.kept_feature(branch, COPIES, side, side).unwrap()).collect();
    memory.allocate(&features, Purpose::Cache).unwrap();
    memory.bytes(Purpose::Cache)
}

/// Bytes of the slots that all activations share: of full calls alone, and of full and shallow ones.
fn slot_bytes(unet: &UNet, branch: usize, side: usize) -> [u64; 2] {
    let channels = unet.config().in_channels;
    let conditioning = unet.conditioning(COPIES, TOKENS, 1);
    let sample = Tensor::external("sample", [COPIES, side, side, channels], ElementType::F16);
    let kept = unet.kept_feature(branch, COPIES, side, side).unwrap();
    let [mut plain, mut full, mut shallow] = ["plain", "full", "shallow"].map(Recording::new);
    unet.record_full(&mut plain, &sample, &conditioning, &[]).unwrap();
    unet.record_full(&mut full, &sample, &conditioning, &[(branch, &kept)]).unwrap();
    unet.record_shallow(&mut shallow, &sample, &conditioning, branch, &kept).unwrap();
    [vec![&plain], vec![&full, &shallow]].map(|all| plan_slots(&all, PlanMode::Shared).bytes())
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The rows of the tables in `docs/memory.md`.
fn rows() -> Vec<String> {
    let unet = stable_diffusion();
    let activations = [64, 96].map(|side| mebibytes(slot_bytes(&unet, 0, side)[0]));
    let mut rows = vec![format!("| all activations | {:.1} | {:.1} |", activations[0], activations[1])];
    for branch in 0..unet.skip_count() {
        let mut row = format!("| {branch} |");
        for side in [64, 96] {
            let [hold, linear, quadratic] = [Reuse::Hold, Reuse::Linear, Reuse::Quadratic]
                .map(|reuse| mebibytes(kept_bytes(&unet, branch, reuse, side)));
            let [uncached, cached] = slot_bytes(&unet, branch, side);
            let more = mebibytes(cached) - mebibytes(uncached);
            row += &format!(" {hold:.2} | {linear:.2} | {quadratic:.2} | {more:+.2} |");
        }
        rows.push(row);
    }
    rows
}

#[test]
fn the_table_in_the_documents_is_what_is_allocated() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/memory.md");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = |line: &&str| {
        let rest = line.strip_prefix("| ");
        rest.is_some_and(|rest| rest.starts_with("all") || rest.starts_with(char::is_numeric))
    };
    let found: Vec<&str> = text.lines().filter(wanted).collect();
    let rows = rows();
    assert_eq!(found, rows, "docs/memory.md; the rows should be\n{}", rows.join("\n"));
}

#[test]
fn the_interval_takes_no_memory_and_a_branch_only_its_feature() {
    let mut pipeline = load(&repository("assets/tiny"), StorageType::F32);
    let request = Request {
        steps: Some(6),
        scheduler: Some(SchedulerKind::Ddim),
        ..Request::prompt("a large red circle on a blue background")
    };
    let uncached = run(&mut pipeline, &request).statistics;
    assert_eq!(uncached.cache_bytes, 0);
    for (branch, feature) in [(0, 2 * 16 * 16 * 32), (2, 2 * 16 * 16 * 64)] {
        for interval in [2, 3, 5] {
            let cache = Some(CacheOptions::uniform(interval, branch));
            let cached = run(&mut pipeline, &Request { cache, ..request.clone() }).statistics;
            assert_eq!(cached.cache_bytes, 4 * feature, "branch {branch}, interval {interval}");
            let more = cached.peak_bytes - uncached.peak_bytes;
            assert_eq!(more, cached.cache_bytes, "branch {branch}, interval {interval}: nothing else");
        }
    }
}
