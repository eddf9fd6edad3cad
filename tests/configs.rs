//! Which `config.json` files are accepted, and what is said about the others.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::path::PathBuf;

use deepcache::kernels::activation::Activation;
use deepcache::models::clip::ClipConfig;
use deepcache::models::unet::UNetConfig;
use deepcache::models::vae::VaeConfig;
use deepcache::{Error, Result};
use serde_json::{Value, json};

/// As Stable Diffusion 1 has it, with few channels.
fn unet() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "attention_head_dim": 4, "block_out_channels": [16, 32, 32, 48], "center_input_sample": false,
        "cross_attention_dim": 32, "downsample_padding": 1, "flip_sin_to_cos": true, "freq_shift": 0,
        "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 8, "out_channels": 4, "sample_size": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    })
}

/// Every key that diffusers 0.42 writes beyond those.
fn recent_unet() -> Value {
    let more = json!({
        "addition_embed_type": null, "addition_embed_type_num_heads": 64, "addition_time_embed_dim": null,
        "attention_type": "default", "class_embed_type": null, "class_embeddings_concat": false,
        "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_norm": null, "dropout": 0.0,
        "dual_cross_attention": false, "encoder_hid_dim": null, "encoder_hid_dim_type": null,
        "mid_block_only_cross_attention": null, "mid_block_type": "UNetMidBlock2DCrossAttn",
        "num_attention_heads": null, "num_class_embeds": null, "only_cross_attention": false,
        "projection_class_embeddings_input_dim": null, "resnet_out_scale_factor": 1.0,
        "resnet_skip_time_act": false, "resnet_time_scale_shift": "default",
        "reverse_transformer_layers_per_block": null, "time_cond_proj_dim": null,
        "time_embedding_act_fn": null, "time_embedding_dim": null, "time_embedding_type": "positional",
        "timestep_post_act": null, "transformer_layers_per_block": 1, "upcast_attention": false,
        "use_linear_projection": false,
    });
    with(unet(), &more)
}

fn vae() -> Value {
    json!({
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.42.1", "act_fn": "silu",
        "block_out_channels": [16, 32], "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
        "force_upcast": true, "in_channels": 3, "latent_channels": 4, "latents_mean": null, "latents_std": null,
        "layers_per_block": 2, "mid_block_add_attention": true, "norm_num_groups": 4, "out_channels": 3,
        "sample_size": 128, "scaling_factor": 0.13025, "shift_factor": null,
        "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"], "use_post_quant_conv": true,
        "use_quant_conv": true,
    })
}

fn clip() -> Value {
    json!({
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
        "eos_token_id": 2, "hidden_act": "quick_gelu", "hidden_size": 32, "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": 72, "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 4,
        "num_hidden_layers": 3, "pad_token_id": 1, "projection_dim": 32, "torch_dtype": "float32",
        "transformers_version": "4.27.0", "vocab_size": 819,
    })
}

/// The entries of `changes` replace those of `config`.
fn with(mut config: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn saved<C>(text: &str, read: fn(PathBuf) -> Result<C>) -> Result<C> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    std::fs::write(&path, text).unwrap();
    read(path)
}

fn read_unet(config: &Value) -> Result<UNetConfig> {
    saved(&config.to_string(), UNetConfig::from_file)
}

fn read_vae(config: &Value) -> Result<VaeConfig> {
    saved(&config.to_string(), VaeConfig::from_file)
}

fn read_clip(config: &Value) -> Result<ClipConfig> {
    saved(&config.to_string(), ClipConfig::from_file)
}

/// Checks that a change of one key is refused with the file, the key and the words.
fn refuses<C: std::fmt::Debug>(read: fn(&Value) -> Result<C>, config: &Value, cases: &[(&str, Value, &str)]) {
    for (key, value, words) in cases {
        let changed = with(config.clone(), &json!({ *key: value }));
        let error = read(&changed).expect_err(&format!("{key} = {value} was accepted"));
        assert!(matches!(error, Error::Config { .. }), "{key} = {value}: wrong kind of error {error:?}");
        let message = error.to_string();
        for part in ["config.json: key \"", words] {
            assert!(message.contains(part), "{key} = {value}: \"{message}\" does not say \"{part}\"");
        }
        assert!(message.contains(key), "{key} = {value}: \"{message}\" does not name the key");
    }
}

#[test]
fn the_unet_of_stable_diffusion_1_is_accepted() {
    let config = read_unet(&unet()).unwrap();
    assert_eq!(config, read_unet(&recent_unet()).unwrap(), "writing out the defaults changes the network");
    assert_eq!(config.block_out_channels, [16, 32, 32, 48], "channels");
    assert_eq!(config.heads, [4, 4, 4, 4], "heads");
    assert_eq!(config.down_attention, [true, true, true, false], "attention on the way down");
    assert_eq!(config.up_attention, [true, true, true, false], "attention on the way up, by level");
    assert_eq!(config.skip_count(), 12, "skips");
    assert_eq!(
        config.skip_channels(),
        [16, 16, 16, 16, 32, 32, 32, 32, 32, 32, 48, 48],
        "channels of the skips"
    );
    assert_eq!(config.time_embedding_channels, 64, "time embedding");
    assert_eq!(config.head_size(3), 12, "head size");
    assert_eq!(config.downsampling(), 8, "downsampling");
    assert_eq!(config.sample_size, Some([16, 16]), "sample size");
    assert!(config.flip_sin_to_cos, "flags");
}

#[test]
fn unet_variants_are_honoured() {
    let changes = json!({
        "attention_head_dim": [2, 4, 4, 6], "use_linear_projection": true, "upcast_attention": true,
        "only_cross_attention": [false, false, false, false], "transformer_layers_per_block": [1, 1, 1, 1],
        "sample_size": [8, 24], "downsample_padding": 0, "resnet_out_scale_factor": 1, "decay": 0.9999,
        "mid_block_scale_factor": 1.0, "time_embedding_dim": 64, "_name_or_path": "a/b",
    });
    let config = read_unet(&with(unet(), &changes)).unwrap();
    assert_eq!(config.heads, [2, 4, 4, 6], "heads");
    assert_eq!(config.sample_size, Some([8, 24]), "sample size");
    assert_eq!(config.downsample_padding, 0, "padding");
    let named = read_unet(&with(unet(), &json!({"num_attention_heads": 2}))).unwrap();
    assert_eq!(named.heads, [2; 4], "heads under their right name");
    let short = json!({
        "block_out_channels": [8, 16], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"], "layers_per_block": [1, 1],
        "sample_size": null, "upcast_attention": null,
    });
    let config = read_unet(&with(unet(), &short)).unwrap();
    assert_eq!((config.skip_count(), config.skip_channels()), (4, vec![8, 8, 8, 16]), "skips of two levels");
    assert_eq!(config.up_attention, [false, true], "attention on the way up, by level");
    assert_eq!(config.sample_size, None, "sample size");
}

#[test]
fn absent_keys_have_the_defaults_of_diffusers() {
    let config = saved("{}", UNetConfig::from_file).unwrap();
    assert_eq!(config.block_out_channels, [320, 640, 1280, 1280], "channels");
    assert_eq!(
        (config.heads[0], config.cross_attention_dim, config.norm_num_groups),
        (8, Some(1280), 32),
        "sizes"
    );
    let config = saved("{}", VaeConfig::from_file).unwrap();
    assert_eq!((config.block_out_channels, config.layers_per_block), (vec![64], 1), "sizes");
    let config = saved("{}", ClipConfig::from_file).unwrap();
    assert_eq!(
        (config.vocab_size, config.hidden_size, config.eos_token_id),
        (49_408, 512, Some(49_407)),
        "sizes"
    );
}

#[test]
fn unets_that_would_compute_something_else_are_refused() {
    let cases = [
        ("_class_name", json!("UNet3DModel"), "found \"UNet3DModel\", supported is \"UNet2DConditionModel\""),
        ("layers_per_block", json!("two"), "found \"two\", expected a positive integer"),
        ("layers_per_block", json!(0), "found 0, expected a positive integer"),
        ("layers_per_block", json!(-2), "found -2, expected a positive integer"),
        ("layers_per_block", json!(2.5), "found 2.5, expected a positive integer"),
        ("layers_per_block", json!(null), "found null, expected a positive integer"),
        ("layers_per_block", json!([2, 2]), "found 2 entries, expected 4"),
        ("layers_per_block", json!([2, 2, 1, 2]), "the same number"),
        ("layers_per_block", json!(1000), "at most 64"),
        ("block_out_channels", json!(320), "found 320, expected a list"),
        ("block_out_channels", json!([16]), "found 1 levels, supported are 2 to 6"),
        ("block_out_channels", json!([8, 8, 8, 8, 8, 8, 8]), "found 7 levels"),
        ("block_out_channels", json!([16, 0, 32, 48]), "found 0, expected a positive integer"),
        ("block_out_channels", json!([16, 131072, 32, 48]), "found 131072, supported are at most 65536"),
        ("norm_num_groups", json!(5), "found 5, which does not divide 16 channels"),
        ("norm_num_groups", json!(null), "found null"),
        ("attention_head_dim", json!(5), "5 heads, which do not divide 16 channels"),
        ("attention_head_dim", json!([4, 4]), "found 2 entries, expected 4"),
        ("attention_head_dim", json!({}), "found {}, expected a positive integer"),
        ("cross_attention_dim", json!([32, 32, 64, 32]), "the same number for every level"),
        ("cross_attention_dim", json!(null), "found null"),
        ("down_block_types", json!(["DownBlock2D"]), "found 1 entries, expected 4"),
        (
            "down_block_types",
            json!(["AttnDownBlock2D"]),
            "found \"AttnDownBlock2D\", supported are DownBlock2D and",
        ),
        ("up_block_types", json!(["UpBlock2D", 3]), "found 3, supported are UpBlock2D and"),
        ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn"), "supported is UNetMidBlock2DCrossAttn"),
        ("mid_block_type", json!(null), "found null"),
        ("act_fn", json!("gelu"), "supported is \"silu\""),
        ("center_input_sample", json!(true), "found true, supported is false"),
        ("flip_sin_to_cos", json!("yes"), "expected true or false"),
        ("freq_shift", json!(8), "less than 8"),
        ("downsample_padding", json!(2), "supported are 0 and 1"),
        ("mid_block_scale_factor", json!(1.4), "found 1.4, supported is 1"),
        ("resnet_out_scale_factor", json!(0.7), "found 0.7"),
        ("norm_eps", json!(0), "above 0 and below 1"),
        ("norm_eps", json!("small"), "expected a number"),
        ("only_cross_attention", json!(true), "found true"),
        ("only_cross_attention", json!([true, false, false, false]), "supported is false"),
        ("dual_cross_attention", json!(true), "found true"),
        ("class_embed_type", json!("timestep"), "supported is null"),
        ("num_class_embeds", json!(1000), "supported is null"),
        ("addition_embed_type", json!("image"), "supported is \"text_time\""),
        ("addition_time_embed_dim", json!(256), "supported is null"),
        ("projection_class_embeddings_input_dim", json!(2816), "supported is null"),
        ("encoder_hid_dim_type", json!("image_proj"), "supported is null"),
        ("time_cond_proj_dim", json!(255), "supported are even numbers"),
        ("time_embedding_type", json!("fourier"), "supported is \"positional\""),
        ("time_embedding_dim", json!(65), "supported is 64"),
        ("resnet_time_scale_shift", json!("scale_shift"), "supported is \"default\""),
        ("transformer_layers_per_block", json!([1, 2]), "found 2 entries, expected 4"),
        ("transformer_layers_per_block", json!([[1], 1, 1, 1]), "expected a positive integer"),
        ("transformer_layers_per_block", json!(65), "at most 64"),
        ("reverse_transformer_layers_per_block", json!([1, 1, 1, 1]), "supported is null"),
        ("conv_in_kernel", json!(5), "supported is 3"),
        ("attention_type", json!("gated"), "supported is \"default\""),
        ("cross_attention_norm", json!("layer_norm"), "supported is null"),
        ("sample_size", json!([16]), "found 1 entries, expected 2"),
        ("quantization_config", json!({"bits": 4}), "this key is not known"),
        ("in_channels", json!(1e9), "expected a positive integer"),
    ];
    refuses(read_unet, &unet(), &cases);
}

/// As SDXL has it, with few channels.
fn sdxl() -> Value {
    let changes = json!({
        "block_out_channels": [24, 32, 40], "attention_head_dim": [3, 4, 5], "cross_attention_dim": 56,
        "norm_num_groups": 4, "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 3], "addition_embed_type": "text_time",
        "addition_time_embed_dim": 16, "projection_class_embeddings_input_dim": 136,
    });
    with(unet(), &changes)
}

#[test]
fn the_unet_of_sdxl_is_accepted() {
    let config = read_unet(&sdxl()).unwrap();
    assert_eq!(config.transformer_layers, [1, 2, 3], "transformer blocks");
    assert_eq!(config.heads, [3, 4, 5], "heads");
    assert_eq!(config.down_attention, [false, true, true], "attention on the way down");
    assert_eq!(config.up_attention, [false, true, true], "attention on the way up, by level");
    let text_time = config.text_time.unwrap();
    assert_eq!((text_time.time_channels, text_time.input_channels), (16, 136), "text and sizes");
    let cases = [
        ("addition_embed_type", json!("text_image"), "supported is \"text_time\""),
        ("addition_time_embed_dim", json!("wide"), "expected a positive integer"),
        ("addition_time_embed_dim", json!(null), "expected a positive integer"),
        ("addition_time_embed_dim", json!(15), "supported are even numbers"),
        ("addition_time_embed_dim", json!(40), "found 40, so 200 channels of sizes, of 136"),
        ("projection_class_embeddings_input_dim", json!(null), "expected a positive integer"),
        ("projection_class_embeddings_input_dim", json!(-1), "expected a positive integer"),
    ];
    refuses(read_unet, &sdxl(), &cases);
}

#[test]
fn autoencoders_are_read_or_refused() {
    let config = read_vae(&vae()).unwrap();
    assert_eq!((config.levels(), config.upsampling()), (2, 2), "levels");
    assert_eq!(config.scaling_factor, 0.13025, "scaling factor");
    assert!(config.mid_block_add_attention && config.use_quant_conv && config.use_post_quant_conv, "flags");
    assert!(config.force_upcast, "storage");
    let cases = [
        ("_class_name", json!("VQModel"), "supported is \"AutoencoderKL\""),
        ("act_fn", json!("relu"), "supported is \"silu\""),
        ("shift_factor", json!(0.1), "supported is null"),
        ("latents_mean", json!([0.0]), "supported is null"),
        ("latents_std", json!([1.0]), "supported is null"),
        (
            "down_block_types",
            json!(["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
            "AttnDownEncoderBlock2D",
        ),
        ("up_block_types", json!(["UpDecoderBlock2D"]), "found 1 entries, expected 2"),
        ("scaling_factor", json!(0), "expected a positive number"),
        ("scaling_factor", json!(null), "found null, expected a number"),
        ("norm_num_groups", json!(3), "does not divide 16 channels"),
        ("latent_channels", json!(0), "expected a positive integer"),
        ("use_quant_conv", json!(1), "expected true or false"),
        ("force_upcast", json!("yes"), "expected true or false"),
        ("vq_embed_dim", json!(4), "this key is not known"),
    ];
    refuses(read_vae, &vae(), &cases);
}

#[test]
fn heads_beyond_the_kernels_are_refused() {
    let wide = with(unet(), &json!({"block_out_channels": [16, 32, 32, 4800]}));
    let message = read_unet(&wide).unwrap_err().to_string();
    assert!(message.contains("1200 values per head; supported are 1 to 1024"), "{message}");
}

#[test]
fn text_encoders_are_read_or_refused() {
    let config = read_clip(&clip()).unwrap();
    assert_eq!(config.hidden_act, Activation::QuickGelu, "activation");
    assert_eq!(
        (config.head_size(), config.max_position_embeddings, config.num_hidden_layers),
        (8, 77, 3),
        "sizes"
    );
    assert_eq!(
        (config.bos_token_id, config.eos_token_id, config.pad_token_id),
        (Some(0), Some(2), Some(1)),
        "tokens"
    );
    let other = read_clip(&with(clip(), &json!({"hidden_act": "gelu", "pad_token_id": null}))).unwrap();
    assert_eq!((other.hidden_act, other.pad_token_id), (Activation::Gelu, None), "other activation");
    let cases = [
        ("model_type", json!("t5"), "supported is \"clip_text_model\""),
        ("hidden_act", json!("gelu_new"), "found \"gelu_new\", supported is quick_gelu or gelu"),
        ("hidden_size", json!(30), "4 heads, which do not divide 30 channels"),
        ("num_attention_heads", json!(64), "64 heads, which do not divide 32 channels"),
        ("num_hidden_layers", json!(0), "expected a positive integer"),
        ("vocab_size", json!(1e12), "expected a positive integer"),
        ("vocab_size", json!(4_000_000), "at most 1048576"),
        ("max_position_embeddings", json!(100_000), "at most 4096"),
        ("layer_norm_eps", json!(-1e-5), "above 0 and below 1"),
        ("eos_token_id", json!([1, 2]), "expected a token id"),
        ("bos_token_id", json!(-1), "expected a token id"),
        ("rope_theta", json!(10000), "this key is not known"),
    ];
    for (key, value, words) in cases {
        let message = read_clip(&with(clip(), &json!({ key: value }))).unwrap_err().to_string();
        assert!(message.contains(words), "{key}: \"{message}\" does not say \"{words}\"");
    }
}

#[test]
fn files_that_are_no_configurations_are_explained() {
    for (text, words) in [("", "is not JSON"), ("{", "is not JSON"), ("[]", "is not a JSON object")] {
        let message = saved(text, UNetConfig::from_file).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains(words), "\"{text}\": {message}");
    }
    let error = UNetConfig::from_file("no/such/config.json").unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "wrong kind of error: {error:?}");
}
