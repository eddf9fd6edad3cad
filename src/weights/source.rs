//! The values of one tensor as they are read: from its file, with what is added to them.

use std::path::Path;

use super::checkpoint::{Checkpoint, Entry};
use super::lora::Applied;
use super::packing::fits;
use super::stored::Stored;
use crate::error::{Error, Result};

/// One tensor of a file, as it is read.
pub(super) struct Source<'a> {
    file: &'a Path,
    name: &'a str,
    shape: &'a [usize],
    stored: Stored,
    bytes: &'a [u8],
    /// Values behind those of the file.
    appended: &'a [f32],
    changes: Vec<Applied>,
    /// The files of the changes.
    changed_by: Vec<String>,
}

impl<'a> Source<'a> {
    /// Opens a tensor and reads what changes it.
    pub(super) fn new(checkpoint: &'a Checkpoint, name: &str) -> Result<Self> {
        let (found, entry) = checkpoint.find(name).ok_or_else(|| checkpoint.missing(name))?;
        let changes = checkpoint.changes_of(found);
        Ok(Self {
            changes: changes.iter().map(|change| change.read()).collect::<Result<_>>()?,
            changed_by: changes.iter().map(|change| change.file()).collect(),
            ..Self::plain(checkpoint, entry)
        })
    }

    /// As [`new`](Self::new), without what changes it.
    fn plain(checkpoint: &'a Checkpoint, entry: &'a Entry) -> Self {
        Self {
            file: checkpoint.file_of(entry),
            name: &entry.name,
            shape: &entry.shape,
            stored: entry.stored,
            bytes: checkpoint.bytes_of(entry),
            appended: &entry.appended,
            changes: Vec::new(),
            changed_by: Vec::new(),
        }
    }

    /// Converts `values.len()` values from `start` on.
    pub(super) fn decode(&self, start: usize, values: &mut [f32]) {
        let size = self.stored.bytes();
        let in_file = (self.bytes.len() / size).saturating_sub(start).min(values.len());
        let (own, further) = values.split_at_mut(in_file);
        if !own.is_empty() {
            self.stored.decode(&self.bytes[start * size..][..own.len() * size], own);
        }
        if !further.is_empty() {
            let first = start + in_file - self.bytes.len() / size;
            further.copy_from_slice(&self.appended[first..][..further.len()]);
        }
        for change in &self.changes {
            change.add(start, values);
        }
    }

    /// What is wrong with values from `start` on, one of which is not finite or larger than `largest`.
    pub(super) fn refuse(&self, start: usize, values: &[f32], largest: f32) -> Error {
        let (index, value) = values
            .iter()
            .enumerate()
            .find(|(_, value)| !fits(**value, largest))
            .map_or((0, f32::NAN), |(index, value)| (index, *value));
        let position = position(start + index, self.shape);
        let mut problem = if value.is_nan() {
            format!("holds a value that is not finite (NaN) at {position:?}")
        } else if value.is_infinite() {
            format!("holds a value that is not finite (infinity) at {position:?}")
        } else {
            format!("holds {value} at {position:?}, beyond {largest}, the largest f16: use f32")
        };
        if !self.changed_by.is_empty() {
            problem += &format!(" (changed by {})", self.changed_by.join(", "));
        }
        Error::weights(self.file, self.name, problem)
    }
}

impl Checkpoint {
    /// All values of a tensor, in the order of the file; for small ones.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is not there, or no layer could read it.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let source = Source::new(self, name)?;
        if let Some(problem) = source.stored.problem() {
            return Err(self.problem(name, problem));
        }
        let mut values = vec![0.0; source.shape.iter().product()];
        source.decode(0, &mut values);
        Ok(values)
    }

    /// As [`values`](Self::values), all of which must be finite.
    pub(super) fn finite_values(&self, name: &str) -> Result<Vec<f32>> {
        let values = self.values(name)?;
        if values.iter().fold(true, |fit, value| fit & value.is_finite()) {
            return Ok(values);
        }
        Err(Source::new(self, name)?.refuse(0, &values, f32::MAX))
    }
}

fn position(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut position: Vec<usize> = shape
        .iter()
        .rev()
        .map(|extent| {
            let along = index % extent;
            index /= extent;
            along
        })
        .collect();
    position.reverse();
    position
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn positions_count_the_last_extent_fastest() {
        assert_eq!(position(0, &[2, 3]), [0, 0], "the first value");
        assert_eq!(position(5, &[2, 3]), [1, 2], "the last value");
        assert_eq!(position(0, &[]), [0; 0], "a scalar has no position");
    }
}
