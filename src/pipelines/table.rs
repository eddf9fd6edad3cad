//! The scheduler's plan as the table that kernels read.

use super::frame::floats;
use crate::kernels::scheduler_step;
use crate::schedulers::{Limit, Trajectory};

/// Values of one row.
pub(super) fn row_length(trajectory: &Trajectory) -> usize {
    scheduler_step::row_length(trajectory.history)
}

/// The rows that `scale_model_input`, `dynamic_threshold` and `scheduler_step` read, one per call.
pub(super) fn rows(trajectory: &Trajectory) -> Vec<f32> {
    let mut rows = Vec::with_capacity(trajectory.calls.len() * row_length(trajectory));
    for call in &trajectory.calls {
        let prediction = call.prediction.as_ref();
        let range = prediction.map_or(0.0, |prediction| match prediction.limit {
            Limit::Clamp { range } => range,
            Limit::Quantile { .. } => -1.0,
        });
        rows.extend(floats(&[
            call.input_scale,
            prediction.map_or(0.0, |prediction| prediction.sample_weight),
            prediction.map_or(0.0, |prediction| prediction.output_weight),
            range,
        ]));
        rows.extend(floats(&call.matrix));
    }
    rows
}
