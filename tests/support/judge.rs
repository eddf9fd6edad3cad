//! Compares what a network made with what its reference recorded.

#![allow(dead_code, reason = "each test binary uses a part of this module")]

use std::collections::HashMap;

use deepcache::tensor::ElementType;

use super::support::{Goldens, json, max_abs, relative_l2};

/// What 16-bit storage may cost in one call; the whole network sums in 32 bits.
const F16_RELATIVE: f64 = 1e-2;

/// Compares a tensor within its case's tolerance and notes what is beyond it.
pub(crate) struct Judge {
    element: ElementType,
    relative: f64,
    absolute: f64,
    beyond: Vec<String>,
    compared: usize,
}

impl Judge {
    /// Compares with a case of a pack of goldens.
    pub(crate) fn of(pack: &str, case: &str, element: ElementType) -> Self {
        let manifest = json(&format!("{pack}/manifest.json"));
        let cases = manifest["cases"].as_array().unwrap();
        let found = cases.iter().find(|entry| entry["name"] == case);
        let tolerance = &found.unwrap_or_else(|| panic!("{case} is in the manifest"))["tolerance"];
        let (relative, absolute) = match element {
            ElementType::F16 => (F16_RELATIVE, f64::INFINITY),
            _ => (tolerance["rel_l2"].as_f64().unwrap(), tolerance["max_abs"].as_f64().unwrap()),
        };
        Self { element, relative, absolute, beyond: Vec::new(), compared: 0 }
    }

    pub(crate) fn compare(&mut self, name: &str, found: &[f64], expected: &[f64]) {
        let (relative, absolute) = (relative_l2(found, expected), max_abs(found, expected));
        println!("{} {name:42} relative l2 {relative:.2e}, max abs {absolute:.2e}", self.element);
        self.compared += 1;
        let fits = relative <= self.relative && absolute <= self.absolute;
        if !fits {
            self.beyond.push(format!("{name} ({relative:.2e}, {absolute:.2e})"));
        }
    }

    /// Compares every `out.stage.X` of a file with the mark that `name` gives it.
    pub(crate) fn compare_stages_as(
        &mut self,
        goldens: &Goldens,
        found: &HashMap<String, Vec<f64>>,
        name: impl Fn(&str) -> String,
    ) {
        for tensor in goldens.names() {
            let Some(stage) = tensor.strip_prefix("out.stage.") else { continue };
            let mut expected = goldens.values(&tensor);
            if stage == "conv_norm_out" {
                // Ours is fused with the activation behind it.
                expected.iter_mut().for_each(|value| *value /= 1.0 + (-*value).exp());
            }
            let mark = name(stage);
            let found = found.get(&mark).unwrap_or_else(|| panic!("stage {stage} is marked as {mark}"));
            self.compare(stage, found, &expected);
        }
    }

    /// Compares every `out.stage.X` of a file with the mark `X`.
    pub(crate) fn compare_stages(&mut self, goldens: &Goldens, found: &HashMap<String, Vec<f64>>) {
        self.compare_stages_as(goldens, found, str::to_owned);
    }

    pub(crate) fn finish(self) {
        assert!(self.compared > 0, "something was compared");
        assert!(self.beyond.is_empty(), "beyond {:.1e}: {:?}", self.relative, self.beyond);
    }
}
