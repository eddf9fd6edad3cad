//! Every kernel against its `f64` twin: on the GPU (or lavapipe) and on the reference player.

#[path = "support/kernels.rs"]
mod support;

use deepcache::reference;
use deepcache::tensor::ElementType;

/// `kernel_battery!(ElementType, F16, F32, a, activation, add, and, attention, case, cases, check, conv2d, deepcache, each, every, executor, expands, f16, f32, fn, geglu, group_norm, guidance, ident, kernel_battery, layer_norm, macro_rules, matmul, mod, module, of, on, pixels, reference, runs, scale_model_input, scheduler_step, stem, stringify, super, support, test, tests, the, timestep_embedding, to, token_embedding, upsample_nearest, use, which, with);
