//! Every kernel against its `f64` twin: on the GPU (or lavapipe) and on the reference player.

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

kernel_battery!(activation, group_norm, layer_norm, matmul);
kernel_battery!(activation, conv2d, matmul);
kernel_battery!(activation, attention, conv2d, matmul);
