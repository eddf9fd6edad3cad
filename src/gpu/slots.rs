//! The memory plan: which transient tensors share which slot.
//!
//! wgpu forbids one buffer bound for reading and for writing in one dispatch, and puts a barrier per whole
//! buffer; so a slot is a buffer of its own, and a command's output never lies in a slot of its inputs.
//! Both follow from lifetimes that include the defining and the last reading command.

use super::recording::{Access, Recording};
use crate::tensor::Storage;

/// How transient tensors are given memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanMode {
    /// Tensors whose lifetimes do not meet share slots.
    #[default]
    Shared,
    /// Every tensor has a slot of its own: to find out whether the plan is at fault.
    BufferPerTensor,
}

/// The slots of several recordings that never play at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPlan {
    /// Size of each slot in bytes.
    pub slots: Vec<u64>,
    /// For each recording, for each transient: its slot, unless it was placed elsewhere or is unused.
    pub assignment: Vec<Vec<Option<usize>>>,
    /// The most bytes that are alive at once in any of the recordings: what no plan can go below.
    pub largest_live_set: u64,
}

impl SlotPlan {
    /// Bytes of all slots.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }
}

/// One transient's life on a time line that puts all recordings one after the other.
struct Life {
    recording: usize,
    transient: usize,
    bytes: u64,
    first: usize,
    last: usize,
}

/// Plans slots for recordings that are never played at the same time.
#[must_use]
pub fn plan_slots(recordings: &[&Recording], mode: PlanMode) -> SlotPlan {
    let (lives, end) = lives(recordings);
    let largest_live_set = largest_live_set(&lives, end);
    let mut assignment: Vec<Vec<Option<usize>>> =
        recordings.iter().map(|recording| vec![None; recording.transients().len()]).collect();

    // Largest first: each fills the narrowest gap that its life fits into, so that wide ones stay for longer lives.
    let mut order: Vec<&Life> = lives.iter().collect();
    order.sort_by_key(|life| (std::cmp::Reverse(life.bytes), life.first));
    let mut slots: Vec<(u64, Vec<(usize, usize)>)> = Vec::new();
    for life in order {
        let gaps = slots.iter().enumerate().filter_map(|(slot, (bytes, taken))| {
            let gap = gap(life, taken, end).filter(|_| mode == PlanMode::Shared)?;
            Some((gap, *bytes, slot))
        });
        let slot = gaps.min().map(|(.., slot)| slot).unwrap_or_else(|| {
            slots.push((life.bytes, Vec::new()));
            slots.len() - 1
        });
        slots[slot].1.push((life.first, life.last));
        assignment[life.recording][life.transient] = Some(slot);
    }
    SlotPlan { slots: slots.into_iter().map(|(bytes, _)| bytes).collect(), assignment, largest_live_set }
}

/// How long a slot with these lives is free around another; `None` if it is not.
fn gap(life: &Life, taken: &[(usize, usize)], end: usize) -> Option<usize> {
    let (mut from, mut to) = (0, end);
    for &(first, last) in taken {
        if last < life.first {
            from = from.max(last + 1);
        } else if life.last < first {
            to = to.min(first);
        } else {
            return None;
        }
    }
    Some(to - from)
}

fn lives(recordings: &[&Recording]) -> (Vec<Life>, usize) {
    let mut lives = Vec::new();
    let mut start = 0;
    for (recording_index, recording) in recordings.iter().enumerate() {
        let mut spans: Vec<Option<(usize, usize)>> = vec![None; recording.transients().len()];
        for (time, command) in recording.commands().iter().enumerate() {
            for binding in &command.bindings {
                let Storage::Transient { index, .. } = binding.tensor.storage() else { continue };
                let now = start + time;
                match &mut spans[*index] {
                    Some((_, last)) => *last = now,
                    span @ None => {
                        debug_assert_ne!(
                            binding.access,
                            Access::Read,
                            "{}: reads before a write",
                            command.label
                        );
                        *span = Some((now, now));
                    }
                }
            }
        }
        for (transient, span) in spans.into_iter().enumerate() {
            let info = &recording.transients()[transient];
            if let (Some((first, last)), None) = (span, &info.place) {
                lives.push(Life { recording: recording_index, transient, bytes: info.bytes, first, last });
            }
        }
        start += recording.commands().len();
    }
    (lives, start)
}

fn largest_live_set(lives: &[Life], end: usize) -> u64 {
    let mut change = vec![(0_u64, 0_u64); end + 1];
    for life in lives {
        change[life.first].0 += life.bytes;
        change[life.last + 1].1 += life.bytes;
    }
    let (mut alive, mut most) = (0, 0);
    for (born, dead) in change {
        alive = alive + born - dead;
        most = most.max(alive);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::super::recording::Dispatch;
    use super::super::shader::Shader;
    use super::*;
    use crate::tensor::{ElementType, Tensor};

    static COPY: Shader =
        Shader { name: "copy", source: "", preludes: &[], bindings: &["input", "output"], definitions: &[] };

    fn step(recording: &mut Recording, input: &Tensor, values: usize) -> Tensor {
        let output = recording.transient([values], ElementType::F32);
        recording.dispatch(Dispatch {
            shader: &COPY,
            element: ElementType::F32,
            definitions: &[],
            constants: &[],
            params: &[],
            bindings: &[(input, Access::Read), (&output, Access::Write)],
            grid: [1, 1, 1],
            multiply_accumulates: 0,
        });
        output
    }

    fn chain(sizes: &[usize]) -> Recording {
        let mut recording = Recording::new("chain");
        let mut tensor = Tensor::external("input", [1], ElementType::F32);
        for &size in sizes {
            tensor = step(&mut recording, &tensor, size);
        }
        recording
    }

    #[test]
    fn a_chain_needs_two_slots() {
        let recording = chain(&[8, 8, 8, 8]);
        let plan = plan_slots(&[&recording], PlanMode::Shared);
        assert_eq!(plan.slots, [32, 32]);
        assert_eq!(plan.largest_live_set, 64);
    }

    #[test]
    fn an_output_never_shares_the_slot_of_an_input() {
        let recording = chain(&[3, 9, 1, 7, 7, 2, 30, 4]);
        let plan = plan_slots(&[&recording], PlanMode::Shared);
        for pair in plan.assignment[0].windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn recordings_that_follow_each_other_share_slots() {
        let (a, b) = (chain(&[10, 20]), chain(&[20, 10, 5]));
        let plan = plan_slots(&[&a, &b], PlanMode::Shared);
        assert_eq!(plan.bytes(), 120);
        assert_eq!(plan_slots(&[&a, &b], PlanMode::BufferPerTensor).bytes(), 260);
    }

    #[test]
    fn a_tensor_fills_the_narrowest_gap_that_it_fits_into() {
        let life = |first, last| Life { recording: 0, transient: 0, bytes: 1, first, last };
        let taken = [(2, 3), (7, 9)];
        assert_eq!(gap(&life(4, 5), &taken, 20), Some(3));
        assert_eq!(gap(&life(0, 1), &taken, 20), Some(2));
        assert_eq!(gap(&life(10, 10), &taken, 20), Some(10));
        assert_eq!(gap(&life(3, 4), &taken, 20), None);
        assert_eq!(gap(&life(6, 7), &taken, 20), None);
    }

    #[test]
    fn a_placed_tensor_takes_no_slot() {
        let mut recording = Recording::new("placed");
        let input = Tensor::external("input", [1], ElementType::F32);
        let kept = Tensor::external("kept", [16], ElementType::F32);
        let output = step(&mut recording, &input, 16);
        recording.place(&output, &kept);
        let plan = plan_slots(&[&recording], PlanMode::Shared);
        assert_eq!(plan.slots, [0_u64; 0]);
        assert_eq!(plan.assignment, [[None]]);
    }
}
