//! A WGSL file as the crate knows it: its text, the preludes it needs, and how they are joined.

use std::fmt::Write as _;

use crate::tensor::ElementType;

/// One shader file with one entry point of the same name.
#[derive(Debug)]
pub struct Shader {
    /// Name of the file and of its entry point.
    pub name: &'static str,
    /// Text of the file.
    pub source: &'static str,
    /// Texts put in front of it, besides the element prelude. A shader on cooperative matrices begins with two of
    /// which one is put in front: for fragments of 8x8 values, and of 16x16.
    pub preludes: &'static [&'static str],
    /// Names of its bindings from binding 1 on; binding 0 is `params`.
    pub bindings: &'static [&'static str],
    /// The `const` definitions that it expects in front, in this order.
    pub definitions: &'static [&'static str],
}

/// The definition that makes a shader one on cooperative matrices: 8 or 16, rows and columns of a fragment.
const EDGE: &str = "EDGE";

impl Shader {
    /// Whether it needs a device with cooperative matrices, and values of 16 bits.
    #[must_use]
    pub fn is_cooperative(&self) -> bool {
        self.definitions.contains(&EDGE)
    }

    /// The whole text for one element type; `values` belong to [`Shader::definitions`].
    ///
    /// # Panics
    /// If there are not as many values as definitions, or fragments of a size that no prelude is for.
    #[must_use]
    pub fn assemble(&self, element: ElementType, values: &[u32]) -> String {
        assert_eq!(values.len(), self.definitions.len(), "{}: definitions", self.name);
        let mut text = String::new();
        let (mut fragments, mut preludes) = ("", self.preludes);
        let edge =
            self.definitions.iter().zip(values).find_map(|(name, value)| (*name == EDGE).then_some(value));
        if let Some(edge) = edge {
            // naga wants directives before everything else, the element prelude's declarations too
            text.push_str("enable wgpu_cooperative_matrix;\n");
            let [eight, sixteen, others @ ..] = preludes else {
                panic!("{}: a prelude for each edge", self.name)
            };
            preludes = others;
            fragments = match edge {
                8 => eight,
                16 => sixteen,
                other => panic!("{}: fragments of {other}x{other}", self.name),
            };
        }
        text.push_str(match element {
            ElementType::F16 => include_str!("../../shaders/shared/element_f16.wgsl"),
            ElementType::F32 | ElementType::U32 => include_str!("../../shaders/shared/element_f32.wgsl"),
        });
        for (name, value) in self.definitions.iter().zip(values) {
            let _ = writeln!(text, "const {name}: u32 = {value}u;");
        }
        text.push_str(fragments);
        for prelude in preludes {
            text.push_str(prelude);
        }
        text.push_str(self.source);
        text
    }
}
