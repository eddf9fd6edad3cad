//! How much a change of the model's output matters, by the sampler alone.

use crate::schedulers::{Call, Trajectory};

/// For every call of a run, what is left of a unit change of the model's output in the final sample if all other
/// outputs stay the same: the sum of the ways that the change takes through the sampler's linear updates.
///
/// Limits of the prediction are taken as not reached.
#[must_use]
pub fn gains(trajectory: &Trajectory) -> Vec<f64> {
    // Backwards: what a change of every plane after a call is worth at the end.
    let mut worth = vec![0.0; 1 + trajectory.history];
    worth[0] = 1.0;
    let mut gains = vec![0.0; trajectory.calls.len()];
    for (call, gain) in trajectory.calls.iter().zip(&mut gains).rev() {
        let mut column = vec![0.0; call.columns];
        for (row, worth) in call.matrix.chunks_exact(call.columns).zip(&worth) {
            for (sum, weight) in column.iter_mut().zip(row) {
                *sum += worth * weight;
            }
        }
        let [of_sample, of_output] = by_prediction(call);
        let prediction = column[PREDICTION];
        *gain = (column[OUTPUT] + prediction * of_output).abs();
        worth[0] = column[SAMPLE] + prediction * of_sample;
        worth[1..].copy_from_slice(&column[HISTORY..]);
    }
    gains
}

/// The columns of a call's matrix.
const SAMPLE: usize = 0;
const OUTPUT: usize = 1;
const PREDICTION: usize = 3;
const HISTORY: usize = 4;

/// Weights of the sample and the output in the limited prediction.
fn by_prediction(call: &Call) -> [f64; 2] {
    call.prediction.map_or([0.0; 2], |prediction| [prediction.sample_weight, prediction.output_weight])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedulers::{SamplerOptions, SchedulerConfig, SchedulerKind};

    #[test]
    fn a_gain_is_what_a_change_leaves_at_the_end() {
        let text = r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
            "clip_sample": false, "skip_prk_steps": true, "steps_offset": 1, "set_alpha_to_one": false}"#;
        let config = SchedulerConfig::from_json("scheduler_config.json", text).unwrap();
        for kind in
            [SchedulerKind::Ddim, SchedulerKind::Pndm, SchedulerKind::DpmPlusPlus2m, SchedulerKind::Heun]
        {
            let trajectory = config.trajectory(&SamplerOptions::new(kind, 8)).unwrap();
            let end = |changed: Option<usize>| {
                let mut planes = trajectory.start(&[0.7]);
                for call in 0..trajectory.calls.len() {
                    let output = if changed == Some(call) { 1.0 } else { 0.0 };
                    trajectory.apply(call, &mut planes, &[output], &[], 1).unwrap();
                }
                planes[0][0]
            };
            let unchanged = end(None);
            for (call, gain) in gains(&trajectory).into_iter().enumerate() {
                let found = (end(Some(call)) - unchanged).abs();
                assert!((found - gain).abs() < 1e-12, "{kind}, call {call}: {found}, {gain}");
            }
        }
    }
}
