//! Single calls of the networks of Stable Diffusion 2 against diffusers and transformers: every stage that the reference recorded.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program that prints its errors")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "values fit their storage")]

#[path = "support/judge.rs"]
mod judge;
#[path = "support/network.rs"]
mod network;
#[path = "support/networks.rs"]
mod networks;
mod support;

use deepcache::tensor::ElementType;
use networks::{calls, decode_call, encode_call, text_call, unet_call};

calls!(unet_call of "sd2":
    unet_with_all_stages = "unet_b1_t261_stages",
    unet_with_both_guidance_halves = "unet_cfg2_t721",
    unet_at_the_first_timestep = "unet_b1_t1",
    unet_at_the_last_timestep = "unet_b1_t981",
    unet_between_two_timesteps = "unet_b1_t500.25",
    unet_with_odd_sizes = "unet_odd_t401",
    unet_with_a_larger_picture = "unet_large_t301",
);
calls!(text_call of "sd2": text_encoder = "text");
calls!(decode_call of "sd2": vae_decoder = "vae_decode", vae_decoder_with_odd_sizes = "vae_decode_odd");
calls!(encode_call of "sd2": vae_encoder = "vae_encode");
