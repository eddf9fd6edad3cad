//! Plays recordings of whole networks on the GPU and reads their tensors back.

use std::collections::HashMap;
use std::sync::Arc;

use deepcache::Result;
use deepcache::gpu::recording::Recording;
use deepcache::gpu::{Executor, Gpu, Memory, Purpose};
use deepcache::kernels::activation::{Activation, activation};
use deepcache::pipelines::load_network;
use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, Loader, WeightStorage};
use half::f16;

use super::support::Golden;

/// A GPU with memory and an executor.
pub(crate) struct Rig {
    pub(crate) memory: Memory,
    pub(crate) executor: Executor,
    pub(crate) element: ElementType,
}

impl Rig {
    /// The GPU of this test program, storing values as `element`. A machine without an adapter fails here.
    pub(crate) fn new(element: ElementType) -> Self {
        let gpu = Arc::new(Gpu::open(None).unwrap_or_else(|error| panic!("{error}")));
        Self { memory: Memory::new(gpu.clone()), executor: Executor::new(gpu), element }
    }

    /// Loads a network of a checkpoint.
    pub(crate) fn load<M>(
        &mut self,
        checkpoint: &Checkpoint,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<M>,
    ) -> M {
        self.load_as(checkpoint, WeightStorage::AsActivations, build)
    }

    /// The same, with matrices stored another way than activations.
    pub(crate) fn load_as<M>(
        &mut self,
        checkpoint: &Checkpoint,
        storage: WeightStorage,
        build: impl FnOnce(&Checkpoint, &mut Loader) -> Result<M>,
    ) -> M {
        let loader = Loader::new("model", self.element).with_weight_storage(storage);
        load_network(checkpoint, &mut self.memory, loader, build).unwrap()
    }

    /// A tensor with these values, of the rig's element type.
    pub(crate) fn input(&mut self, golden: &Golden) -> Tensor {
        self.tensor(golden, self.element)
    }

    /// A tensor with these values.
    pub(crate) fn tensor(&mut self, golden: &Golden, element: ElementType) -> Tensor {
        let tensor = Tensor::external("input", &golden.shape[..], element);
        self.memory.allocate([&tensor], Purpose::Persistent).unwrap();
        self.fill(&tensor, &golden.values);
        tensor
    }

    /// Gives a tensor its values.
    pub(crate) fn fill(&mut self, tensor: &Tensor, values: &[f64]) {
        let bytes: Vec<u8> = match tensor.element() {
            ElementType::F32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
            ElementType::F16 => values.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes()).collect(),
            ElementType::U32 => values.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect(),
            ElementType::Int8 => panic!("only weights are stored in 8 bits"),
        };
        self.memory.write(tensor, 0, &bytes).unwrap();
    }

    /// A recording for this GPU.
    pub(crate) fn recording(&self, name: &str) -> Recording {
        self.executor.recording(name)
    }

    /// Plays a recording and reads its marked stages, and `output` under the name "output". Images come back as
    /// `[N, C, H, W]`.
    pub(crate) fn play(
        &mut self,
        mut recording: Recording,
        output: Option<&Tensor>,
    ) -> HashMap<String, Vec<f64>> {
        let mut wanted: Vec<(String, Tensor)> = recording.marks().to_vec();
        wanted.extend(output.map(|output| ("output".to_owned(), output.clone())));
        let mut read = Vec::new();
        for (name, tensor) in wanted {
            let copy = activation(&mut recording, &tensor, Activation::None).unwrap();
            let place = Tensor::external(name.clone(), copy.shape().clone(), copy.element());
            recording.place(&copy, &place);
            read.push((name, place));
        }
        self.memory.allocate(read.iter().map(|(_, place)| place), Purpose::Persistent).unwrap();
        let programs = self.executor.prepare(&self.memory, &[&recording]).unwrap();
        self.executor.play(&programs[0]).unwrap();
        read.into_iter().map(|(name, place)| (name, self.values(&place))).collect()
    }

    /// The values of a tensor; an image comes back as `[N, C, H, W]`.
    pub(crate) fn values(&self, tensor: &Tensor) -> Vec<f64> {
        let bytes = self.memory.read(tensor).unwrap();
        let values: Vec<f64> = match tensor.element() {
            ElementType::F16 => bytes
                .chunks_exact(2)
                .map(|chunk| f16::from_le_bytes(chunk.try_into().unwrap()).to_f64())
                .collect(),
            _ => bytes
                .chunks_exact(4)
                .map(|chunk| f64::from(f32::from_le_bytes(chunk.try_into().unwrap())))
                .collect(),
        };
        channels_first(&values, tensor.shape().extents())
    }
}

/// `[N, H, W, C]` to `[N, C, H, W]`; other ranks are left alone.
pub(crate) fn channels_first(values: &[f64], extents: &[usize]) -> Vec<f64> {
    let &[batch, height, width, channels] = extents else { return values.to_vec() };
    let area = height * width;
    let place = |index: usize| {
        let (image, rest) = (index / (channels * area), index % (channels * area));
        image * channels * area + (rest % area) * channels + rest / area
    };
    (0..batch * channels * area).map(|index| values[place(index)]).collect()
}

/// `[N, C, H, W]` to `[N, H, W, C]`.
pub(crate) fn channels_last(golden: &Golden) -> Golden {
    let [batch, channels, height, width] = golden.shape[..] else { panic!("an image has four extents") };
    let area = height * width;
    let place = |index: usize| {
        let (image, rest) = (index / (channels * area), index % (channels * area));
        image * channels * area + (rest % channels) * area + rest / channels
    };
    let values = (0..golden.values.len()).map(|index| golden.values[place(index)]).collect();
    Golden { shape: vec![batch, height, width, channels], values }
}
