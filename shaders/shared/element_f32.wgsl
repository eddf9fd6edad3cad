//! element_f32: activations and matrices are stored as 32-bit floats.

alias Element = f32;
