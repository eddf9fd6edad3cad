//! Every kernel against its `f64` twin: on the GPU (or lavapipe) and on the reference player.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, reason = "values are rounded to their storage")]

#[path = "support/kernels.rs"]
mod support;

use deepcache::reference;
use deepcache::tensor::ElementType;

/// `kernel_battery!(matmul)` expands to a module `matmul` with the tests `f32` and `f16`, each of which runs
/// every case of `deepcache::reference::matmul::cases()` on every executor.
macro_rules! kernel_battery {
    ($($stem:ident),+ $(,)?) => {$(
        mod $stem {
            use super::*;

            #[test]
            fn f32() {
                support::check(stringify!($stem), &reference::$stem::cases(), ElementType::F32);
            }

            #[test]
            fn f16() {
                support::check(stringify!($stem), &reference::$stem::cases(), ElementType::F16);
            }
        }
    )+};
}

/// Products once more, with weights of 8 bits: `product_battery!(matmul_int8: matmul)` expands as `kernel_battery!` does.
macro_rules! product_battery {
    ($($name:ident: $stem:ident),+ $(,)?) => {$(
        mod $name {
            use super::*;

            #[test]
            fn f32() {
                let elements = [ElementType::F32, ElementType::Int8];
                support::check_with(stringify!($stem), &reference::$stem::cases(), elements);
            }

            #[test]
            fn f16() {
                let elements = [ElementType::F16, ElementType::Int8];
                support::check_with(stringify!($stem), &reference::$stem::cases(), elements);
            }
        }
    )+};
}

product_battery!(matmul_int8: matmul, conv2d_int8: conv2d);

kernel_battery!(
    activation,
    add,
    add_time,
    attention,
    blend_outside,
    conv2d,
    dynamic_threshold,
    emphasis,
    finite,
    forecast,
    geglu,
    group_norm,
    guidance,
    layer_norm,
    matmul,
    pixels,
    scale_model_input,
    scheduler_step,
    similarity,
    timestep_embedding,
    token_embedding,
    upsample_nearest,
    vector_quantize,
);
