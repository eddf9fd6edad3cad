//! One branch of an analysis on the device.

use super::BranchAnalysis;
use crate::error::Result;
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Memory, PendingRead, Program};
use crate::kernels::similarity::{GROUPS, Similarity, similarity};
use crate::tensor::{ElementType, Tensor};

/// The tensors of one branch.
#[derive(Debug)]
pub(super) struct Branch {
    /// The skip index.
    pub(super) index: usize,
    /// The feature of the present call, or the one that stands in for it.
    pub(super) feature: Tensor,
    /// Features of all calls.
    pub(super) bank: Vec<Tensor>,
    /// Partial sums of one call with all calls before it, `[S, 64, 4]`.
    pub(super) sums: Tensor,
    pub(super) macs_shallow: u64,
}

/// The programs of one branch.
#[derive(Debug)]
pub(super) struct BranchPrograms {
    /// For every call but the first: its similarities with the calls before it.
    pub(super) pairs: Vec<Program>,
    /// A shallow call from the feature, and how far its output is from that of the full one.
    pub(super) probe: Option<Program>,
}

impl Branch {
    pub(super) fn new(index: usize, feature: Tensor, calls: usize) -> Self {
        let (shape, element) = (feature.shape().clone(), feature.element());
        let of_call =
            |call: usize| Tensor::external(format!("feature of call {call}"), shape.clone(), element);
        let bank = (0..calls).map(of_call).collect();
        let sums = Tensor::external("pair_sums", [calls, GROUPS, 4], ElementType::F32);
        Self { index, feature, bank, sums, macs_shallow: 0 }
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.bank.iter().chain([&self.feature, &self.sums])
    }

    /// The similarities of every call with those before it; relative to the later one, for which an earlier one
    /// would stand in.
    pub(super) fn record_pairs(&self, executor: &Executor) -> Result<Vec<Recording>> {
        let later = self.bank.iter().enumerate().skip(1);
        let record = |(call, later): (usize, &Tensor)| {
            let mut recording = executor.recording("pairs");
            for (row, earlier) in self.bank[..call].iter().enumerate() {
                similarity(&mut recording, later, earlier, &self.sums, row)?;
            }
            Ok(recording)
        };
        later.map(record).collect()
    }

    /// Compares the features of all pairs of calls.
    pub(super) fn gather(
        &self,
        programs: &BranchPrograms,
        memory: &Memory,
        executor: &mut Executor,
    ) -> Result<BranchAnalysis> {
        let calls = self.bank.len();
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
        let scale = (self.feature.shape().count() as f64).sqrt();
        let mut cosine = vec![vec![1.0; calls]; calls];
        let mut relative_l2 = vec![vec![0.0; calls]; calls];
        let mut distances = vec![vec![0.0; calls]; calls];
        for (later, program) in (1..calls).zip(&programs.pairs) {
            executor.play(program)?;
            let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&memory.read(&self.sums)?);
            for (earlier, sums) in sums.chunks_exact(4 * GROUPS).take(later).enumerate() {
                let found = Similarity::from_partial_sums(sums);
                for (row, column) in [(earlier, later), (later, earlier)] {
                    cosine[row][column] = found.cosine;
                    relative_l2[row][column] = found.relative_l2;
                    distances[row][column] = found.distance / scale;
                }
            }
        }
        Ok(BranchAnalysis {
            branch: self.index,
            cosine,
            relative_l2,
            distances,
            weights: None,
            cache_bytes: self.feature.bytes(),
            macs_shallow: self.macs_shallow,
        })
    }
}

/// The root mean square that partial sums stand for, of so many values.
pub(super) fn root_mean_square(read: PendingRead, values: usize) -> Result<f64> {
    let sums: Vec<f32> = bytemuck::pod_collect_to_vec(&read.wait()?);
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 values")]
    Ok(Similarity::from_partial_sums(&sums).distance / (values as f64).sqrt())
}
