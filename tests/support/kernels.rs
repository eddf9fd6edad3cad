//! Plays the cases of a kernel and compares.

use std::sync::Arc;

use deepcache::gpu::choices::{Choices, Family, Fragments, Tiling};
use deepcache::gpu::recording::Recording;
use deepcache::gpu::{Executor, Gpu, Memory, Purpose};
use deepcache::kernels::all_tiles;
use deepcache::reference;
use deepcache::reference::case::{Case, Role, Tolerance};
use deepcache::tensor::{ElementType, Tensor};
use half::f16;

/// The GPU of this test program. A machine without an adapter fails here.
pub(crate) fn gpu() -> Arc<Gpu> {
    Arc::new(Gpu::open(None).unwrap_or_else(|error| panic!("{error}")))
}

/// Values as a device stores them.
pub(crate) fn to_bytes(values: &[f64], element: ElementType) -> Vec<u8> {
    match element {
        ElementType::F32 => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
        ElementType::F16 => values.iter().flat_map(|&value| f16::from_f64(value).to_le_bytes()).collect(),
        ElementType::U32 => values.iter().flat_map(|&value| (value as u32).to_le_bytes()).collect(),
        ElementType::Int8 => panic!("matrices of 8 bits have scales"),
    }
}

/// A matrix in 8 bits: the scales of its columns, and behind them its values in multiples of them.
fn to_int8(values: &[f64], columns: usize) -> Vec<u8> {
    let column = |index: usize| values.iter().skip(index).step_by(columns);
    let largest = |index| column(index).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let scales: Vec<f32> = (0..columns).map(|index| (largest(index) / 127.0) as f32).collect();
    let mut bytes: Vec<u8> = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    let integer = |(index, value): (usize, &f64)| (value / f64::from(scales[index % columns])).round() as i8;
    bytes.extend(values.iter().enumerate().flat_map(|pair| integer(pair).to_le_bytes()));
    bytes
}

/// The values that those stand for.
fn from_int8(bytes: &[u8], columns: usize) -> Vec<f64> {
    let (scales, integers) = bytes.split_at(4 * columns);
    let scales = from_bytes(scales, ElementType::F32);
    let integers = integers.iter().enumerate();
    integers.map(|(index, byte)| scales[index % columns] * f64::from(byte.cast_signed())).collect()
}

/// Values from a device's bytes.
pub(crate) fn from_bytes(bytes: &[u8], element: ElementType) -> Vec<f64> {
    let four = || bytes.chunks_exact(4).map(|chunk| <[u8; 4]>::try_from(chunk).unwrap());
    match element {
        ElementType::F32 => four().map(|chunk| f64::from(f32::from_le_bytes(chunk))).collect(),
        ElementType::U32 => four().map(|chunk| f64::from(u32::from_le_bytes(chunk))).collect(),
        ElementType::F16 => bytes
            .chunks_exact(2)
            .map(|chunk| f16::from_le_bytes(chunk.try_into().unwrap()).to_f64())
            .collect(),
        ElementType::Int8 => panic!("matrices of 8 bits have scales"),
    }
}

/// A case whose inputs have been given tensors and recorded.
struct Recorded {
    recording: Recording,
    tensors: Vec<Tensor>,
    bytes: Vec<Vec<u8>>,
    values: Vec<Vec<f64>>,
    output: Tensor,
}

fn record(case: &Case, [element, weight]: [ElementType; 2], choices: &Arc<Choices>) -> Recorded {
    let (mut tensors, mut bytes, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (index, input) in case.inputs.iter().enumerate() {
        let element = match input.role {
            Role::Element => element,
            Role::Weight => weight,
            Role::Float => ElementType::F32,
            Role::Index => ElementType::U32,
        };
        tensors.push(Tensor::external(format!("input {index}"), input.shape.clone(), element));
        let columns = input.shape.channels();
        let stored = match element {
            ElementType::Int8 => to_int8(&input.values, columns),
            _ => to_bytes(&input.values, element),
        };
        values.push(match element {
            ElementType::Int8 => from_int8(&stored, columns),
            _ => from_bytes(&stored, element),
        });
        bytes.push(stored);
    }
    let mut recording = Recording::new("case").with_choices(Arc::clone(choices));
    let produced =
        (case.record)(&mut recording, &tensors).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let output = Tensor::external("output", produced.shape().clone(), produced.element());
    recording.place(&produced, &output);
    Recorded { recording, tensors, bytes, values, output }
}

/// What a recording runs: a choice that changes none of it needs no run of its own.
type Shaders = Vec<(&'static str, Vec<u32>, Vec<(&'static str, f64)>)>;

fn shaders(recorded: &Recorded) -> Shaders {
    let commands = recorded.recording.commands().iter();
    commands
        .map(|command| (command.shader.name, command.definitions.clone(), command.constants.clone()))
        .collect()
}

/// Every tile is run whole and in so many parts. A case has some of them, so that all of them meet several cases.
const PARTS: [u32; 5] = [1, 2, 1, 5, 16];

/// The tile and the parts with this number, both going round.
fn tiling(number: usize) -> Tiling {
    let tiles = all_tiles();
    match tiles[number % tiles.len()] {
        Tiling::Tiled { tile, lane, depth, .. } => {
            Tiling::Tiled { tile, lane, depth, parts: PARTS[number % PARTS.len()] }
        }
        other => other,
    }
}

/// Cases of more values than this are run with the default alone.
const LARGE: usize = 1 << 20;

/// The choices that case number `index` is run with. On cooperative matrices, each is run once more with one, two or
/// eight subgroups instead of four, as if the device's subgroups had another size.
fn variants(gpu: &Gpu, index: usize, case: &Case) -> Vec<Arc<Choices>> {
    let mut families = gpu.families();
    if let Ok(fragments) = gpu.cooperative() {
        let lanes = [fragments.lanes / 4, fragments.lanes / 2, fragments.lanes * 2][index % 3];
        families.push(Family::Cooperative(Fragments { lanes, ..fragments }));
    }
    let of = |family| Choices { family, ..gpu.choices() };
    let mut variants: Vec<Choices> = families.into_iter().map(of).collect();
    variants.push(Choices::from(Family::Tiled)); // a device that has no more than all have
    if case.inputs.iter().map(|input| input.values.len()).sum::<usize>() < LARGE {
        let own = (0..3).map(|number| tiling(3 * index + number));
        variants.extend(own.map(|tiling| Choices { forced: Some(tiling), ..of(Family::Tiled) }));
    }
    variants.into_iter().map(Arc::new).collect()
}

/// Shaders that round factors to 16 bits on the way, since cooperative matrices multiply nothing else: the weights of
/// the keys.
const ROUNDING: &[&str] = &["attention_cooperative"];

/// Runs all cases on the GPU and on the reference player against the naive formula; prints the worst errors.
pub(crate) fn check(stem: &str, cases: &[Case], element: ElementType) {
    check_with(stem, cases, [element; 2]);
}

/// The same, with activations and weights of different types.
pub(crate) fn check_with(stem: &str, cases: &[Case], [element, weight]: [ElementType; 2]) {
    let gpu = gpu();
    let mut failures = Vec::new();
    assert!(!cases.is_empty(), "{stem} has cases");
    let mut seen: Vec<(&str, Shaders)> = Vec::new();
    let variants = cases.iter().enumerate().flat_map(|(index, case)| {
        variants(&gpu, index, case).into_iter().map(move |choices| (case, choices))
    });
    for (case, choices) in variants {
        let recorded = record(case, [element, weight], &choices);
        let run = (case.name, shaders(&recorded));
        if seen.contains(&run) {
            continue;
        }
        let rounds = run.1.iter().any(|(name, ..)| ROUNDING.contains(name));
        seen.push(run);
        let family = choices.family;
        let chosen: Vec<_> =
            recorded.recording.chosen().iter().map(|choice| choice.tiling.to_string()).collect();
        let expected = (case.expected)(&recorded.values);

        let mut twin = reference::Memory::default();
        for (tensor, bytes) in recorded.tensors.iter().zip(&recorded.bytes) {
            twin.set_bytes(tensor, bytes);
        }
        reference::play(&recorded.recording, &mut twin);
        let mut tolerance = Tolerance::reduction(recorded.output.element(), case.terms);
        if rounds {
            tolerance = tolerance.with_factors_rounded_to(ElementType::F16);
        }
        let exact = match recorded.output.element() {
            ElementType::U32 => ElementType::U32,
            ElementType::F32 | ElementType::F16 | ElementType::Int8 => ElementType::F32,
        };
        let by_reference = Tolerance::reduction(exact, 1).worst(twin.get(&recorded.output), &expected);

        let mut memory = Memory::new(gpu.clone());
        memory.allocate(recorded.tensors.iter().chain([&recorded.output]), Purpose::Persistent).unwrap();
        for (tensor, bytes) in recorded.tensors.iter().zip(&recorded.bytes) {
            memory.write(tensor, 0, bytes).unwrap();
        }
        let mut executor = Executor::new(gpu.clone());
        let programs =
            executor.prepare(&memory, &[&recorded.recording]).unwrap_or_else(|error| panic!("{error}"));
        executor.play(&programs[0]).unwrap();
        let found = from_bytes(&memory.read(&recorded.output).unwrap(), recorded.output.element());
        let by_gpu = tolerance.worst(&found, &expected);
        println!(
            "{stem} {family:?} {element} {weight} {:32} error/limit: gpu {by_gpu:.3}, reference {by_reference:.3} {}",
            case.name,
            chosen.join("; ")
        );
        if by_gpu.max(by_reference) > 1.0 {
            failures.push((case.name, family, chosen));
        }
    }
    assert!(failures.is_empty(), "{stem} {element} {weight}: beyond tolerance: {failures:?}");
}
