//! Plain `f64` twins of every kernel, and a player that runs a recording with them on the CPU.
//!
//! A twin reads the same parameters as its shader and is written for clarity: loops over the formula.
//! Beside each stands `cases()`, the awkward inputs that every variant of the kernel is tested with.

pub mod activation;
pub mod add;
pub mod add_time;
pub mod attention;
pub mod blend_outside;
pub mod case;
pub mod conv2d;
pub mod dynamic_threshold;
pub mod emphasis;
pub mod finite;
pub mod forecast;
pub mod geglu;
pub mod group_norm;
pub mod guidance;
pub mod layer_norm;
pub mod matmul;
pub mod pixels;
pub mod scale_model_input;
pub mod scheduler_step;
pub mod similarity;
pub mod timestep_embedding;
pub mod token_embedding;
pub mod upsample_nearest;
pub mod vector_quantize;

use std::collections::HashMap;
use std::rc::Rc;

use half::f16;

use crate::gpu::recording::{Access, Command, Recording};
use crate::tensor::{ElementType, Storage, Tensor};

/// What a twin returns: values by the name of the binding.
pub(crate) type Outputs = Vec<(&'static str, Vec<f64>)>;

type Twin = fn(&Operands<'_>) -> Outputs;

/// The twin of every shader, by the shader's name.
const TWINS: &[(&str, Twin)] = &[
    ("activation", activation::twin),
    ("add", add::twin),
    ("add_time", add_time::twin),
    ("attention_broadcast", attention::twin),
    ("attention_broadcast_wide", attention::twin),
    ("attention_cooperative", attention::twin),
    ("attention_flash", attention::twin),
    ("blend_outside", blend_outside::twin),
    ("conv2d_broadcast", conv2d::twin),
    ("conv2d_cooperative", conv2d::twin),
    ("conv2d_merge", conv2d::merge_twin),
    ("conv2d_partial", conv2d::partial_twin),
    ("conv2d_tiled", conv2d::twin),
    ("dynamic_threshold", dynamic_threshold::twin),
    ("emphasis", emphasis::twin),
    ("finite", finite::twin),
    ("forecast", forecast::twin),
    ("geglu", geglu::twin),
    ("group_norm_apply", group_norm::apply_twin),
    ("group_norm_apply_broadcast", group_norm::apply_twin),
    ("group_norm_moments", group_norm::moments_twin),
    ("group_norm_moments_broadcast", group_norm::moments_twin),
    ("guidance", guidance::twin),
    ("guidance_rescale", guidance::rescale_twin),
    ("layer_norm", layer_norm::twin),
    ("layer_norm_broadcast", layer_norm::twin),
    ("layer_norm_subgroup", layer_norm::twin),
    ("matmul_broadcast", matmul::twin),
    ("matmul_cooperative", matmul::twin),
    ("matmul_merge", matmul::merge_twin),
    ("matmul_partial", matmul::partial_twin),
    ("matmul_tiled", matmul::twin),
    ("pixels", pixels::twin),
    ("scale_model_input", scale_model_input::twin),
    ("scale_model_input_beside", scale_model_input::beside_twin),
    ("scheduler_step", scheduler_step::twin),
    ("similarity", similarity::twin),
    ("timestep_embedding", timestep_embedding::twin),
    ("token_embedding", token_embedding::twin),
    ("upsample_nearest", upsample_nearest::twin),
    ("vector_quantize", vector_quantize::twin),
];

/// The sums over all parts, `[parts, ..]`.
pub(crate) fn add_parts(sums: &[f64], count: usize) -> Vec<f64> {
    let mut total = vec![0.0; count];
    for part in sums.chunks_exact(count) {
        total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
    }
    total
}

/// The memory of the reference player: `f64` values by tensor.
#[derive(Debug, Default)]
pub struct Memory {
    values: HashMap<u64, Rc<Vec<f64>>>,
}

impl Memory {
    /// Gives an external tensor its values.
    ///
    /// # Panics
    /// If the tensor is transient, or the count is not its shape's.
    pub fn set(&mut self, tensor: &Tensor, values: Vec<f64>) {
        assert_eq!(values.len(), tensor.shape().count(), "as many values as the shape has");
        let external = tensor.as_external().expect("only external tensors have memory of their own");
        self.values.insert(external.id(), Rc::new(values));
    }

    /// Gives an external tensor its values as a device stores them; integers with their scales become the floats that
    /// they stand for.
    ///
    /// # Panics
    /// If the tensor is transient, or the count is not its shape's.
    pub fn set_bytes(&mut self, tensor: &Tensor, bytes: &[u8]) {
        self.set(tensor, values(tensor, bytes));
    }

    /// The values of an external tensor.
    ///
    /// # Panics
    /// If it was never set or written.
    #[must_use]
    pub fn get(&self, tensor: &Tensor) -> &[f64] {
        let external = tensor.as_external().expect("only external tensors have memory of their own");
        self.values.get(&external.id()).expect("a tensor is set before it is read")
    }
}

/// The values of a tensor, from its bytes on a device.
fn values(tensor: &Tensor, bytes: &[u8]) -> Vec<f64> {
    let columns = tensor.shape().channels();
    let floats = |bytes: &[u8]| -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|value| f64::from(f32::from_le_bytes(*value))).collect()
    };
    match tensor.element() {
        ElementType::F32 => floats(bytes),
        ElementType::F16 => {
            bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f64()).collect()
        }
        ElementType::U32 => {
            bytes.as_chunks().0.iter().map(|value| f64::from(u32::from_le_bytes(*value))).collect()
        }
        ElementType::Int8 => {
            let (scales, integers) = bytes.split_at(columns * size_of::<f32>());
            let integers = integers.iter().map(|byte| f64::from(byte.cast_signed()));
            integers.zip(floats(scales).iter().cycle()).map(|(integer, scale)| scale * integer).collect()
        }
    }
}

/// One command with the values that it reads.
#[derive(Debug)]
pub(crate) struct Operands<'a> {
    command: &'a Command,
    values: Vec<Option<Rc<Vec<f64>>>>,
}

impl Operands<'_> {
    pub(crate) fn params<P: bytemuck::AnyBitPattern>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.command.params)
    }

    pub(crate) fn input(&self, name: &str) -> &[f64] {
        self.values[self.position(name)].as_ref().expect("the binding is read")
    }

    /// What a binding that is updated in place held before, if anything was written yet.
    pub(crate) fn stored(&self, name: &str) -> Option<&[f64]> {
        self.values[self.position(name)].as_ref().map(|values| values.as_slice())
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.command.bindings[self.position(name)].tensor.shape().count()
    }

    pub(crate) fn constant(&self, name: &str) -> Option<f64> {
        self.command.constants.iter().find(|(constant, _)| *constant == name).map(|&(_, value)| value)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.constant(name).is_some_and(|value| value != 0.0)
    }

    pub(crate) fn definition(&self, name: &str) -> u32 {
        let shader = self.command.shader;
        let position = shader.definitions.iter().position(|definition| *definition == name);
        self.command.definitions[position.expect("the shader has this definition")]
    }

    /// The terms, of `all`, that each part of a product sums, where `unit` of them are never parted.
    pub(crate) fn part_terms(&self, all: usize, unit: usize) -> Vec<std::ops::Range<usize>> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
        let parts = self.constant("PARTS").expect("the command has parts") as usize;
        let terms = all.div_ceil(unit).div_ceil(parts) * unit;
        (0..parts).map(|part| (part * terms).min(all)..((part + 1) * terms).min(all)).collect()
    }

    fn position(&self, name: &str) -> usize {
        let shader = self.command.shader;
        shader.bindings.iter().position(|binding| *binding == name).expect("the shader has this binding")
    }
}

/// Plays a recording on the CPU in `f64`.
///
/// # Panics
/// If a command has no twin or reads what was never written: faults of this crate, not of its input.
pub fn play(recording: &Recording, memory: &mut Memory) {
    let mut transients: Vec<Option<Rc<Vec<f64>>>> = vec![None; recording.transients().len()];
    for command in recording.commands() {
        let values = command
            .bindings
            .iter()
            .map(|binding| match (binding.access, binding.tensor.storage()) {
                (Access::Write, _) => None,
                (_, Storage::Transient { index, .. }) => view(&binding.tensor, transients[*index].as_ref()),
                (_, Storage::External(external)) => view(&binding.tensor, memory.values.get(&external.id())),
            })
            .collect();
        let twin = TWINS.iter().find(|(name, _)| *name == command.shader.name);
        let (_, twin) = twin.unwrap_or_else(|| panic!("{} has a twin", command.shader.name));
        let operands = Operands { command, values };
        for (name, values) in twin(&operands) {
            let tensor = &command.bindings[operands.position(name)].tensor;
            assert_eq!(values.len(), tensor.shape().count(), "{}: {name}", command.label);
            match tensor.storage() {
                Storage::External(external) => {
                    memory.values.insert(external.id(), Rc::new(values));
                }
                Storage::Transient { index, .. } => {
                    let whole = recording.transients()[*index].bytes / tensor.element().bytes();
                    let values = Rc::new(written(tensor, values, whole, transients[*index].take()));
                    if let Some(place) = &recording.transients()[*index].place {
                        memory.values.insert(place.id(), Rc::clone(&values));
                    }
                    transients[*index] = Some(values);
                }
            }
        }
    }
}

/// The values of a tensor among those of its storage.
fn view(tensor: &Tensor, values: Option<&Rc<Vec<f64>>>) -> Option<Rc<Vec<f64>>> {
    let values = values?;
    let count = tensor.shape().count();
    if values.len() == count {
        return Some(Rc::clone(values));
    }
    let first = first_of(tensor);
    Some(Rc::new(values[first..first + count].to_vec()))
}

/// A storage of `whole` values after a tensor in it was written.
fn written(tensor: &Tensor, values: Vec<f64>, whole: u64, before: Option<Rc<Vec<f64>>>) -> Vec<f64> {
    let whole = usize::try_from(whole).unwrap_or(usize::MAX);
    if values.len() >= whole {
        return values;
    }
    let mut all = before.map_or_else(|| vec![0.0; whole], Rc::unwrap_or_clone);
    let first = first_of(tensor);
    all[first..first + values.len()].copy_from_slice(&values);
    all
}

fn first_of(tensor: &Tensor) -> usize {
    usize::try_from(tensor.offset() / tensor.element().bytes()).unwrap_or(usize::MAX)
}
