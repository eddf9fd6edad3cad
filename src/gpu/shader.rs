//! A WGSL file as the crate knows it: its text, the preludes it needs, and how they are joined.

use std::fmt::Write as _;

use crate::tensor::ElementType;

/// Texts that are chosen by element type and definitions.
pub(crate) const COMMON: [&str; 4] = [
    include_str!("../../shaders/shared/element_f32.wgsl"),
    include_str!("../../shaders/shared/element_f16.wgsl"),
    include_str!("../../shaders/shared/word_1.wgsl"),
    include_str!("../../shaders/shared/word_4.wgsl"),
];

/// The definition that says how many values are read and written at once.
const WORD: &str = "WORD";

/// One shader file with one entry point of the same name.
#[derive(Debug)]
pub struct Shader {
    /// Name of the file and of its entry point.
    pub name: &'static str,
    /// Text of the file.
    pub source: &'static str,
    /// Texts put in front of it, besides the element prelude.
    pub preludes: &'static [&'static str],
    /// Names of its bindings from binding 1 on; binding 0 is `params`.
    pub bindings: &'static [&'static str],
    /// The `const` definitions that it expects in front, in this order. The definition `WORD` (1 or 4) brings the
    /// text `shared/word_1.wgsl` or `shared/word_4.wgsl`, and with it the type `Word`.
    pub definitions: &'static [&'static str],
}

impl Shader {
    /// The whole text for one element type; `values` belong to [`Shader::definitions`].
    ///
    /// # Panics
    /// If there are not as many values as definitions.
    #[must_use]
    pub fn assemble(&self, element: ElementType, values: &[u32]) -> String {
        assert_eq!(values.len(), self.definitions.len(), "{}: definitions", self.name);
        let [element_f32, element_f16, word_1, word_4] = COMMON;
        let mut text = String::from(match element {
            ElementType::F16 => element_f16,
            ElementType::F32 | ElementType::U32 => element_f32,
        });
        for (name, value) in self.definitions.iter().zip(values) {
            match (*name, *value) {
                (WORD, 4) => text.push_str(word_4),
                (WORD, _) => text.push_str(word_1),
                (name, value) => {
                    let _ = writeln!(text, "const {name}: u32 = {value}u;");
                }
            }
        }
        for prelude in self.preludes {
            text.push_str(prelude);
        }
        text.push_str(self.source);
        text
    }
}
