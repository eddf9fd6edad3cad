//! element_f16: activations and matrices are stored as 16-bit floats.

enable f16;

alias Element = f16;
