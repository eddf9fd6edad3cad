//! The program `generate` on Stable Diffusion in one file.

#[path = "support/checkpoints.rs"]
mod checkpoints;
#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;

use checkpoints::{changed, write, write_zeros};
use program::{command_of, failed, names, succeeded};
use support::{Goldens, json, repository};

const SINGLE: &str = "tests/goldens/single";

#[test]
fn one_file_draws_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let cases = json("single/cases.json");
    let [prompt, negative] = ["prompt", "negative_prompt"].map(|key| cases[key].as_str().unwrap());
    let [model, config] = ["model.safetensors", "config"].map(|name| repository(SINGLE).join(name));
    // The name of a file says nothing: a VAE by itself, and the rest.
    let [vae, rest] = ["a.ckpt", "b.bin"].map(|name| folder.path().join(name));
    let is_vae = |name: &str| name.starts_with("first_stage_model.");
    write(&vae, &changed(&model, |stored| is_vae(&stored.0).then_some(stored)));
    write(&rest, &changed(&model, |stored| (!is_vae(&stored.0)).then_some(stored)));
    let [model, config, vae, rest] = [model, config, vae, rest].map(|path| path.to_str().unwrap().to_owned());
    let common = [
        prompt,
        "--negative-prompt",
        negative,
        "--config",
        &config,
        "--steps",
        "6",
        "--seed",
        "5",
        "--width",
        "32",
        "--height",
        "32",
        "--scheduler",
        "ddim",
        "--dtype",
        "f32",
        "--quiet",
    ];
    for (output, files) in [("one.png", vec![model.as_str()]), ("two.png", vec![&rest, "--vae", &vae])] {
        let arguments = [&common[..], &["--output", output, "--model"], &files].concat();
        succeeded(&command_of("generate", folder.path(), &arguments).output().unwrap());
        let picture = image::open(folder.path().join(output)).unwrap().into_rgb8();
        let expected = Goldens::open("single/golden/ddim.safetensors").values("out.image");
        let area = expected.len() / 3;
        let apart = picture.as_raw().iter().enumerate().map(|(index, &found)| {
            let value = expected[(index % 3) * area + index / 3];
            (f64::from(found) - (255.0 * (value / 2.0 + 0.5)).clamp(0.0, 255.0)).abs()
        });
        let apart = apart.fold(0.0, f64::max);
        assert!(apart < 2.5, "{output}: {apart} of 255");
    }
}

#[test]
fn what_is_not_one_model_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (unet, text) =
        ("model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.x");
    write_zeros(&path("bare.safetensors"), &[(unet, &[1, 4, 1, 1]), (text, &[1])]);
    write_zeros(&path("depth.safetensors"), &[(unet, &[1, 5, 1, 1]), (text, &[1])]);
    write_zeros(&path("xl.safetensors"), &[(unet, &[1, 4, 1, 1]), ("conditioner.embedders.0.x", &[1])]);
    fs::write(path("pickle.ckpt"), b"PK\x03\x04....archive/data.pkl").unwrap();
    let rows: [(&[&str], i32, &[&str]); 6] = [
        (&["bare.safetensors"], 2, &["--vae", "bare.safetensors holds no VAE"]),
        (&["bare.safetensors", "--vae", "none"], 2, &["--vae", "none does not exist"]),
        (
            &["bare.safetensors", "--config", "none"],
            2,
            &["--config", "none does not exist", "unet/config.json"],
        ),
        (&["depth.safetensors"], 1, &["depth-to-image model", "5 input channels", "not supported"]),
        // By its tensors a refiner, but not all of one.
        (&["xl.safetensors"], 2, &["--vae", "xl.safetensors holds no VAE"]),
        (&["pickle.ckpt"], 1, &["PyTorch pickle", "can run programs", "save_file"]),
    ];
    for (more, code, words) in rows {
        let arguments = [&["a lighthouse", "--quiet", "--model"], more].concat();
        let output = command_of("generate", folder.path(), &arguments).output().unwrap();
        failed(&more.join(" "), &output, code, words);
    }
    assert_eq!(names(folder.path()).len(), 4, "files were left");
}
