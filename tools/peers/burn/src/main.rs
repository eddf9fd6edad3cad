//! One operation of Stable Diffusion v1.5 on burn's wgpu backend, timed: `burn-operations OPERATION ELEMENT SECONDS CALLS`.
//!
//! `OPERATION` is `conv:INPUTS,OUTPUTS,SIDE,WINDOW`, `gemm:M,K,N`, `attention:HEADS,TOKENS,HEAD_SIZE` or
//! `group_norm:CHANNELS,SIDE`; `ELEMENT` is `f32` or `f16`. What is printed, and how it is measured, is told in
//! `tools/peers/timing.py`, of which this is the twin.

use std::error::Error;
use std::time::Instant;

use burn::tensor::activation::silu;
use burn::tensor::module::{attention, conv2d};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [operation, element, seconds, calls] = words.as_slice() else {
        return Err("usage: burn-operations OPERATION ELEMENT SECONDS CALLS".into());
    };
    let (name, extents) = operation.split_once(':').ok_or("an operation without extents")?;
    let extents = extents.split(',').map(str::parse).collect::<std::result::Result<Vec<usize>, _>>()?;
    // The best device: software where there is nothing else.
    let device = Device::wgpu(DeviceKind::DefaultDevice);
    let data =
        Data { device: device.clone(), element: if element == "f16" { DType::F16 } else { DType::F32 } };
    let bench = Bench { device, seconds: seconds.parse()?, calls: calls.parse()? };
    match (name, extents.as_slice()) {
        ("conv", &[inputs, outputs, side, window]) => {
            let image = data.tensor::<4>(0, [1, inputs, side, side]);
            let weight = data.tensor::<4>(1, [outputs, inputs, window, window]);
            let bias = data.tensor::<1>(2, [outputs]);
            let padding = [window / 2; 2];
            bench.time(|| {
                let options = ConvOptions::new([1, 1], padding, [1, 1], 1);
                conv2d(image.clone(), weight.clone(), Some(bias.clone()), options)
            })
        }
        ("gemm", &[rows, terms, columns]) => {
            let input = data.tensor::<2>(0, [rows, terms]);
            let weight = data.tensor::<2>(1, [terms, columns]);
            let bias = data.tensor::<1>(2, [columns]).reshape([1, columns]);
            bench.time(|| input.clone().matmul(weight.clone()) + bias.clone())
        }
        ("attention", &[heads, tokens, head_size]) => {
            let [query, key, value] = [0, 1, 2].map(|number| data.heads(number, heads, tokens, head_size));
            bench.time(|| {
                let options = AttentionModuleOptions::default();
                attention(query.clone(), key.clone(), value.clone(), None, None, options)
            })
        }
        ("group_norm", &[channels, side]) => {
            let image = data.tensor::<4>(0, [1, channels, side, side]);
            let scale = data.tensor::<1>(1, [channels]).reshape([1, channels, 1, 1]);
            let shift = data.tensor::<1>(2, [channels]).reshape([1, channels, 1, 1]);
            bench.time(|| {
                let groups = image.clone().reshape([1, 32, channels / 32 * side * side]);
                let (variance, mean) = groups.clone().var_mean_bias(2);
                let normal = ((groups - mean) / (variance + 1e-5).sqrt()).reshape([1, channels, side, side]);
                silu(normal * scale.clone() + shift.clone())
            })
        }
        _ => Err(format!("no operation {operation}").into()),
    }
}

/// Makes the numbers that every peer computes with.
struct Data {
    device: Device,
    element: DType,
}

/// Number `index` of tensor `tensor`, from -0.5 to 0.5.
fn number(tensor: u32, index: u32) -> f32 {
    let mixed = (index + tensor * 0x0100_0003).wrapping_mul(2_654_435_761);
    // 24 bits fit a f32 exactly.
    (mixed >> 8) as f32 / 16_777_216.0 - 0.5
}

impl Data {
    fn tensor<const RANK: usize>(&self, tensor: u32, shape: [usize; RANK]) -> Tensor<RANK> {
        let count = shape.iter().product::<usize>() as u32;
        self.upload((0..count).map(|index| number(tensor, index)).collect(), shape)
    }

    /// A head after the other; the numbers run through all heads of a token first.
    fn heads(&self, tensor: u32, heads: usize, tokens: usize, head_size: usize) -> Tensor<4> {
        let mut values = Vec::with_capacity(heads * tokens * head_size);
        for head in 0..heads {
            for token in 0..tokens {
                let first = (token * heads + head) * head_size;
                values.extend((first..first + head_size).map(|index| number(tensor, index as u32)));
            }
        }
        self.upload(values, [1, heads, tokens, head_size])
    }

    fn upload<const RANK: usize>(&self, values: Vec<f32>, shape: [usize; RANK]) -> Tensor<RANK> {
        Tensor::<RANK>::from_data(TensorData::new(values, shape), &self.device).cast(self.element)
    }
}

struct Bench {
    device: Device,
    seconds: f64,
    calls: usize,
}

impl Bench {
    fn time<const RANK: usize>(&self, mut operation: impl FnMut() -> Tensor<RANK>) -> Result<()> {
        self.wait()?;
        let begun = Instant::now();
        let output = operation();
        self.wait()?;
        let first = begun.elapsed().as_secs_f64();
        let value = output.slice([const { 0..1 }; RANK]).cast(DType::F32).into_data().try_to_vec::<f32>();
        let value = value.map_err(|error| format!("{error:?}"))?[0];
        let mut round = || -> Result<()> {
            // All results live until the end: nothing that burn puts off is dropped.
            let outputs: Vec<_> = (0..self.calls).map(|_| operation()).collect();
            self.wait()?;
            drop(outputs);
            Ok(())
        };
        round()?;
        let (mut times, cores) = (Vec::new(), core_seconds()?);
        let begun = Instant::now();
        while times.len() < 3 || begun.elapsed().as_secs_f64() < self.seconds {
            let before = Instant::now();
            round()?;
            times.push(before.elapsed().as_secs_f64());
        }
        let calls = self.calls as f64;
        let cores = (core_seconds()? - cores) / times.len() as f64 / calls;
        times.sort_by(f64::total_cmp);
        let wall = times[times.len() / 2] / calls;
        println!(
            "{{\"first\": {first}, \"wall\": {wall}, \"cores\": {cores}, \"value\": {value}, \"rounds\": {}}}",
            times.len()
        );
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        self.device.sync().map_err(|error| format!("{error:?}").into())
    }
}

/// Seconds that all threads of this process have computed, those that have ended too.
fn core_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // After the name, which may hold spaces: user and system time are the 12th and 13th word, in hundredths.
    let words = text.rsplit_once(") ").ok_or("no name in /proc/self/stat")?.1;
    let ticks = words.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<std::result::Result<f64, _>>()? / 100.0)
}
