//! Checkpoints: what is accepted, how it is packed, and what is said about damaged files.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::{Path, PathBuf};

use deepcache::tensor::{ElementType, Tensor};
use deepcache::weights::{Checkpoint, Loader, Pending, WeightStorage};
use deepcache::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};

const CHUNK: usize = 16 << 20;

/// One tensor to be written: name, type, shape, bytes.
struct Written(&'static str, Dtype, Vec<usize>, Vec<u8>);

fn f32_tensor(name: &'static str, shape: &[usize], values: &[f32]) -> Written {
    Written(name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

fn f16_tensor(name: &'static str, shape: &[usize], values: &[f32]) -> Written {
    let bytes = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    Written(name, Dtype::F16, shape.to_vec(), bytes)
}

fn bf16_tensor(name: &'static str, shape: &[usize], values: &[f32]) -> Written {
    let bytes = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    Written(name, Dtype::BF16, shape.to_vec(), bytes)
}

/// A tensor of one byte for each value.
fn f8_tensor(name: &'static str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Written {
    Written(name, dtype, shape.to_vec(), bytes.to_vec())
}

/// Values 1, 2, 3 …, small enough to be exact in every type.
fn counting(count: usize) -> Vec<f32> {
    (0..count).map(|index| f32::from(u8::try_from(index % 200).unwrap()) + 1.0).collect()
}

fn save(folder: &Path, name: &str, tensors: &[Written]) -> PathBuf {
    let path = folder.join(name);
    let views = tensors.iter().map(|Written(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}

/// A folder and the checkpoint in it.
fn checkpoint(tensors: &[Written]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), "model.safetensors", tensors);
    let checkpoint = Checkpoint::open(&[path]).unwrap();
    (folder, checkpoint)
}

/// All bytes of a packed tensor; checks that the chunks are bounded, aligned, and cover it once.
fn write(pending: &Pending, checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let length = usize::try_from(pending.tensor.bytes()).unwrap();
    let mut bytes = vec![0; length];
    let mut covered = vec![false; length];
    pending.write(checkpoint, &mut |offset, chunk| {
        let start = usize::try_from(offset).unwrap();
        assert!(chunk.len() <= CHUNK, "a chunk of {} bytes", chunk.len());
        assert!(start.is_multiple_of(4), "a chunk at {start}");
        assert!(
            chunk.len().is_multiple_of(4) || start + chunk.len() == length,
            "a ragged chunk in the middle"
        );
        bytes[start..start + chunk.len()].copy_from_slice(chunk);
        for place in &mut covered[start..start + chunk.len()] {
            assert!(!*place, "a byte is written twice");
            *place = true;
        }
        Ok(())
    })?;
    assert!(covered.iter().all(|place| *place), "a byte is never written");
    Ok(bytes)
}

fn values(pending: &Pending, checkpoint: &Checkpoint) -> Result<Vec<f32>> {
    let bytes = write(pending, checkpoint)?;
    Ok(match pending.tensor.element() {
        ElementType::F16 => {
            bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect()
        }
        _ => bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
    })
}

/// The values of the only tensor asked for.
fn packed(
    checkpoint: &Checkpoint,
    element: ElementType,
    ask: impl FnOnce(&mut Loader) -> Result<Tensor>,
) -> Result<(Tensor, Vec<f32>)> {
    let mut loader = Loader::new("model", element);
    let tensor = ask(&mut loader)?;
    let pending = loader.into_pending();
    assert_eq!(pending.len(), 1, "one tensor was asked for");
    assert_eq!(
        tensor.as_external().unwrap().id(),
        pending[0].tensor.as_external().unwrap().id(),
        "the pending tensor is another one"
    );
    let values = values(&pending[0], checkpoint)?;
    Ok((tensor, values))
}

fn message(result: Result<impl Sized>) -> String {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(error @ (Error::Weights { .. } | Error::Io { .. } | Error::Option { .. })) => error.to_string(),
        Err(other) => panic!("wrong kind of error: {other:?}"),
    }
}

fn assert_says(found: &str, expected: &[&str]) {
    for part in expected {
        assert!(found.contains(part), "\"{found}\" does not say \"{part}\"");
    }
}

#[test]
fn vectors_stay_f32_whatever_the_file_stores() {
    let numbers = [0.5, -1.25, 3.0];
    let tensors = [
        f32_tensor("a.bias", &[3], &numbers),
        f16_tensor("b.bias", &[3], &numbers),
        bf16_tensor("c.bias", &[3], &numbers),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    for name in ["a", "b", "c"] {
        let weights = checkpoint.root().child(name);
        let (tensor, found) =
            packed(&checkpoint, ElementType::F16, |loader| weights.vector(loader, "bias", 3)).unwrap();
        assert_eq!(tensor.element(), ElementType::F32, "a vector became f16");
        assert_eq!(tensor.shape().extents(), [3], "the shape changed");
        assert_eq!(found, numbers, "the values of {name} changed");
        assert_eq!(
            tensor.as_external().unwrap().label(),
            format!("model/{name}.bias"),
            "the label is another"
        );
    }
}

#[test]
fn matrices_are_transposed_for_every_pair_of_types() {
    let (rows, columns) = (37, 41); // neither is a multiple of a tile
    let numbers = counting(rows * columns);
    let tensors = [
        f32_tensor("a", &[rows, columns], &numbers),
        f16_tensor("b", &[rows, columns], &numbers),
        bf16_tensor("c", &[rows, columns], &numbers),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    for element in [ElementType::F32, ElementType::F16] {
        for name in ["a", "b", "c"] {
            let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &[name], columns, &[rows]);
            let (tensor, found) = packed(&checkpoint, element, ask).unwrap();
            assert_eq!(tensor.shape().extents(), [columns, rows], "the shape is not transposed");
            assert_eq!(tensor.element(), element, "the element type is another");
            for input in 0..columns {
                for output in 0..rows {
                    assert_eq!(
                        found[input * rows + output],
                        numbers[output * columns + input],
                        "{name} as {element} at [{input}, {output}]"
                    );
                }
            }
        }
    }
}

#[test]
fn eight_bits_become_what_they_stand_for() {
    // 1, -0.5, 2, 0, 1.5, and the smallest of each type
    let tensors = [
        f8_tensor("a", Dtype::F8_E4M3, &[2, 3], &[0x38, 0xb0, 0x40, 0, 0x3c, 0x01]),
        f8_tensor("b", Dtype::F8_E5M2, &[2, 3], &[0x3c, 0xb8, 0x40, 0, 0x3e, 0x01]),
        f8_tensor("c", Dtype::F8_E4M3, &[2], &[0x38, 0x7f]),
        f8_tensor("d", Dtype::F8_E5M2, &[2], &[0x3c, 0xfc]),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    for (name, smallest) in [("a", 2f32.powi(-9)), ("b", 2f32.powi(-16))] {
        for element in [ElementType::F32, ElementType::F16] {
            let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &[name], 3, &[2]);
            let (_, found) = packed(&checkpoint, element, ask).unwrap();
            assert_eq!(found, [1.0, 0.0, -0.5, 1.5, 2.0, smallest], "{name} as {element}");
        }
    }
    for (name, word) in [("c", "NaN"), ("d", "infinity")] {
        let ask = |loader: &mut Loader| checkpoint.root().vector(loader, name, 2);
        let refused = message(packed(&checkpoint, ElementType::F32, ask));
        assert_says(&refused, &["model.safetensors", word, "at [1]"]);
    }
}

#[test]
fn other_types_may_lie_beside_what_is_read() {
    let tensors = [
        Written("betas", Dtype::F64, vec![2], vec![0; 16]),
        Written("flags", Dtype::BOOL, vec![2], vec![0; 2]),
        Written("ids", Dtype::U8, vec![2], vec![0; 2]),
        f32_tensor("bias", &[1], &[1.0]),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    let mut loader = Loader::new("unet", ElementType::F32);
    assert_eq!(loader.unused(&checkpoint), ["bias"], "they are not missed");
    for (name, words) in
        [("betas", "is stored as F64"), ("flags", "as BOOL"), ("ids", "holds integers as U8")]
    {
        let refused = message(checkpoint.root().vector(&mut loader, name, 2));
        assert_says(&refused, &["model.safetensors", name, words, "supported are F32, F16, BF16, F8_E4M3"]);
    }
}

#[test]
fn missing_tensors_go_by_the_names_of_their_file() {
    let (_folder, checkpoint) = checkpoint(&[f32_tensor("old.weight", &[1], &[1.0])]);
    let rename = |name: &str| name.strip_prefix("old.").map(|leaf| format!("new.{leaf}"));
    let renamed = checkpoint
        .renamed(rename)
        .with_original_names(|name| name.strip_prefix("new.").map(|leaf| format!("old.{leaf}")));
    let mut loader = Loader::new("unet", ElementType::F32);
    let missing = message(renamed.root().vector(&mut loader, "new.bias", 1));
    assert_says(&missing, &["tensor \"old.bias\": is missing"]);
    assert!(!missing.contains("new."), "{missing}");
    let wrong = message(renamed.root().vector(&mut loader, "new.weight", 2));
    assert_says(&wrong, &["\"old.weight\"", "[1]", "expected [2]"]);
}

#[test]
fn fused_matrices_lie_side_by_side() {
    let tensors = [
        f32_tensor("to_q.weight", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        f32_tensor("to_k.weight", &[1, 3], &[7.0, 8.0, 9.0]),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    let ask =
        |loader: &mut Loader| checkpoint.root().matrix(loader, &["to_q.weight", "to_k.weight"], 3, &[2, 1]);
    let (tensor, found) = packed(&checkpoint, ElementType::F32, ask).unwrap();
    assert_eq!(tensor.shape().extents(), [3, 3], "the outputs do not add up");
    assert_eq!(found, [1.0, 4.0, 7.0, 2.0, 5.0, 8.0, 3.0, 6.0, 9.0], "the columns are mixed up");
}

#[test]
fn fused_vectors_are_concatenated_and_missing_ones_are_zero() {
    let tensors = [f32_tensor("to_q.bias", &[2], &[1.0, 2.0]), f32_tensor("to_v.bias", &[1], &[3.0])];
    let (_folder, checkpoint) = checkpoint(&tensors);
    let root = checkpoint.root();
    let ask = |loader: &mut Loader| root.vectors(loader, &["to_q.bias", "to_v.bias"], &[2, 1]);
    assert_eq!(packed(&checkpoint, ElementType::F16, ask).unwrap().1, [1.0, 2.0, 3.0], "not concatenated");

    let names = ["to_q.bias", "to_k.bias", "to_v.bias"];
    let ask =
        |loader: &mut Loader| Ok(root.optional_vectors(loader, &names, &[2, 2, 1])?.expect("two are there"));
    let found = packed(&checkpoint, ElementType::F16, ask).unwrap().1;
    assert_eq!(found, [1.0, 2.0, 0.0, 0.0, 3.0], "the missing one is not zero");

    let mut loader = Loader::new("model", ElementType::F16);
    assert!(root.optional_vectors(&mut loader, &["no.bias"], &[4]).unwrap().is_none(), "made from nothing");
    assert!(loader.pending().is_empty(), "something is pending for nothing");
    assert_says(&message(root.vectors(&mut loader, &names, &[2, 2, 1])), &["to_k.bias", "is missing"]);
}

#[test]
fn convolutions_are_rows_of_taps_and_inputs() {
    let (outputs, inputs, height, width) = (35, 39, 3, 2);
    let numbers = counting(outputs * inputs * height * width);
    let (_folder, checkpoint) =
        checkpoint(&[f16_tensor("conv.weight", &[outputs, inputs, height, width], &numbers)]);
    let weights = checkpoint.root().child("conv");
    let ask = |loader: &mut Loader| weights.convolution(loader, "weight", outputs, inputs, [height, width]);
    let (tensor, found) = packed(&checkpoint, ElementType::F16, ask).unwrap();
    assert_eq!(tensor.shape().extents(), [height * width * inputs, outputs], "the shape is another");
    for output in 0..outputs {
        for input in 0..inputs {
            for tap in 0..height * width {
                assert_eq!(
                    found[(tap * inputs + input) * outputs + output],
                    numbers[(output * inputs + input) * height * width + tap],
                    "output {output}, input {input}, tap {tap}"
                );
            }
        }
    }
}

#[test]
fn large_tensors_come_in_bounded_chunks() {
    let (outputs, inputs) = (1026, 1030);
    let numbers = counting(outputs * inputs * 9);
    let (_folder, checkpoint) = checkpoint(&[f16_tensor("weight", &[outputs, inputs, 3, 3], &numbers)]);
    let ask = |loader: &mut Loader| checkpoint.root().convolution(loader, "weight", outputs, inputs, [3, 3]);
    let (tensor, found) = packed(&checkpoint, ElementType::F32, ask).unwrap();
    assert!(tensor.bytes() > 2 * CHUNK as u64, "the test tensor is too small");
    for (output, input, tap) in [(0, 0, 0), (1025, 1029, 8), (512, 3, 4), (1, 1000, 7), (1025, 0, 1)] {
        assert_eq!(
            found[(tap * inputs + input) * outputs + output],
            numbers[(output * inputs + input) * 9 + tap],
            "output {output}, input {input}, tap {tap}"
        );
    }
    let sum = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>();
    assert_eq!(sum(&found), sum(&numbers), "values were lost or repeated");
}

#[test]
fn odd_matrices_of_halves_are_written_at_aligned_offsets() {
    let (outputs, inputs) = (3, 3_000_000);
    let numbers = counting(outputs * inputs);
    let (_folder, checkpoint) = checkpoint(&[f16_tensor("weight", &[outputs, inputs], &numbers)]);
    let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &["weight"], inputs, &[outputs]);
    let (_, found) = packed(&checkpoint, ElementType::F16, ask).unwrap();
    for (output, input) in [(0, 0), (2, 2_999_999), (1, 1_500_001)] {
        assert_eq!(
            found[input * outputs + output],
            numbers[output * inputs + input],
            "at [{input}, {output}]"
        );
    }
}

/// The scales and integers of the only tensor asked for, which is stored in 8 bits.
fn packed_int8(
    checkpoint: &Checkpoint,
    ask: impl FnOnce(&mut Loader) -> Result<Tensor>,
) -> Result<(Vec<f32>, Vec<i8>)> {
    let mut loader = Loader::new("model", ElementType::F16).with_weight_storage(WeightStorage::Int8);
    let tensor = ask(&mut loader)?;
    assert_eq!(tensor.element(), ElementType::Int8, "it stayed as it was");
    let columns = tensor.shape().channels();
    let bytes = write(&loader.into_pending()[0], checkpoint)?;
    assert_eq!(bytes.len(), 4 * columns + tensor.shape().count(), "scales and values");
    let (scales, integers) = bytes.split_at(4 * columns);
    let scales = scales.as_chunks().0.iter().map(|scale| f32::from_le_bytes(*scale)).collect();
    Ok((scales, integers.iter().map(|byte| byte.cast_signed()).collect()))
}

/// Values of all sizes and both signs: rows of a length, each larger than the one before.
fn rows(rows: usize, length: usize) -> Vec<f32> {
    let value = |row: usize, index: usize| (1.0 + row as f32) * (0.37 * (row * length + index) as f32).sin();
    (0..rows).flat_map(|row| (0..length).map(move |index| value(row, index))).collect()
}

#[test]
fn matrices_of_8_bits_have_a_scale_for_every_output() {
    // side by side, neither of a whole number of tiles; then convolutions
    let (inputs, [first, second]) = (41, [37, 17]);
    let (a, mut b) = (rows(first, inputs), rows(second, inputs));
    b[5 * inputs..6 * inputs].fill(0.0);
    let kernel = rows(33, 18 * 6);
    let (_folder, checkpoint) = checkpoint(&[
        f32_tensor("a", &[first, inputs], &a),
        bf16_tensor("b", &[second, inputs], &b),
        f16_tensor("conv", &[33, 18, 3, 2], &kernel),
    ]);
    let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &["a", "b"], inputs, &[first, second]);
    let (scales, integers) = packed_int8(&checkpoint, ask).unwrap();
    let ask = |loader: &mut Loader| checkpoint.root().convolution(loader, "conv", 33, 18, [3, 2]);
    let (kernel_scales, kernel_integers) = packed_int8(&checkpoint, ask).unwrap();

    let check = |row: &[f32], scale: f32, found: &dyn Fn(usize) -> i8| {
        let largest = row.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        assert_eq!(scale, largest / 127.0, "the scale");
        for (index, value) in row.iter().enumerate() {
            let apart = (scale * f32::from(found(index)) - value).abs();
            assert!(apart <= 0.501 * scale, "value {index}: {value} is {apart} off at a scale of {scale}");
        }
    };
    let b: Vec<f32> = b.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
    let columns = first + second;
    for (column, row) in a.chunks_exact(inputs).chain(b.chunks_exact(inputs)).enumerate() {
        check(row, scales[column], &|input| integers[input * columns + column]);
    }
    assert_eq!(scales[first + 5], 0.0, "a row of zeros");
    let kernel: Vec<f32> = kernel.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
    for (output, row) in kernel.chunks_exact(18 * 6).enumerate() {
        let found = |index: usize| kernel_integers[(index % 6 * 18 + index / 6) * 33 + output];
        check(row, kernel_scales[output], &found);
    }
}

#[test]
fn large_and_odd_matrices_of_8_bits_come_in_chunks() {
    // more than a chunk in batches of four inputs, and one whose rows are aligned only as a whole
    for (outputs, inputs) in [(1027, 18_000), (19, 70_001)] {
        let numbers: Vec<f32> = counting(outputs * inputs).iter().map(|value| value - 100.0).collect();
        let (_folder, checkpoint) = checkpoint(&[f16_tensor("weight", &[outputs, inputs], &numbers)]);
        let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &["weight"], inputs, &[outputs]);
        let (scales, integers) = packed_int8(&checkpoint, ask).unwrap();
        for (output, input) in [(0, 0), (outputs - 1, inputs - 1), (7, inputs / 2), (outputs / 2, inputs - 3)]
        {
            let found = scales[output] * f32::from(integers[input * outputs + output]);
            let expected = numbers[output * inputs + input];
            assert!((found - expected).abs() <= 0.501 * scales[output], "{found}, expected {expected}");
        }
    }
}

#[test]
fn what_is_no_number_is_refused_in_8_bits_too() {
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity")] {
        let mut numbers = rows(20, 5000);
        numbers[7 * 5000 + 4321] = value;
        let (_folder, checkpoint) = checkpoint(&[f32_tensor("weight", &[20, 5000], &numbers)]);
        let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &["weight"], 5000, &[20]);
        let refused = message(packed_int8(&checkpoint, ask));
        assert_says(&refused, &["model.safetensors", "weight", word, "at [7, 4321]"]);
    }
}

#[test]
fn tables_stay_as_they_are() {
    let (rows, columns) = (3000, 1500); // more than one chunk as f32
    let numbers = counting(rows * columns);
    let (_folder, checkpoint) = checkpoint(&[bf16_tensor("weight", &[rows, columns], &numbers)]);
    let ask = |loader: &mut Loader| checkpoint.root().table(loader, "weight", rows, columns);
    let (tensor, found) = packed(&checkpoint, ElementType::F32, ask).unwrap();
    assert_eq!(tensor.shape().extents(), [rows, columns], "the shape changed");
    assert!(found == numbers, "the values changed");
}

#[test]
fn values_at_odd_addresses_are_read() {
    // The pad of one byte in the header shifts all values by one.
    let folder = tempfile::tempdir().unwrap();
    let header = r#"{"bias":{"dtype":"F16","shape":[3],"data_offsets":[0,6]}}"#;
    for pad in ["", " "] {
        let path = raw(folder.path(), &format!("{header}{pad}"), &[0, 0x3c, 0, 0x40, 0, 0x42]);
        let checkpoint = Checkpoint::open(&[path]).unwrap();
        let ask = |loader: &mut Loader| checkpoint.root().vector(loader, "bias", 3);
        assert_eq!(packed(&checkpoint, ElementType::F32, ask).unwrap().1, [1.0, 2.0, 3.0], "misread");
    }
}

#[test]
fn old_attention_names_and_shapes_are_found() {
    let tensors = [
        f32_tensor("mid_block.attentions.0.query.weight", &[2, 2, 1, 1], &[1.0, 2.0, 3.0, 4.0]),
        f32_tensor("mid_block.attentions.0.proj_attn.bias", &[2], &[5.0, 6.0]),
        f32_tensor("proj_in.weight", &[2, 2], &[1.0, 2.0, 3.0, 4.0]),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    let attention = checkpoint.root().child("mid_block").child("attentions").child(0);
    assert!(attention.has("to_q.weight"), "the alias is not seen");
    assert!(!attention.has("to_k.weight"), "an alias for nothing");

    let mut loader = Loader::new("vae", ElementType::F32);
    attention.matrix(&mut loader, &["to_q.weight"], 2, &[2]).unwrap();
    attention.vector(&mut loader, "to_out.0.bias", 2).unwrap();
    assert_eq!(loader.unused(&checkpoint), ["proj_in.weight"], "aliases do not count as used");
    checkpoint.root().convolution(&mut loader, "proj_in.weight", 2, 2, [1, 1]).unwrap();
    for index in [0, 2] {
        assert_eq!(
            values(&loader.pending()[index], &checkpoint).unwrap(),
            [1.0, 3.0, 2.0, 4.0],
            "linear and convolution of one pixel differ"
        );
    }
    assert!(loader.unused(&checkpoint).is_empty(), "everything was asked for");
    assert_eq!(loader.bytes(), 40, "the bytes do not add up");
    let missing = message(attention.matrix(&mut loader, &["to_k.weight"], 2, &[2]));
    assert_says(&missing, &["to_k.weight", "key.weight", "is missing"]);
}

#[test]
fn integers_are_neither_read_nor_unused() {
    let tensors = [
        Written("text_model.embeddings.position_ids", Dtype::I64, vec![1, 2], vec![0; 16]),
        f32_tensor("text_model.final_layer_norm.bias", &[1], &[1.0]),
    ];
    let (_folder, checkpoint) = checkpoint(&tensors);
    let mut loader = Loader::new("clip", ElementType::F16);
    let weights = checkpoint.root();
    assert_eq!(loader.unused(&checkpoint), ["text_model.final_layer_norm.bias"], "integers count as unused");
    assert_eq!(checkpoint.shape("final_layer_norm.bias"), Some(&[1][..]), "the prefix is not optional");
    let refused = message(weights.vector(&mut loader, "text_model.embeddings.position_ids", 2));
    assert_says(&refused, &["position_ids", "integers"]);
}

#[test]
fn wrong_shapes_and_missing_tensors_name_themselves() {
    let (folder, checkpoint) = checkpoint(&[f32_tensor("mid.conv1.weight", &[2, 3], &counting(6))]);
    let mut loader = Loader::new("unet", ElementType::F32);
    let weights = checkpoint.root().child("mid");
    let wrong = message(weights.matrix(&mut loader, &["conv1.weight"], 2, &[3]));
    assert_says(&wrong, &["model.safetensors", "\"mid.conv1.weight\"", "[2, 3]", "expected [3, 2]"]);
    let wrong = message(weights.convolution(&mut loader, "conv1.weight", 2, 3, [3, 3]));
    assert_says(&wrong, &["[2, 3]", "expected [2, 3, 3, 3]"]);
    let wrong = message(weights.vector(&mut loader, "conv1.weight", 6));
    assert_says(&wrong, &["[2, 3]", "expected [6]"]);
    let missing = message(weights.vector(&mut loader, "conv2.weight", 6));
    assert_says(&missing, &["\"mid.conv2.weight\": is missing", "there is \"mid.conv1.weight\""]);
    assert!(loader.pending().is_empty(), "refused tensors are pending");

    let other = save(folder.path(), "other.safetensors", &[f32_tensor("x", &[1], &[1.0])]);
    let both = Checkpoint::open(&[folder.path().join("model.safetensors"), other]).unwrap();
    assert_eq!(both.names().collect::<Vec<_>>(), ["mid.conv1.weight", "x"], "shards are not merged");
    let missing = message(both.root().vector(&mut loader, "y.z", 1));
    assert_says(&missing, &["model.safetensors", "also looked in", "other.safetensors"]);
}

#[test]
fn values_that_are_not_finite_are_refused_with_their_place() {
    for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "infinity"), (f32::NEG_INFINITY, "infinity")] {
        let mut numbers = counting(12);
        numbers[7] = value;
        for tensor in [
            f32_tensor("w", &[3, 4], &numbers),
            f16_tensor("w", &[3, 4], &numbers),
            bf16_tensor("w", &[3, 4], &numbers),
        ] {
            let (_folder, checkpoint) = checkpoint(&[tensor]);
            for element in [ElementType::F16, ElementType::F32] {
                let ask = |loader: &mut Loader| checkpoint.root().matrix(loader, &["w"], 4, &[3]);
                let refused = message(packed(&checkpoint, element, ask));
                let words = format!("holds a value that is not finite ({word}) at [1, 3]");
                assert_says(&refused, &["model.safetensors", "tensor \"w\"", &words]);
            }
        }
    }
}

#[test]
fn values_beyond_f16_are_refused_as_f16_only() {
    let (_folder, checkpoint) = checkpoint(&[f32_tensor("w", &[2, 2], &[65504.0, -65504.0, 1.0, -70000.0])]);
    let ask = |loader: &mut Loader| checkpoint.root().table(loader, "w", 2, 2);
    let refused = message(packed(&checkpoint, ElementType::F16, ask));
    assert_says(&refused, &["-70000 at [1, 1]", "65504", "use f32"]);
    let ask = |loader: &mut Loader| checkpoint.root().table(loader, "w", 2, 2);
    assert_eq!(packed(&checkpoint, ElementType::F32, ask).unwrap().1[3], -70000.0, "f32 holds it");
}

#[test]
fn what_the_sink_says_is_passed_on() {
    let (_folder, checkpoint) = checkpoint(&[f32_tensor("b", &[1], &[1.0])]);
    let mut loader = Loader::new("unet", ElementType::F32);
    checkpoint.root().vector(&mut loader, "b", 1).unwrap();
    let result = loader.pending()[0].write(&checkpoint, &mut |_, _| Err(Error::option("sink", "is full")));
    assert_eq!(message(result), "sink: is full", "the error changed");
}

/// A file of a header and values, as they are given.
fn raw(folder: &Path, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.join("model.safetensors");
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn damaged_headers_are_explained() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{first}}},"b":{{"dtype":"F32","shape":[2],"data_offsets":{second}}}}}"#
        )
    };
    let cases: Vec<(String, usize, &[&str])> = vec![
        ("not json".into(), 0, &["header that is not JSON"]),
        (r#"{"a":"#.into(), 0, &["header that is not JSON"]),
        ("[1]".into(), 0, &["header that does not describe tensors"]),
        (r#"{"a":{"dtype":"F32"}}"#.into(), 0, &["header that does not describe tensors"]),
        (one("F99", "[2]", "[0,8]"), 8, &["does not describe tensors", "F99"]),
        (one("F32", "[-2]", "[0,8]"), 8, &["does not describe tensors"]),
        (one("F32", "[2]", "[0,8]"), 4, &["holds 4 bytes of values", "describes 8", "cut off"]),
        (one("F32", "[2]", "[0,8]"), 12, &["holds 12 bytes", "describes 8"]),
        (one("F32", "[2]", "[0,4]"), 4, &["tensor \"a\"", "[2] of F32, which is 8 bytes", "4 apart"]),
        (one("F32", "[3]", "[0,8]"), 8, &["tensor \"a\"", "12 bytes"]),
        (one("F32", "[2]", "[8,0]"), 8, &["tensor \"a\"", "offsets"]),
        (one("F32", "[2]", "[4,12]"), 12, &["tensor \"a\"", "gap"]),
        (one("F32", "[18446744073709551615,2]", "[0,8]"), 8, &["tensor \"a\"", "absurd shape"]),
        (one("F32", "[4611686018427387904]", "[0,8]"), 8, &["tensor \"a\"", "absurd shape"]),
        (one("F32", "[2]", "[0,18446744073709551608]"), 8, &["tensor \"a\""]),
        (two("[0,8]", "[4,12]"), 12, &["overlap"]),
        (two("[0,8]", "[0,8]"), 8, &["overlap"]),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (header, length, expected) in cases {
        let path = raw(folder.path(), &header, &vec![0; length]);
        let found = message(Checkpoint::open(&[path]));
        assert_says(&found, &["model.safetensors: "]);
        assert_says(&found, expected);
    }
}

#[test]
fn files_that_are_no_safetensors_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let mut not_text = 2u64.to_le_bytes().to_vec();
    not_text.extend([0xff, 0xfe]);
    let cases: [(&[u8], &[&str]); 8] = [
        (b"PK\x03\x04....archive/data.pkl", &["PyTorch pickle", "can run programs", "save_file"]),
        (b"", &["is empty"]),
        (b"1234567", &["7 bytes", "too few"]),
        (&100u64.to_le_bytes(), &["header of 100 bytes", "0 follow"]),
        (&u64::MAX.to_le_bytes(), &["claims a header of 18446744073709551615 bytes"]),
        (b"<!DOCTYPE html><html>", &["claims a header", "not a safetensors file"]),
        (lfs, &["Git LFS pointer", "git lfs pull"]),
        (&not_text, &["not text"]),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        assert_says(&message(Checkpoint::open(std::slice::from_ref(&path))), expected);
    }
    assert_says(
        &message(Checkpoint::open(&[folder.path().join("none.safetensors")])),
        &["none.safetensors", "open"],
    );
    assert_says(&message(Checkpoint::open(&[folder.path().to_owned()])), &["is a directory"]);
    assert_says(&message(Checkpoint::open(&[])), &["no file was given"]);
}

#[test]
fn every_cut_of_a_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = save(folder.path(), "model.safetensors", &[f32_tensor("a", &[2, 3], &counting(6))]);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        message(Checkpoint::open(std::slice::from_ref(&path)));
    }
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = save(folder.path(), "first.safetensors", &[f32_tensor("a", &[1], &[1.0])]);
    let second = save(folder.path(), "second.safetensors", &[f32_tensor("a", &[1], &[2.0])]);
    let refused = message(Checkpoint::open(&[first, second]));
    assert_says(&refused, &["second.safetensors", "tensor \"a\"", "is also in", "first.safetensors"]);
}
