//! Which weights are on the device at the same time when they come and go while a recording is played. Device-free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::recording::{Command, Recording};
use crate::tensor::External;

/// Offsets of tensors in the window: the largest alignment that any adapter asks for.
const ALIGNMENT: u64 = 256;

/// Commands of a recording, and the segment whose tensors they read: any, or none that comes and goes.
pub type Part = (Range<usize>, Option<usize>);

/// Tensors that take turns in one window of memory.
///
/// A segment is what is in the window at the same time. All uses of a tensor in the recording that uses it first lie in one
/// segment, so that it is brought once for every play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of the window.
    pub window: u64,
    /// The tensors of every segment by their ids, and their offsets in the window.
    pub tensors: Vec<Vec<(u64, u64)>>,
    /// The parts of every recording, in the order of its commands.
    pub parts: Vec<Vec<Part>>,
}

/// Puts the tensors of some recordings for which `comes_and_goes` holds into segments of up to `usual` bytes, or of as
/// many as are needed together.
///
/// Recordings are looked at in their order. A tensor that a command would need beside one of another segment is left out:
/// it has to stay on the device.
#[must_use]
pub fn plan_segments(
    recordings: &[&Recording],
    comes_and_goes: &dyn Fn(&External) -> bool,
    usual: u64,
) -> Segments {
    let mut stays = BTreeSet::new();
    loop {
        let moves = |external: &External| !stays.contains(&external.id()) && comes_and_goes(external);
        let plan = attempt(recordings, &moves, usual);
        let conflicts = conflicts(recordings, &moves, &plan.homes);
        if conflicts.is_empty() {
            let parts = recordings.iter().map(|recording| parts(recording, &moves, &plan.homes)).collect();
            return Segments { window: plan.window, tensors: plan.tensors, parts };
        }
        stays.extend(conflicts);
    }
}

/// A first assignment, which some commands may not agree with.
#[derive(Default)]
struct Attempt {
    window: u64,
    tensors: Vec<Vec<(u64, u64)>>,
    /// The segment of every tensor.
    homes: BTreeMap<u64, usize>,
}

fn externals<'a>(
    command: &'a Command,
    moves: &'a dyn Fn(&External) -> bool,
) -> impl Iterator<Item = &'a External> {
    let externals = command.bindings.iter().filter_map(|binding| binding.tensor.as_external());
    externals.filter(|external| moves(external))
}

fn attempt(recordings: &[&Recording], moves: &dyn Fn(&External) -> bool, usual: u64) -> Attempt {
    let mut plan = Attempt::default();
    for recording in recordings {
        // Tensors that this recording uses first, from their first to their last use.
        let mut uses: Vec<(u64, u64, Range<usize>)> = Vec::new();
        for (index, command) in recording.commands().iter().enumerate() {
            for external in externals(command, moves).filter(|found| !plan.homes.contains_key(&found.id())) {
                match uses.iter_mut().find(|(id, ..)| *id == external.id()) {
                    Some((_, _, range)) => range.end = index + 1,
                    None => uses.push((external.id(), external.bytes(), index..index + 1)),
                }
            }
        }
        // Those whose uses overlap are needed together; of such groups, as many as fit in the window are one segment.
        let mut groups: Vec<(Vec<(u64, u64)>, usize)> = Vec::new();
        for (id, bytes, range) in uses {
            match groups.last_mut().filter(|(_, end)| range.start < *end) {
                Some((group, end)) => {
                    group.push((id, bytes));
                    *end = range.end.max(*end);
                }
                None => groups.push((vec![(id, bytes)], range.end)),
            }
        }
        let mut filled = u64::MAX;
        for (group, _) in groups {
            let bytes: u64 = group.iter().map(|(_, bytes)| bytes.next_multiple_of(ALIGNMENT)).sum();
            if filled.saturating_add(bytes) > usual {
                plan.tensors.push(Vec::new());
                filled = 0;
            }
            let segment = plan.tensors.len() - 1;
            for (id, bytes) in group {
                plan.homes.insert(id, segment);
                plan.tensors[segment].push((id, filled));
                filled += bytes.next_multiple_of(ALIGNMENT);
            }
            plan.window = plan.window.max(filled);
        }
    }
    plan
}

/// Tensors of commands that need more than one segment.
fn conflicts(
    recordings: &[&Recording],
    moves: &dyn Fn(&External) -> bool,
    homes: &BTreeMap<u64, usize>,
) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    for command in recordings.iter().flat_map(|recording| recording.commands()) {
        let needed: Vec<u64> = externals(command, moves).map(External::id).collect();
        let segments: BTreeSet<_> = needed.iter().map(|id| homes[id]).collect();
        if segments.len() > 1 {
            found.extend(needed);
        }
    }
    found
}

fn parts(
    recording: &Recording,
    moves: &dyn Fn(&External) -> bool,
    homes: &BTreeMap<u64, usize>,
) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for (index, command) in recording.commands().iter().enumerate() {
        let needed = externals(command, moves).map(|external| homes[&external.id()]).next();
        match parts.last_mut() {
            Some((range, segment)) if needed.is_none() || segment.is_none() || *segment == needed => {
                range.end = index + 1;
                *segment = segment.or(needed);
            }
            _ => parts.push((index..index + 1, needed)),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::recording::{Access, Dispatch};
    use super::super::shader::Shader;
    use super::*;
    use crate::tensor::{ElementType, Tensor};

    static READ: Shader =
        Shader { name: "read", source: "", preludes: &[], bindings: &["one", "other"], definitions: &[] };

    /// A recording whose commands read two tensors each.
    fn recording(commands: &[[&Tensor; 2]]) -> Recording {
        let mut recording = Recording::new("reads");
        for [one, other] in commands {
            recording.dispatch(Dispatch {
                shader: &READ,
                element: ElementType::F32,
                definitions: &[],
                constants: &[],
                params: &[],
                bindings: &[(one, Access::Read), (other, Access::Read)],
                grid: [1, 1, 1],
                multiply_accumulates: 0,
            });
        }
        recording
    }

    /// A tensor of so many times 256 bytes.
    fn tensor(units: usize) -> Tensor {
        Tensor::external("weight", [64 * units], ElementType::F32)
    }

    fn id(tensor: &Tensor) -> u64 {
        tensor.as_external().map_or(0, External::id)
    }

    /// Tensors of one unit stay.
    fn plan(recordings: &[&Recording], units: u64) -> Segments {
        plan_segments(recordings, &|external| external.bytes() > 256, 256 * units)
    }

    #[test]
    fn tensors_follow_each_other_in_the_window() {
        let (small, a, b, c) = (tensor(1), tensor(2), tensor(2), tensor(3));
        let recording =
            recording(&[[&small, &small], [&a, &small], [&b, &small], [&small, &small], [&c, &small]]);
        let plan = plan(&[&recording], 4);
        assert_eq!(plan.tensors, [vec![(id(&a), 0), (id(&b), 512)], vec![(id(&c), 0)]]);
        assert_eq!(plan.window, 1024, "the larger of both");
        // What needs nothing goes along with what is before it.
        assert_eq!(plan.parts, [[(0..4, Some(0)), (4..5, Some(1))]]);
    }

    #[test]
    fn what_is_used_together_comes_together() {
        let (small, a, b, c) = (tensor(1), tensor(2), tensor(2), tensor(2));
        let recording = recording(&[[&a, &small], [&b, &small], [&a, &small], [&c, &small]]);
        let plan = plan(&[&recording], 1);
        assert_eq!(plan.parts, [[(0..3, Some(0)), (3..4, Some(1))]]);
        assert_eq!(plan.window, 1024, "more than was asked for");
    }

    #[test]
    fn a_second_recording_uses_what_the_first_has_placed() {
        let (small, a, b, c) = (tensor(1), tensor(4), tensor(4), tensor(4));
        let full = recording(&[[&a, &small], [&b, &small], [&c, &small]]);
        let shallow = recording(&[[&a, &small], [&small, &small], [&c, &small]]);
        let plan = plan(&[&full, &shallow], 4);
        assert_eq!(plan.parts[0], [(0..1, Some(0)), (1..2, Some(1)), (2..3, Some(2))]);
        assert_eq!(plan.parts[1], [(0..2, Some(0)), (2..3, Some(2))]);
    }

    #[test]
    fn what_cannot_come_together_stays() {
        let (a, b, c) = (tensor(4), tensor(4), tensor(4));
        let apart = recording(&[[&a, &a], [&b, &b], [&c, &c]]);
        let together = recording(&[[&a, &c]]);
        let plan = plan(&[&apart, &together], 4);
        assert_eq!(plan.tensors, [[(id(&b), 0)]], "a and c are needed at once");
        assert_eq!(plan.parts, [vec![(0..3, Some(0))], vec![(0..1, None)]]);
    }

    #[test]
    fn nothing_that_comes_and_goes_needs_no_window() {
        let small = tensor(1);
        let recording = recording(&[[&small, &small]]);
        let plan = plan(&[&recording], 4);
        assert_eq!((plan.window, plan.parts), (0, vec![vec![(0..1, None)]]));
    }
}
