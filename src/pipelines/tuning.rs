//! Which way of cutting matrix products is fastest on a device: measured, and checked against the default.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;

use crate::error::{Error, Result};
use crate::gpu::choices::{Choices, Operation, Product, Tiling, Tuned};
use crate::gpu::recording::Recording;
use crate::gpu::{Executor, Gpu, Memory, Purpose};
use crate::kernels::conv2d::{self, Conv2dConfig, Padding, conv2d};
use crate::kernels::matmul::{self, matmul};
use crate::kernels::product::{MOST_CANDIDATES, candidates};
use crate::reference::case::Tolerance;
use crate::tensor::{ElementType, Tensor};

/// What must be gained before a default is given up: less may be noise.
const LEAST_GAIN: f64 = 0.03;

/// Plays that are timed, after one that is not.
const PLAYS: usize = 3;

/// More values of an output than this are compared at its beginning and its end only.
const COMPARED: usize = 1 << 22;

/// One way of cutting a product, and how it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// The candidate.
    pub tiling: Tiling,
    /// The best of three plays, in seconds.
    pub seconds: f64,
    /// The largest difference to the result of the default, as a multiple of what rounding may make of it. A
    /// candidate beyond 1 is rejected.
    pub deviation: f64,
}

impl Trial {
    /// Whether its result is wrong, which is a fault of the driver or of this crate.
    #[must_use]
    pub fn rejected(&self) -> bool {
        self.deviation > 1.0
    }
}

/// What was tried for a product.
#[derive(Clone, Debug, PartialEq)]
pub struct TunedProduct {
    /// The product.
    pub product: Product,
    /// All candidates that there was time for, the default first.
    pub trials: Vec<Trial>,
}

impl TunedProduct {
    /// The fastest of those that are right, if it is enough faster than the default.
    #[must_use]
    pub fn better(&self) -> Option<&Trial> {
        let default = self.trials.first()?;
        let right = self.trials.iter().filter(|trial| !trial.rejected());
        let best = right.min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
        (best.seconds < default.seconds * (1.0 - LEAST_GAIN)).then_some(best)
    }

    /// Those whose results were wrong.
    pub fn rejected(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| trial.rejected())
    }
}

impl fmt::Display for TunedProduct {
    /// One line for what was found, and one for every candidate that was rejected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(default) = self.trials.first() else { return write!(f, "{}: not tried", self.product) };
        let best = self.better().unwrap_or(default);
        let [found, before] = [best, default].map(|trial| 1e3 * trial.seconds);
        write!(f, "{}: {}, {found:.3} ms", self.product, best.tiling)?;
        if best == default {
            write!(f, " (default)")?;
        } else {
            write!(f, " (default {before:.3} ms)")?;
        }
        for trial in self.rejected() {
            let Trial { tiling, deviation, .. } = trial;
            write!(
                f,
                "\n  rejected: {tiling} gives other results, {deviation:.1} times what rounding allows"
            )?;
        }
        Ok(())
    }
}

/// What tuning found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    /// What was tried, the largest products first.
    pub products: Vec<TunedProduct>,
    /// Products that there was no time or memory for: they keep their defaults.
    pub left: Vec<Product>,
}

impl Tuning {
    /// Where another way than the default is faster.
    #[must_use]
    pub fn tuned(&self) -> Tuned {
        let better = |tried: &TunedProduct| Some((tried.product.to_string(), tried.better()?.tiling));
        self.products.iter().filter_map(better).collect()
    }
}

/// What one candidate did: its time, and its result.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    seconds: f64,
    values: Vec<f64>,
}

/// Times the candidates of all products of `recordings` on a device, for at most about `budget`.
///
/// The recordings say what is chosen by, the family above all: they are of one device. `told` hears of every product
/// when it is done.
///
/// # Errors
/// Faults of the device. A product that does not fit into its memory is left out.
pub fn tune(
    gpu: &Arc<Gpu>,
    recordings: &[&Recording],
    budget: Duration,
    mut told: impl FnMut(&TunedProduct),
) -> Result<Tuning> {
    let Some(first) = recordings.first() else { return Ok(Tuning::default()) };
    let choices = first.choices();
    let chosen = recordings.iter().flat_map(|recording| recording.chosen());
    let mut products: Vec<Product> = chosen.map(|choice| choice.product).collect();
    products.sort_unstable();
    products.dedup();
    let work = |product: &Product| {
        u128::from(product.terms()) * u128::from(product.rows) * u128::from(product.columns)
    };
    products.sort_by_key(|product| std::cmp::Reverse(work(product)));

    let deadline = Instant::now() + budget;
    let mut tuning = Tuning::default();
    // One for all, since products share pipelines, which take longer to compile than to run.
    let mut executor = Executor::new(Arc::clone(gpu));
    for product in products {
        let mut bench = match Bench::new(gpu, choices, product, &mut executor) {
            Ok(bench) if Instant::now() < deadline => bench,
            Ok(_) | Err(Error::OutOfMemory { .. } | Error::Limit { .. }) => {
                tuning.left.push(product);
                continue;
            }
            Err(error) => return Err(error),
        };
        // What the recorder chooses by itself comes first: all others are compared with it.
        let default = bench.record(None)?.chosen()[0].tiling;
        let others = candidates(&product, choices).into_iter().filter(|tiling| *tiling != default);
        let all: Vec<Tiling> = std::iter::once(default).chain(others).take(MOST_CANDIDATES).collect();
        let tried = try_all(product, &all, deadline, |tiling| bench.play(tiling))?;
        told(&tried);
        tuning.products.push(tried);
    }
    Ok(tuning)
}

/// Tries candidates until the deadline, and compares each with the first.
fn try_all(
    product: Product,
    candidates: &[Tiling],
    deadline: Instant,
    mut play: impl FnMut(Tiling) -> Result<Outcome>,
) -> Result<TunedProduct> {
    let terms = usize::try_from(product.terms()).unwrap_or(usize::MAX);
    let tolerance = Tolerance::reduction(product.element, terms);
    let mut expected: Option<Vec<f64>> = None;
    let mut trials = Vec::new();
    for &tiling in candidates {
        if expected.is_some() && Instant::now() >= deadline {
            break;
        }
        let Outcome { seconds, values } = play(tiling)?;
        let deviation = expected.as_ref().map_or(0.0, |expected| tolerance.worst(&values, expected));
        expected.get_or_insert(values);
        trials.push(Trial { tiling, seconds, deviation });
    }
    Ok(TunedProduct { product, trials })
}

/// One product with operands of random numbers on a device.
struct Bench<'a> {
    choices: &'a Choices,
    product: Product,
    memory: Memory,
    executor: &'a mut Executor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    output: Tensor,
}

impl<'a> Bench<'a> {
    fn new(
        gpu: &Arc<Gpu>,
        choices: &'a Choices,
        product: Product,
        executor: &'a mut Executor,
    ) -> Result<Self> {
        let size = |extent: u32| extent as usize;
        let [images, height, width] = product.image.map(size);
        let (channels, columns) = (size(product.channels), size(product.columns));
        let terms = channels * size(product.window[0]) * size(product.window[1]);
        let external = |name: &str, extents: &[usize], element| Tensor::external(name, extents, element);
        let input = external("input", &[images, height, width, channels], product.element);
        let weight = external("weight", &[terms, columns], product.weight);
        let bias = external("bias", &[columns], ElementType::F32);
        // Its shape is that of what is recorded.
        let output = external("output", &[0], product.element);
        let memory = Memory::new(Arc::clone(gpu));
        let mut bench = Self { choices, product, memory, executor, input, weight, bias, output };
        let mut shape = Recording::new("shape").with_choices(Arc::new(bench.choices.clone()));
        let shape = bench.record_output(&mut shape)?.shape().clone();
        bench.output = Tensor::external("output", shape, product.element);
        let tensors = [&bench.input, &bench.weight, &bench.bias, &bench.output];
        bench.memory.allocate(tensors, Purpose::Persistent)?;
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let deviation = 1.0 / (terms.max(1) as f32).sqrt();
        for (tensor, scale) in [(&bench.input, 1.0), (&bench.weight, deviation), (&bench.bias, 1.0)] {
            bench.memory.write(tensor, 0, &random_bytes(tensor, scale))?;
        }
        bench.memory.flush()?;
        Ok(bench)
    }

    fn record_output(&self, recording: &mut Recording) -> Result<Tensor> {
        let Product { window, stride, gated, .. } = self.product;
        let bias = Some(&self.bias);
        match self.product.operation {
            Operation::Matmul => {
                let epilogue = matmul::Epilogue { bias, gated, ..matmul::Epilogue::default() };
                matmul(recording, &self.input, &self.weight, &epilogue)
            }
            Operation::Conv2d => {
                let [kernel_height, kernel_width] = window.map(|extent| extent as usize);
                let [rows, columns] = [kernel_height / 2, kernel_width / 2];
                let padding = Padding { top: rows, left: columns, bottom: rows, right: columns };
                let config =
                    Conv2dConfig { kernel: [kernel_height, kernel_width], stride: stride as usize, padding };
                let epilogue = conv2d::Epilogue { bias, ..conv2d::Epilogue::default() };
                conv2d(recording, &self.input, None, &self.weight, &config, &epilogue)
            }
        }
    }

    fn record(&self, forced: Option<Tiling>) -> Result<Recording> {
        let choices = Choices { forced, tuned: Tuned::new(), ..self.choices.clone() };
        let mut recording = Recording::new("tuning").with_choices(Arc::new(choices));
        let produced = self.record_output(&mut recording)?;
        recording.place(&produced, &self.output);
        Ok(recording)
    }

    fn play(&mut self, tiling: Tiling) -> Result<Outcome> {
        let recording = self.record(Some(tiling))?;
        let programs = self.executor.prepare(&self.memory, &[&recording])?;
        let program = &programs[0];
        self.executor.play(program)?; // the first play does not count
        self.executor.finish()?;
        self.executor.forget_durations();
        let mut seconds = f64::INFINITY;
        for _ in 0..PLAYS {
            let started = Instant::now();
            let play = self.executor.play(program)?;
            self.executor.finish()?;
            let elapsed = started.elapsed().as_secs_f64();
            let measured = self.executor.durations(&[play])?.first().copied().flatten();
            seconds = seconds.min(measured.unwrap_or(elapsed));
        }
        Ok(Outcome { seconds, values: values(&self.memory.read(&self.output)?, self.product.element) })
    }
}

/// Numbers between `-scale` and `scale`; a prime number of them, over and over.
fn random_bytes(tensor: &Tensor, scale: f32) -> Vec<u8> {
    const PERIOD: usize = 65_537;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pattern = Vec::with_capacity(PERIOD * 4);
    for _ in 0..PERIOD {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss, reason = "random numbers")]
        let value = scale * ((state >> 40) as f32 / 8_388_608.0 - 1.0);
        match tensor.element() {
            ElementType::F16 => pattern.extend(f16::from_f32(value).to_le_bytes()),
            ElementType::F32 | ElementType::U32 => pattern.extend(value.to_le_bytes()),
            #[expect(clippy::cast_possible_truncation, reason = "between -127 and 127")]
            ElementType::Int8 => pattern.extend(((127.0 * value / scale) as i8).to_le_bytes()),
        }
    }
    let scales = match tensor.element() {
        ElementType::Int8 => tensor.shape().channels(),
        ElementType::F32 | ElementType::F16 | ElementType::U32 => 0,
    };
    // Some of the columns are smaller than others.
    let scales = [1.0, 0.75, 0.5].iter().cycle().take(scales).map(|part| part * scale / 127.0);
    let mut bytes: Vec<u8> = scales.flat_map(f32::to_le_bytes).collect();
    let values = usize::try_from(tensor.bytes()).unwrap_or(usize::MAX) - bytes.len();
    bytes.extend(pattern.iter().cycle().take(values));
    bytes
}

/// What is compared of an output.
fn values(bytes: &[u8], element: ElementType) -> Vec<f64> {
    let size = usize::try_from(element.bytes()).unwrap_or(1);
    let window = COMPARED * size;
    let parts = if bytes.len() > 2 * window {
        vec![&bytes[..window], &bytes[bytes.len() - window..]]
    } else {
        vec![bytes]
    };
    let chunks = parts.into_iter().flat_map(|part| part.chunks_exact(size));
    let value = |chunk: &[u8]| match *chunk {
        [a, b] => f16::from_le_bytes([a, b]).to_f64(),
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        _ => f64::NAN,
    };
    chunks.map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCT: Product = Product {
        operation: Operation::Matmul,
        image: [1, 1, 64],
        channels: 32,
        window: [1, 1],
        stride: 1,
        rows: 64,
        columns: 64,
        gated: false,
        element: ElementType::F32,
        weight: ElementType::F32,
    };

    fn tiling(parts: u32) -> Tiling {
        Tiling::Tiled { tile: [64, 64], lane: [8, 8], depth: 16, parts }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Tries candidates 1, 2, .. of these seconds, of which one gives a wrong result.
    fn tried(seconds: &[f64], wrong: Option<usize>, deadline: Instant) -> TunedProduct {
        let candidates: Vec<Tiling> = (1..).take(seconds.len()).map(tiling).collect();
        let play = |tiling| {
            let index = candidates.iter().position(|candidate| *candidate == tiling).unwrap();
            let values = if wrong == Some(index) { vec![1.0, 2.1] } else { vec![1.0, 2.0 + 1e-7] };
            Ok(Outcome { seconds: seconds[index], values })
        };
        try_all(PRODUCT, &candidates, deadline, play).unwrap()
    }

    #[test]
    fn the_fastest_is_chosen_unless_it_gains_nothing() {
        assert_eq!(tried(&[3.0, 2.0, 1.0], None, later()).better().unwrap().tiling, tiling(3));
        assert_eq!(tried(&[1.0, 2.0, 3.0], None, later()).better(), None);
        assert_eq!(tried(&[1.0, 0.99], None, later()).better(), None);
    }

    #[test]
    fn a_wrong_candidate_is_rejected_and_reported() {
        let tried = tried(&[3.0, 2.0, 1.0], Some(2), later());
        assert_eq!(tried.better().unwrap().tiling, tiling(2));
        let rejected: Vec<_> = tried.rejected().map(|trial| trial.tiling).collect();
        assert_eq!(rejected, [tiling(3)]);
        let text = tried.to_string();
        assert!(text.contains("rejected: tile 64x64, 8x8 a lane, depth 16, 3 parts"), "{text}");
        let tuning = Tuning { products: vec![tried], left: Vec::new() };
        assert_eq!(tuning.tuned(), Tuned::from([(PRODUCT.to_string(), tiling(2))]));
    }

    #[test]
    fn results_that_are_no_numbers_are_rejected() {
        let candidates = [tiling(1), tiling(2)];
        let play = |tiling| {
            let values = if tiling == candidates[1] { vec![f64::NAN] } else { vec![1.0] };
            Ok(Outcome { seconds: 1.0, values })
        };
        let tried = try_all(PRODUCT, &candidates, later(), play).unwrap();
        assert!(tried.trials[1].rejected());
    }

    #[test]
    fn the_deadline_leaves_the_default() {
        let tried = tried(&[3.0, 1.0], None, Instant::now());
        assert_eq!(tried.trials.len(), 1);
        assert_eq!(tried.better(), None);
    }
}
