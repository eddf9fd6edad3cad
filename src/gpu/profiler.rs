//! Time on the GPU, by label.

use std::collections::HashMap;

/// Time of all dispatches with one label.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRow {
    /// The command's label.
    pub label: String,
    /// How often it ran.
    pub count: usize,
    /// Time on the GPU in seconds, all runs together.
    pub seconds: f64,
    /// Multiply-accumulates, all runs together.
    pub multiply_accumulates: u64,
}

/// Time on the GPU by label, gathered over plays.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    rows: HashMap<String, ProfileRow>,
}

impl Profile {
    pub(super) fn add(&mut self, label: &str, seconds: f64, multiply_accumulates: u64) {
        let row = self.rows.entry(label.to_owned()).or_insert_with(|| ProfileRow {
            label: label.to_owned(),
            count: 0,
            seconds: 0.0,
            multiply_accumulates: 0,
        });
        row.count += 1;
        row.seconds += seconds;
        row.multiply_accumulates += multiply_accumulates;
    }

    /// The rows, the most expensive first.
    #[must_use]
    pub fn rows(&self) -> Vec<ProfileRow> {
        let mut rows: Vec<_> = self.rows.values().cloned().collect();
        rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds).then_with(|| a.label.cmp(&b.label)));
        rows
    }
}

impl std::fmt::Display for Profile {
    /// A table with one line per label: milliseconds, share, runs, GMAC/s.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows = self.rows();
        let total: f64 = rows.iter().map(|row| row.seconds).sum();
        writeln!(f, "{:>10} {:>7} {:>6} {:>9}  label", "ms", "share", "runs", "GMAC/s")?;
        for row in rows {
            #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
            let rate = row.multiply_accumulates as f64 / row.seconds.max(1e-12) * 1e-9;
            let share = 100.0 * row.seconds / total.max(1e-12);
            let milliseconds = row.seconds * 1e3;
            writeln!(f, "{milliseconds:>10.3} {share:>6.1}% {:>6} {rate:>9.1}  {}", row.count, row.label)?;
        }
        Ok(())
    }
}
