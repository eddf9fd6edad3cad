//! A WGSL file as the crate knows it: its text, the preludes it needs, and how they are joined.

use std::fmt::Write as _;

use crate::tensor::ElementType;

/// Texts that no shader names, since they follow from its element type and its definitions.
pub(crate) const COMMON: [&str; 3] = [
    include_str!("../../shaders/shared/cooperative_matrix.wgsl"),
    include_str!("../../shaders/shared/element_f32.wgsl"),
    include_str!("../../shaders/shared/element_f16.wgsl"),
];

/// One shader file with one entry point of the same name.
#[derive(Debug)]
pub struct Shader {
    /// Name of the file and of its entry point.
    pub name: &'static str,
    /// Text of the file.
    pub source: &'static str,
    /// Texts put in front of it, besides the element prelude. Those that a definition chooses between come first, in
    /// pairs: fragments of 8x8 and 16x16 for `EDGE`, `word_1` and `word_4` for `WORD`, weights as activations are and of
    /// 8 bits for `INT8`.
    pub preludes: &'static [&'static str],
    /// Names of its bindings from binding 1 on; binding 0 is `params`.
    pub bindings: &'static [&'static str],
    /// The `const` definitions that it expects in front, in this order.
    pub definitions: &'static [&'static str],
}

/// The definition that makes a shader one on cooperative matrices: rows and columns of a fragment.
const EDGE: &str = "EDGE";

/// Definitions whose value also chooses a prelude, since it changes types: each takes the next two of
/// [`Shader::preludes`], for its first and its second value. `WORD` says how many values are read and written at once,
/// `INT8` whether weights are [8-bit integers](ElementType::Int8).
const CHOOSING: [(&str, [u32; 2]); 3] = [(EDGE, [8, 16]), ("WORD", [1, 4]), ("INT8", [0, 1])];

impl Shader {
    /// Whether it needs a device with cooperative matrices, and values of 16 bits.
    #[must_use]
    pub fn is_cooperative(&self) -> bool {
        self.definitions.contains(&EDGE)
    }

    /// The whole text for one element type; `values` belong to [`Shader::definitions`].
    ///
    /// # Panics
    /// If there are not as many values as definitions, or a prelude is missing for one that chooses it.
    #[must_use]
    pub fn assemble(&self, element: ElementType, values: &[u32]) -> String {
        assert_eq!(values.len(), self.definitions.len(), "{}: definitions", self.name);
        let [cooperative_matrix, element_f32, element_f16] = COMMON;
        let mut text = String::new();
        if self.is_cooperative() {
            // directives come before all declarations, those of the element prelude too
            text.push_str(cooperative_matrix);
        }
        text.push_str(match element {
            ElementType::F16 => element_f16,
            ElementType::F32 | ElementType::U32 | ElementType::Int8 => element_f32,
        });
        let mut preludes = self.preludes;
        for (name, value) in self.definitions.iter().zip(values) {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
            let Some((_, choices)) = CHOOSING.iter().find(|(choosing, _)| choosing == name) else { continue };
            let chosen = choices.iter().position(|choice| choice == value);
            let (Some(chosen), Some((pair, others))) = (chosen, preludes.split_at_checked(2)) else {
                panic!("{}: a prelude for {name} {value}", self.name)
            };
            text.push_str(pair[chosen]);
            preludes = others;
        }
        for prelude in preludes {
            text.push_str(prelude);
        }
        text.push_str(self.source);
        text
    }
}
