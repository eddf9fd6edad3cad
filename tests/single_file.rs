//! Stable Diffusion in one file: what is recognised, replaced, and refused. Nothing here runs.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/checkpoints.rs"]
mod checkpoints;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use checkpoints::{write, write_zeros};
use deepcache::models::clip::ClipConfig;
use deepcache::models::unet::UNetConfig;
use deepcache::models::vae::VaeConfig;
use deepcache::weights::{
    Checkpoint, CheckpointKind, ModelFiles, Replacements, SchedulerSource, StableDiffusionFiles,
    names_latent_diffusion, originals_latent_diffusion,
};
use deepcache::{Error, Result};
use safetensors::Dtype;
use support::repository;

const UNET: &str = "model.diffusion_model.input_blocks.0.0.weight";
const TEXT: &str = "cond_stage_model.transformer.text_model.final_layer_norm.bias";
const VAE: &str = "first_stage_model.decoder.conv_in.weight";

fn refused(name: &str, outcome: Result<impl Sized>, words: &[&str]) {
    let Err(error) = outcome else { panic!("{name}: was accepted") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{name}: \"{message}\" does not say \"{word}\"");
    }
    assert!(!message.contains('\n') && message.len() < 1000, "{name}: \"{message}\" is long");
}

fn stable_diffusion(files: ModelFiles) -> StableDiffusionFiles {
    match files {
        ModelFiles::StableDiffusion(files) => *files,
        other => panic!("{other:?} is another kind"),
    }
}

/// A folder with a whole checkpoint that has the least of tensors.
fn whole() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_zeros(&path, &[(UNET, &[2, 4, 1, 1]), (TEXT, &[2]), (VAE, &[2, 4, 1, 1])]);
    (folder, path)
}

#[test]
fn kinds_are_told_by_tensors() {
    use CheckpointKind::*;
    let unet = |inputs: usize| vec![(UNET, vec![2, inputs, 1, 1])];
    let with = |inputs, name| [unet(inputs), vec![(name, vec![2])]].concat();
    let one = |name| vec![(name, vec![2])];
    let block = |leaf| (leaf, vec![2, 2, 3, 3]);
    let mut tiny = vec![("t.1.weight", vec![2, 4, 3, 3]), ("t.6.weight", vec![3, 2, 3, 3])];
    tiny.extend(["t.3.conv.0.weight", "t.3.conv.2.weight", "t.3.conv.4.weight"].map(block));
    let rows = [
        (StableDiffusion1, with(4, TEXT)),
        (StableDiffusion1, with(4, "cond_stage_model.transformer.embeddings.token_embedding.weight")),
        (StableDiffusion2, with(4, "cond_stage_model.model.ln_final.weight")),
        (StableDiffusionXl, with(4, "conditioner.embedders.1.model.ln_final.weight")),
        (StableDiffusionXlRefiner, with(4, "conditioner.embedders.0.model.ln_final.weight")),
        (StableDiffusion1, with(9, TEXT)),
        (StableDiffusion2, with(9, "cond_stage_model.model.ln_final.weight")),
        (InstructPix2Pix, with(8, TEXT)),
        (Upscaler, with(7, "cond_stage_model.model.ln_final.weight")),
        (Depth, with(5, "cond_stage_model.model.ln_final.weight")),
        (OtherInputs, with(6, TEXT)),
        (LatentDiffusionOnText, with(4, "cond_stage_model.transformer.token_emb.weight")),
        (ClassConditional, with(3, "cond_stage_model.embedding.weight")),
        (UNet, unet(4)),
        (Transformer, one("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight")),
        (OriginalDdpm, one("module.temb.dense.0.weight")),
        (DiffusersUNet, [one("down_blocks.0.x"), one("time_embedding.linear_1.bias")].concat()),
        (Vae, one("decoder.up.0.block.0.norm1.weight")),
        (TinyAutoencoder, tiny),
        (Vae, one("decoder.up_blocks.0.resnets.0.norm1.weight")),
        (TextEncoder, one("text_model.final_layer_norm.bias")),
        (Lora, one("lora_unet_mid_block.lora_down.weight")),
        (ControlNet, one("control_model.time_embed.0.bias")),
        (TextualInversion, one("emb_params")),
        (Scaled8Bit, [with(4, TEXT), one("scaled_fp8")].concat()),
    ];
    let folder = tempfile::tempdir().unwrap();
    // The name of the file says nothing.
    let path = folder.path().join("sd_xl_inpainting_v2-1.safetensors");
    for (kind, tensors) in rows {
        let tensors: Vec<(&str, &[usize])> =
            tensors.iter().map(|(name, shape)| (*name, shape.as_slice())).collect();
        write_zeros(&path, &tensors);
        let checkpoint = Checkpoint::open(std::slice::from_ref(&path)).unwrap();
        assert_eq!(CheckpointKind::of(&checkpoint), Some(kind), "{tensors:?}");
        if !matches!(
            kind,
            StableDiffusion1
                | StableDiffusion2
                | StableDiffusionXl
                | StableDiffusionXlRefiner
                | ClassConditional
                | OriginalDdpm
        ) {
            refused(kind.name(), ModelFiles::open(&path), &["holds", kind.name()]);
        }
    }
    write_zeros(&path, &[("x", &[1])]);
    refused("unknown", ModelFiles::open(&path), &["not a model", "Stable Diffusion 1", "temb.dense"]);
}

#[test]
fn one_file_is_a_whole_model_whatever_its_extension() {
    let (folder, path) = whole();
    let other = folder.path().join("model.ckpt");
    fs::rename(&path, &other).unwrap();
    let found = stable_diffusion(ModelFiles::open(&other).unwrap());
    for network in [&found.unet, &found.vae, &found.text_encoder] {
        assert_eq!((&network.config, &network.weights[..]), (&None, &[other.clone()][..]), "its files");
    }
    assert_eq!(found.tokenizer, None, "nothing is beside it");
    let released = SchedulerSource::Released {
        kind: CheckpointKind::StableDiffusion1,
        velocity: false,
        zero_terminal_snr: false,
    };
    assert_eq!((found.scheduler, found.warnings), (released, vec![]), "nothing is beside it");
}

#[test]
fn a_directory_says_what_one_file_cannot() {
    let (folder, path) = whole();
    let config = folder.path().join("config");
    let open = || {
        let config = Some(config.clone());
        ModelFiles::open_with(&path, &Replacements { config, vae: None })
    };
    refused("nowhere", open(), &["config", "does not exist", "unet/config.json"]);
    fs::create_dir(&config).unwrap();
    refused("empty", open(), &["config", "holds no configuration", "unet/config.json"]);
    fs::create_dir(config.join("tokenizer")).unwrap();
    refused("no words", open(), &["tokenizer", "neither tokenizer.json nor vocab.json"]);
    fs::write(config.join("tokenizer/tokenizer.json"), "{}").unwrap();
    for part in ["unet/config.json", "scheduler/scheduler_config.json"] {
        fs::create_dir(config.join(part).parent().unwrap()).unwrap();
        fs::write(config.join(part), "{}").unwrap();
    }
    let found = stable_diffusion(open().unwrap());
    assert_eq!(found.unet.config, Some(config.join("unet/config.json")), "given");
    assert_eq!(found.text_encoder.config, None, "not given");
    let file = config.join("scheduler/scheduler_config.json");
    assert_eq!(found.scheduler, SchedulerSource::File(file), "given");
    assert_eq!(found.tokenizer, Some(config.join("tokenizer")), "given");

    let replacements = Replacements { config: Some(config), vae: None };
    let outcome = ModelFiles::open_with(repository("assets/tiny"), &replacements);
    refused("directory", outcome, &["config", "Stable Diffusion in one file", "beside it"]);
}

#[test]
fn another_vae_takes_the_place_of_the_models() {
    let (folder, path) = whole();
    let root = folder.path();
    let vae = |path: &Path, vae: &Path| {
        let replacements = Replacements { config: None, vae: Some(vae.to_owned()) };
        ModelFiles::open_with(path, &replacements).map(stable_diffusion).map(|files| files.vae)
    };
    let file = root.join("vae/other.safetensors");
    write_zeros(&file, &[("decoder.conv_in.weight", &[1, 4, 1, 1])]);
    assert_eq!(vae(&path, &file).unwrap().weights, std::slice::from_ref(&file), "a file");
    assert_eq!(
        vae(&path, file.parent().unwrap()).unwrap().weights,
        std::slice::from_ref(&file),
        "a folder with a file"
    );
    fs::write(root.join("vae/config.json"), r#"{"_class_name": "UNet2DModel"}"#).unwrap();
    assert_eq!(vae(&path, &file).unwrap().config, None, "the configuration of something else");
    fs::write(root.join("vae/config.json"), r#"{"_class_name": "AutoencoderKL"}"#).unwrap();
    assert_eq!(vae(&path, &file).unwrap().config, Some(root.join("vae/config.json")), "its configuration");

    let tiny = repository("assets/tiny");
    let own = tiny.join("vae/diffusion_pytorch_model.safetensors");
    assert_eq!(vae(&path, &tiny).unwrap().weights, std::slice::from_ref(&own), "a whole directory");
    assert_eq!(
        vae(&path, &tiny.join("vae")).unwrap().weights,
        std::slice::from_ref(&own),
        "the VAE of a directory"
    );
    let found = vae(&tiny, &path).unwrap();
    assert_eq!(
        (found.weights, found.config),
        (vec![path.clone()], Some(tiny.join("vae/config.json"))),
        "fallback"
    );

    refused("nowhere", vae(&path, &root.join("none")), &["vae", "none", "does not exist"]);
    fs::create_dir(root.join("empty")).unwrap();
    refused("empty", vae(&path, &root.join("empty")), &["vae", "holds no VAE"]);
    let ddpm = repository("tests/goldens/ddpm-cifar/model");
    refused("pixels", vae(&ddpm, &file), &["vae", "is not a Stable Diffusion model"]);

    write_zeros(&path, &[(UNET, &[2, 4, 1, 1]), (TEXT, &[2])]);
    let outcome = ModelFiles::open(&path);
    assert!(matches!(&outcome, Err(Error::Option { option, .. }) if option == "vae"), "{outcome:?}");
    refused("no VAE", outcome, &["model.safetensors", "holds no VAE"]);
    assert_eq!(vae(&path, &file).unwrap().weights, [file], "a VAE for a model without");
}

#[test]
fn pickles_are_refused_by_their_contents() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["is a PyTorch pickle", "can run programs", "save_file", "safetensors"];
    let archive = b"PK\x03\x04\0\0\0\0archive/data.pkl\x80\x02}q\0.";
    let old = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";
    for name in ["model.ckpt", "model.safetensors", "model.pt", "model"] {
        let path = folder.path().join(name);
        for bytes in [&archive[..], &old[..]] {
            fs::write(&path, bytes).unwrap();
            refused(name, ModelFiles::open(&path), &words);
            refused(name, Checkpoint::open_vae(std::slice::from_ref(&path)), &words);
        }
    }
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    refused("folder", ModelFiles::open(folder.path()), &words);
    let zip = folder.path().join("model.safetensors");
    fs::write(&zip, b"PK\x03\x04................pictures/cat.png").unwrap();
    refused("zip", ModelFiles::open(&zip), &["zip archive"]);
}

#[test]
fn shapes_tell_the_configuration() {
    let file = [repository("tests/goldens/single/model.safetensors")];
    let unet = UNetConfig::from_tensors(&Checkpoint::open_unet(&file).unwrap()).unwrap();
    assert_eq!((unet.block_out_channels, unet.layers_per_block), (vec![32, 64], 1), "blocks");
    assert_eq!((unet.down_attention, unet.up_attention), (vec![true, false], vec![true, false]), "attention");
    assert_eq!((unet.in_channels, unet.out_channels, unet.cross_attention_dim), (4, 4, Some(64)), "ends");
    let vae = VaeConfig::from_tensors(&Checkpoint::open_vae(&file).unwrap()).unwrap();
    assert_eq!(
        (vae.block_out_channels, vae.layers_per_block, vae.latent_channels),
        (vec![32, 32], 1, 4),
        "VAE"
    );
    assert!(vae.use_post_quant_conv && vae.mid_block_add_attention, "VAE");
    let clip = ClipConfig::from_tensors(&Checkpoint::open_text_encoder(&file).unwrap()).unwrap();
    let found = [clip.vocab_size, clip.hidden_size, clip.intermediate_size, clip.num_hidden_layers];
    assert_eq!((found, clip.num_attention_heads), ([819, 64, 96, 2], 1), "text encoder");

    let odd = [repository("tests/goldens/sd1-single/model.safetensors")];
    let words =
        ["16 channels", "32 groups", "--config", "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"];
    refused("groups", UNetConfig::from_tensors(&Checkpoint::open_unet(&odd).unwrap()), &words);
    let words = ["32 channels", "heads of 64", "cond_stage_model.transformer.text_model.embeddings"];
    refused("heads", ClipConfig::from_tensors(&Checkpoint::open_text_encoder(&odd).unwrap()), &words);
}

#[test]
fn names_lead_there_and_back() {
    let file = Checkpoint::open(&[repository("tests/goldens/sd1-single/model.safetensors")]).unwrap();
    let (mut unet, mut vae) = (0, 0);
    for name in file.names() {
        if let Some(today) = names_latent_diffusion::unet(name, 2) {
            let back = originals_latent_diffusion::unet(&today, 2, &[true, true, true, false]);
            assert_eq!(back.as_deref(), Some(name), "through {today}");
            unet += 1;
        }
        let vaes = name.strip_prefix("first_stage_model.");
        if let Some((name, today)) =
            vaes.and_then(|name| Some((name, names_latent_diffusion::autoencoder(name, 4)?)))
        {
            assert_eq!(
                originals_latent_diffusion::autoencoder(&today, 4).as_deref(),
                Some(name),
                "through {today}"
            );
            vae += 1;
        }
    }
    let count = |start: &str| file.names().filter(|name| name.starts_with(start)).count();
    assert_eq!(
        [unet, vae],
        [count("model.diffusion_model."), count("first_stage_model.")],
        "names have no other"
    );
}

#[test]
fn what_stable_diffusion_2_predicts_is_told_by_a_norm_or_a_mark() {
    const ENCODER: &str = "cond_stage_model.model.ln_final.weight";
    const NORM: &str = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let zeros = |name: &str, shape: &[usize]| {
        (name.to_owned(), Dtype::F16, shape.to_vec(), vec![0; 2 * shape.iter().product::<usize>()])
    };
    let spread = |value: f32| -> Vec<u8> {
        [value, -value].iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
    };
    let model = || vec![zeros(UNET, &[2, 4, 1, 1]), zeros(ENCODER, &[2]), zeros(VAE, &[2, 4, 1, 1])];
    for (name, more, expected, warned) in [
        ("no norm", None, [false, false], Some("(epsilon)")),
        ("narrow", Some((NORM, vec![2], spread(0.08))), [false, false], Some("(epsilon)")),
        ("wide", Some((NORM, vec![2], spread(0.1))), [true, false], Some("(v_prediction)")),
        ("marked", Some(("v_pred", vec![0], vec![])), [true, false], None),
        ("stretched", Some(("ztsnr", vec![0], vec![])), [false, true], Some("(epsilon)")),
    ] {
        let more = more.map(|(name, shape, bytes)| (name.to_owned(), Dtype::F16, shape, bytes));
        write(&path, &model().into_iter().chain(more).collect::<Vec<_>>());
        let found = stable_diffusion(ModelFiles::open(&path).unwrap());
        let [velocity, zero_terminal_snr] = expected;
        let kind = CheckpointKind::StableDiffusion2;
        let source = SchedulerSource::Released { kind, velocity, zero_terminal_snr };
        assert_eq!(found.scheduler, source, "{name}");
        assert_eq!(found.warnings.len(), usize::from(warned.is_some()), "{name}: {:?}", found.warnings);
        if let Some(word) = warned {
            assert!(found.warnings[0].contains(word), "{name}: {:?}", found.warnings);
        }
    }
}
