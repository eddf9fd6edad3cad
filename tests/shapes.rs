//! Record functions refuse tensors that do not fit together, and say which.

use deepcache::gpu::recording::Recording;
use deepcache::kernels::Affine;
use deepcache::kernels::add::add;
use deepcache::kernels::blend_outside::blend_outside;
use deepcache::kernels::geglu::geglu;
use deepcache::kernels::group_norm::{GroupNormConfig, group_norm};
use deepcache::kernels::guidance::{GuidanceConfig, guidance};
use deepcache::kernels::layer_norm::layer_norm;
use deepcache::kernels::pixels::pixels;
use deepcache::kernels::scale_model_input::scale_model_input;
use deepcache::kernels::scheduler_step::{row_length, scheduler_step};
use deepcache::kernels::timestep_embedding::{TimestepEmbeddingConfig, frequencies, timestep_embedding};
use deepcache::kernels::token_embedding::token_embedding;
use deepcache::kernels::upsample_nearest::upsample_nearest;
use deepcache::tensor::ElementType::{self, F16, F32, U32};
use deepcache::tensor::Tensor;
use deepcache::{Error, Result};

fn tensor(shape: &[usize], element: ElementType) -> Tensor {
    Tensor::external("tensor", shape, element)
}

fn affine(channels: usize, element: ElementType) -> Affine {
    Affine { weight: tensor(&[channels], F32), bias: tensor(&[channels], element) }
}

/// The refused operation recorded nothing and blames `blamed`.
fn refused<T>(blamed: &str, record: impl FnOnce(&mut Recording) -> Result<T>) {
    let mut recording = Recording::new("refused");
    match record(&mut recording) {
        Err(Error::Shape { tensor, .. }) => assert_eq!(tensor, blamed, "the tensor at fault"),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("{blamed} was accepted"),
    }
    assert!(recording.commands().is_empty(), "{blamed}: nothing is recorded");
}

#[test]
fn normalisations_refuse_what_does_not_fit() {
    let config = GroupNormConfig { groups: 4, epsilon: 1e-5, silu: false };
    let image = tensor(&[1, 2, 2, 8], F16);
    refused("input", |r| group_norm(r, &tensor(&[2, 8], F16), None, &affine(8, F32), &config));
    refused("input", |r| group_norm(r, &tensor(&[1, 2, 6], F16), None, &affine(6, F32), &config));
    refused("input", |r| group_norm(r, &tensor(&[1, 0, 8], F16), None, &affine(8, F32), &config));
    refused("weight", |r| group_norm(r, &image, None, &affine(4, F32), &config));
    refused("bias", |r| group_norm(r, &image, None, &affine(8, F16), &config));
    let second = tensor(&[1, 2, 3, 8], F16);
    refused("second", |r| group_norm(r, &image, Some(&second), &affine(16, F32), &config));
    let second = tensor(&[1, 2, 2, 8], F32);
    refused("second", |r| group_norm(r, &image, Some(&second), &affine(16, F32), &config));
    let none = GroupNormConfig { groups: 0, ..config };
    refused("input", |r| group_norm(r, &image, None, &affine(8, F32), &none));
    refused("weight", |r| layer_norm(r, &image, &affine(7, F32), 1e-5));
}

#[test]
fn element_wise_operations_refuse_what_does_not_fit() {
    let four = tensor(&[4], F32);
    refused("right", |r| add(r, &four, &tensor(&[5], F32)));
    refused("right", |r| add(r, &four, &tensor(&[4], F16)));
    refused("input", |r| geglu(r, &tensor(&[2, 3], F32)));
    let config = GuidanceConfig { scale: 2.0, rescale: 0.0 };
    refused("input", |r| guidance(r, &tensor(&[3, 1, 1, 4], F32), Some(&config)));
    refused("image", |r| pixels(r, &tensor(&[1, 2, 2, 4], F32)));
    refused("image", |r| pixels(r, &tensor(&[2, 2, 3], F32)));
    refused("input", |r| upsample_nearest(r, &tensor(&[1, 4, 4], F32), [8, 8]));
    refused("size", |r| upsample_nearest(r, &tensor(&[1, 4, 4, 1], F32), [8, 0]));
}

#[test]
fn embeddings_refuse_what_does_not_fit() {
    let config = TimestepEmbeddingConfig { flip_sin_to_cos: true };
    let list = tensor(&[4], F32);
    refused("timesteps", |r| timestep_embedding(r, &tensor(&[2, 2], F32), &list, F16, &config));
    refused("frequencies", |r| timestep_embedding(r, &list, &tensor(&[4], F16), F16, &config));
    let (ids, table) = (tensor(&[1, 3], U32), tensor(&[9, 4], F16));
    refused("ids", |r| token_embedding(r, &tensor(&[1, 3], F32), std::slice::from_ref(&table), Some(&table)));
    refused("positions", |r| {
        token_embedding(r, &ids, std::slice::from_ref(&table), Some(&tensor(&[2, 4], F16)))
    });
    refused("tables", |r| token_embedding(r, &ids, &[], Some(&table)));
    refused("tables[1]", |r| token_embedding(r, &ids, &[table.clone(), tensor(&[9, 5], F16)], None));
    refused("positions", |r| token_embedding(r, &ids, &[tensor(&[9, 5], F16)], Some(&table)));
}

#[test]
fn scheduler_kernels_refuse_what_does_not_fit() {
    let (state, output) = (tensor(&[2, 12], F32), tensor(&[1, 2, 2, 3], F32));
    let (table, step) = (tensor(&[5, row_length(1)], F32), tensor(&[1], U32));
    let short = tensor(&[5, row_length(0)], F32);
    refused("table", |r| scheduler_step(r, &state, &output, [None; 2], &short, &step));
    refused("state", |r| scheduler_step(r, &tensor(&[2, 11], F32), &output, [None; 2], &table, &step));
    refused("state", |r| scheduler_step(r, &tensor(&[10, 12], F32), &output, [None; 2], &table, &step));
    refused("noise", |r| scheduler_step(r, &state, &output, [Some(&state), None], &table, &step));
    refused("threshold", |r| scheduler_step(r, &state, &output, [None, Some(&state)], &table, &step));
    refused("step", |r| scheduler_step(r, &state, &output, [None; 2], &table, &tensor(&[1], F32)));
    let own = [&state, &table, &step];
    refused("state", |r| scale_model_input(r, own, None, [1, 2, 2, 4], 2, F16));
    refused("beside", |r| scale_model_input(r, own, Some(&tensor(&[1, 2, 3, 5], F32)), [1, 2, 2, 3], 2, F16));
    refused("beside", |r| scale_model_input(r, own, Some(&tensor(&[1, 2, 2, 5], F16)), [1, 2, 2, 3], 2, F16));
    let beside = tensor(&[2, 1, 3, 5], F32);
    refused("beside", |r| scale_model_input(r, own, Some(&beside), [2, 1, 2, 3], 2, F16));
    let (clean, mask, levels) =
        (tensor(&[1, 2, 2, 3], F32), tensor(&[1, 2, 2, 1], F32), tensor(&[3, 2], F32));
    let blend = |r: &mut _, state: &_, clean: &_, mask: &_, levels: &_, step: &_| {
        blend_outside(r, state, [clean, &tensor(&[1, 2, 2, 3], F32), mask], levels, step)
    };
    refused("state", |r| blend(r, &tensor(&[2, 11], F32), &clean, &mask, &levels, &step));
    refused("noise", |r| blend(r, &state, &tensor(&[1, 2, 3, 2], F32), &mask, &levels, &step));
    refused("mask", |r| blend(r, &state, &clean, &clean, &levels, &step));
    refused("levels", |r| blend(r, &state, &clean, &mask, &clean, &step));
    refused("step", |r| blend(r, &state, &clean, &mask, &levels, &tensor(&[1], F32)));
}

#[test]
fn frequencies_fall_from_one() {
    let found = frequencies(320, 0.0);
    assert_eq!(found.len(), 160, "one for each pair");
    assert!((found[0] - 1.0).abs() < f32::EPSILON, "the first is one");
    assert!(found.windows(2).all(|pair| pair[1] < pair[0]), "they fall");
    let shifted = frequencies(320, 1.0);
    assert!((shifted[159] - 1e-4).abs() < 1e-10, "shifted by one, the last is 1 / 10000");
}
