//! Cooperative matrices: which of an adapter's the kernels can use, and whether the device multiplies right with them.

use std::sync::Arc;

use half::f16;
use wgpu::{Backend, CooperativeMatrixProperties, CooperativeScalarType, Features};

use super::choices::{Family, Fragments};
use super::context::Gpu;
use super::executor::Executor;
use super::memory::{Memory, Purpose};
use super::recording::Recording;
use crate::error::Result;
use crate::kernels::attention::{AttentionConfig, View, attention};
use crate::kernels::matmul::{Epilogue, matmul};
use crate::tensor::{ElementType, Tensor};

/// Features that the kernels need.
pub(super) const FEATURES: Features =
    Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(Features::SHADER_F16).union(Features::SUBGROUP);

/// Workgroup memory that the kernels may use.
const WORKGROUP_BYTES: u32 = 32 << 10;

/// Subgroups that the products are cut for.
const SUBGROUPS: u32 = 4;

const INTEL: u32 = 0x8086;

/// What an adapter says of itself, as far as it matters here.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    features: Features,
    vendor: u32,
    backend: Backend,
    /// The least and the most lanes of a subgroup.
    subgroup: [u32; 2],
    lanes: u32,
    workgroup_bytes: u32,
    properties: Vec<CooperativeMatrixProperties>,
}

impl Facts {
    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        Self {
            features: adapter.features(),
            vendor: info.vendor,
            backend: info.backend,
            subgroup: [info.subgroup_min_size, info.subgroup_max_size],
            lanes: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            properties: adapter.cooperative_matrix_properties(),
        }
    }

    /// The matrices that the kernels use, or what is missing. With `edge`, those of this size, even if the adapter
    /// does not list them.
    pub(super) fn fragments(&self, edge: Option<u32>) -> std::result::Result<Fragments, String> {
        let missing = FEATURES - self.features;
        if missing.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) || self.properties.is_empty() {
            return Err("its driver offers no cooperative matrices".to_owned());
        }
        if !missing.is_empty() {
            return Err("it has no 16-bit floats or no subgroups".to_owned());
        }
        if self.vendor == INTEL {
            return Err("Intel's cooperative matrices are not square".to_owned());
        }
        let listed = |edge: u32| {
            self.properties.iter().any(|properties| {
                [properties.m_size, properties.n_size, properties.k_size] == [edge; 3]
                    && properties.ab_type == CooperativeScalarType::F16
                    && properties.cr_type == CooperativeScalarType::F32
            })
        };
        let Some(edge) = edge.or_else(|| [16, 8].into_iter().find(|&edge| listed(edge))) else {
            return Err("no cooperative matrix of it is 8x8 or 16x16, of f16 summed in f32".to_owned());
        };
        let [least, most] = self.subgroup;
        // Metal does not say: a subgroup of every Apple GPU has 32 lanes.
        let size = if self.backend == Backend::Metal { 32 } else { most };
        let lanes = SUBGROUPS * size;
        if least == 0 || !size.is_power_of_two() || lanes > self.lanes {
            return Err(format!("its workgroups have no room for {SUBGROUPS} subgroups of {size} lanes"));
        }
        if self.workgroup_bytes < WORKGROUP_BYTES {
            return Err(format!("it has less than {WORKGROUP_BYTES} bytes of workgroup memory"));
        }
        Ok(Fragments { edge, lanes })
    }
}

/// The token that wgpu wants before it hands out cooperative matrices.
#[expect(unsafe_code, reason = "wgpu marks cooperative matrices as experimental")]
pub(super) fn experimental() -> wgpu::ExperimentalFeatures {
    // SAFETY: the promise is to know that wgpu may have bugs behind these features and to report them. The only
    // such feature that is asked for is cooperative matrices; the kernels' indices stay inside workgroup arrays
    // whatever the parameters are, and `self_test` looks at what comes out before anything else uses them.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}

/// Compares a product and an attention on cooperative matrices with those of the `tiled` family.
pub(super) fn self_test(gpu: &Arc<Gpu>, fragments: Fragments) -> std::result::Result<(), String> {
    for (name, record) in [("a product", product as Sample), ("an attention", self_attention)] {
        let outcomes =
            [Family::Tiled, Family::Cooperative(fragments)].map(|family| play(gpu, family, record));
        match outcomes {
            [Ok(expected), Ok(found)] if same(&expected, &found) => {}
            [Ok(_), Ok(_)] => return Err(format!("{name} on them comes out wrong")),
            [Err(error), _] | [_, Err(error)] => return Err(format!("{name} on them fails: {error}")),
        }
    }
    Ok(())
}

/// Records an operation of inputs between -1 and 1.
type Sample = fn(&mut Recording, &mut dyn FnMut(&[usize]) -> Tensor) -> Result<Tensor>;

/// More than one tile in every direction, and none of them whole.
fn product(recording: &mut Recording, input: &mut dyn FnMut(&[usize]) -> Tensor) -> Result<Tensor> {
    let (left, right) = (input(&[83, 300]), input(&[300, 101]));
    matmul(recording, &left, &right, &Epilogue::default())
}

fn self_attention(recording: &mut Recording, input: &mut dyn FnMut(&[usize]) -> Tensor) -> Result<Tensor> {
    let tokens = input(&[1, 77, 3 * 80]);
    let part = |first_channel| View { tensor: &tokens, first_channel };
    let config = AttentionConfig { heads: 2, head_size: 40, causal: false, scale: 3.0 };
    attention(recording, part(0), part(80), part(160), &config)
}

/// What comes out of a sample.
fn play(gpu: &Arc<Gpu>, family: Family, record: Sample) -> Result<Vec<f32>> {
    let mut inputs = Vec::new();
    let mut recording = Recording::new("self-test").with_family(family);
    let produced = record(&mut recording, &mut |extents| {
        let tensor = Tensor::external("sample", extents, ElementType::F16);
        inputs.push(tensor.clone());
        tensor
    })?;
    let output = Tensor::external("output", produced.shape().clone(), ElementType::F16);
    recording.place(&produced, &output);
    let mut memory = Memory::new(Arc::clone(gpu));
    memory.allocate(inputs.iter().chain([&output]), Purpose::Persistent)?;
    let mut state = 1_u32;
    for input in &inputs {
        let values: Vec<f16> = (0..input.shape().count()).map(|_| f16::from_f32(noise(&mut state))).collect();
        memory.write(input, 0, bytemuck::cast_slice(&values))?;
    }
    let mut executor = Executor::new(Arc::clone(gpu));
    let programs = executor.prepare(&memory, &[&recording])?;
    executor.play(&programs[0])?;
    let values: Vec<f16> = bytemuck::pod_collect_to_vec(&memory.read(&output)?);
    Ok(values.into_iter().map(f16::to_f32).collect())
}

/// A value between -1 and 1 that 16 bits hold: the upper 8 bits of a linear congruential generator.
fn noise(state: &mut u32) -> f32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    f32::from(i8::from_ne_bytes([state.to_be_bytes()[0]])) / 128.0
}

/// Whether two results differ by no more than roundings of 16 bits.
fn same(expected: &[f32], found: &[f32]) -> bool {
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let close = |(expected, found): (&f32, &f32)| (expected - found).abs() <= largest / 256.0;
    largest > 0.0 && expected.len() == found.len() && expected.iter().zip(found).all(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(
        sizes: [u32; 3],
        inputs: CooperativeScalarType,
        sums: CooperativeScalarType,
    ) -> CooperativeMatrixProperties {
        CooperativeMatrixProperties {
            m_size: sizes[0],
            n_size: sizes[1],
            k_size: sizes[2],
            ab_type: inputs,
            cr_type: sums,
            saturating_accumulation: false,
        }
    }

    /// A GPU with subgroups of 32 lanes that lists matrices of f16 summed in f32.
    fn facts(sizes: &[[u32; 3]]) -> Facts {
        let properties =
            sizes.iter().map(|&sizes| entry(sizes, CooperativeScalarType::F16, CooperativeScalarType::F32));
        Facts {
            features: FEATURES,
            vendor: 0x10de,
            backend: Backend::Vulkan,
            subgroup: [32, 32],
            lanes: 1024,
            workgroup_bytes: 48 << 10,
            properties: properties.collect(),
        }
    }

    #[test]
    fn the_largest_square_matrix_of_f16_summed_in_f32_is_taken() {
        let fragments = |edge, lanes| Ok(Fragments { edge, lanes });
        assert_eq!(facts(&[[16, 8, 16], [16, 16, 16], [8, 8, 8]]).fragments(None), fragments(16, 128));
        assert_eq!(facts(&[[8, 8, 8]]).fragments(None), fragments(8, 128));
        assert_eq!(facts(&[[8, 8, 8]]).fragments(Some(16)), fragments(16, 128));
        let varying = Facts { subgroup: [32, 64], ..facts(&[[16, 16, 16]]) };
        assert_eq!(varying.fragments(None), fragments(16, 256));
        let apple = Facts { backend: Backend::Metal, subgroup: [4, 64], ..facts(&[[8, 8, 8]]) };
        assert_eq!(apple.fragments(None), fragments(8, 128));
    }

    #[test]
    fn what_the_kernels_cannot_use_is_refused_with_a_reason() {
        let square = || facts(&[[16, 16, 16]]);
        let refused = |facts: Facts, reason: &str| {
            let found = facts.fragments(None).expect_err("it cannot be used");
            assert!(found.contains(reason), "{found}");
        };
        refused(facts(&[]), "no cooperative matrices");
        refused(
            Facts { features: FEATURES - Features::EXPERIMENTAL_COOPERATIVE_MATRIX, ..square() },
            "offers no",
        );
        refused(Facts { features: FEATURES - Features::SUBGROUP, ..square() }, "no subgroups");
        refused(Facts { vendor: INTEL, ..square() }, "Intel");
        refused(facts(&[[8, 16, 16], [8, 8, 16], [32, 32, 32]]), "8x8 or 16x16");
        let f16 = entry([16; 3], CooperativeScalarType::F16, CooperativeScalarType::F16);
        refused(Facts { properties: vec![f16], ..square() }, "summed in f32");
        refused(Facts { subgroup: [0, 0], ..square() }, "no room");
        refused(Facts { subgroup: [32, 128], lanes: 256, ..square() }, "no room");
        refused(Facts { workgroup_bytes: 16 << 10, ..square() }, "workgroup memory");
    }

    #[test]
    fn results_are_the_same_up_to_rounding() {
        assert!(same(&[1.0, -0.5], &[1.001, -0.5]));
        assert!(!same(&[1.0, -0.5], &[1.01, -0.5]));
        assert!(!same(&[1.0, -0.5], &[1.0, f32::NAN]));
        assert!(!same(&[0.0], &[0.0]));
        assert!(!same(&[1.0], &[1.0, 1.0]));
    }
}
