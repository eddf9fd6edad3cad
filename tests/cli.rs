//! The program `generate`, as a user or a script runs it: exit codes, messages, files.

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;
use std::process::Command;

use deepcache::pipelines::Latents;
use program::{command_of, failed, names, succeeded, text};
use serde_json::Value;

fn command(folder: &Path, arguments: &[&str]) -> Command {
    command_of("generate", folder, arguments)
}

/// A folder and the arguments of a run that takes little time.
const SHORT: [&str; 9] =
    ["a large red circle", "--steps", "1", "--width", "64", "--height", "64", "--scheduler", "ddim"];

fn short<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(more).copied().collect()
}

#[test]
fn values_that_are_no_values_are_refused_by_their_option() {
    let folder = tempfile::tempdir().unwrap();
    let rows: [(&[&str], &[&str]); 19] = [
        (&["x", "--cache-branch", "2"], &["--cache-interval"]),
        (&[], &["PROMPT", "--help"]),
        (&["x", "y"], &["unexpected", "'y'", "--help"]),
        (&["x", "--stpes", "3"], &["--stpes", "--steps"]),
        (&["x", "--steps", "many"], &["--steps", "'many'"]),
        (&["x", "--steps", "-1"], &["-1"]),
        (&["x", "--steps"], &["--steps", "value"]),
        (&["x", "--seed", "0.5"], &["--seed", "'0.5'"]),
        (&["x", "--scheduler", "plms"], &["--scheduler", "ddim", "pndm", "\"plms\""]),
        (&["x", "--dtype", "f8"], &["--dtype", "\"f8\"", "f16", "f32"]),
        (&["x", "--weights", "int4"], &["--weights", "\"int4\"", "dtype or int8"]),
        (&["x", "--output", "a", "--stats", "a"], &["--stats", "a is another output"]),
        (&["x", "--steps", "0"], &["--steps", "1 to 1000", "found 0"]),
        (&["x", "--width", "100"], &["--width", "100", "multiple of 8"]),
        (&["x", "--count", "0"], &["--count", "0", "1024"]),
        (&["x", "--guidance-scale", "NaN"], &["--guidance-scale", "NaN"]),
        (&["x", "--cache-interval", "0"], &["--cache-interval", "found 0"]),
        (&["x", "--cache-interval", "3", "--cache-branch", "12"], &["--cache-branch", "12", "0 to 11"]),
        (&["x", "--model", "no-such-model"], &["--model", "no-such-model", "does not exist"]),
    ];
    for (arguments, words) in rows {
        let mut arguments = arguments.to_vec();
        if !arguments.is_empty() {
            arguments.push("--quiet");
        }
        let output = command(folder.path(), &arguments).output().unwrap();
        failed(&arguments.join(" "), &output, 2, words);
    }
    assert_eq!(names(folder.path()), [""; 0], "files were left");
}

#[test]
fn what_is_not_there_or_cannot_be_written_is_said_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();
    fs::create_dir(folder.path().join("out-1.png")).unwrap();
    fs::write(folder.path().join("bad.safetensors"), "no latents").unwrap();
    let rows: [(&[&str], &[&str]); 8] = [
        (&["--output", "none/out.png"], &["none/out.png", "cannot write"]),
        (&["--output", "folder"], &["folder", "cannot write"]),
        (&["--count", "2"], &["out-1.png", "cannot write"]),
        (&["--stats", "none/stats.json"], &["none/stats.json", "cannot write"]),
        (&["--save-latents", "none/l.safetensors"], &["none/l.safetensors", "cannot write"]),
        (&["--latents", "none.safetensors"], &["none.safetensors", "cannot read"]),
        (&["--latents", "bad.safetensors"], &["bad.safetensors", "not a safetensors file"]),
        (&["--device", "no such adapter"], &["no such adapter", "there are: 0: "]),
    ];
    for (arguments, words) in rows {
        let output = command(folder.path(), &short(arguments)).output().unwrap();
        failed(&arguments.join(" "), &output, 1, words);
    }
    assert_eq!(names(folder.path()), ["bad.safetensors", "folder", "out-1.png"], "files were left");
}

#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter_it_says_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [short(&[]), vec!["--list-devices"]] {
        let mut command = command(folder.path(), &arguments);
        command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
        let output = command.output().unwrap();
        failed("no driver", &output, 1, &["no GPU adapter", "install", "mesa-vulkan-drivers"]);
    }
}

#[test]
fn help_names_every_option() {
    let output = command(Path::new("."), &["--help"]).output().unwrap();
    succeeded(&output);
    let help = text(&output.stdout);
    let options = "PROMPT --model --vae --config --negative-prompt --class-label --steps --guidance-scale --guidance-rescale \
        --scheduler --eta --sigmas --timestep-spacing --seed --rng --width --height --count --cache-interval \
        --cache-schedule --cache-branch --cache-threshold --cache-forecast --cache-warm-up --cache-profile \
        --cache-budget --cache-speedup --device --list-devices --dtype --output --latents --save-latents --stats \
        --profile --quiet --vae-tiling --low-memory --weights --plan --preview --preview-every --preview-vae --refiner \
        --refiner-start --aesthetic-score --negative-aesthetic-score --denoising-end --denoising-start \
        --stream-weights --vae-dtype";
    for option in options.split_whitespace() {
        assert!(help.contains(option), "{option} is not in:\n{help}");
    }
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
}

#[test]
fn devices_are_listed_one_a_line_without_a_prompt() {
    let output = command(Path::new("."), &["--list-devices"]).output().unwrap();
    succeeded(&output);
    for (index, line) in text(&output.stdout).lines().enumerate() {
        assert!(line.starts_with(&format!("{index}: ")) && line.contains("f16"), "{line}");
    }
}

#[test]
fn tuning_is_kept_used_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let mut command = command(folder.path(), &short(more));
        let output = command.env("DEEPCACHE_FOLDER", folder.path().join("kept")).output().unwrap();
        succeeded(&output);
        text(&output.stderr)
    };
    let file = folder.path().join("kept/tuning.json");
    let said = run(&["--tune=1", "--choices"]);
    assert!(said.contains("tuning.json"), "{said}");
    assert!(said.contains("conv2d 3x3") && said.contains(" ms"), "{said}");
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let tuned = kept["tables"][0]["products"].as_object().unwrap().len();

    let said = run(&["--choices"]);
    assert_eq!(said.matches("(tuned)").count(), tuned, "{said}");
    assert!(said.contains("(default)") && !said.contains("warning"), "{said}");

    let other = fs::read_to_string(&file).unwrap().replacen("\"driver\": \"", "\"driver\": \"old ", 1);
    fs::write(&file, other).unwrap();
    let said = run(&["--quiet", "--choices"]);
    assert!(said.contains("warning") && said.contains("old ") && said.contains("--tune"), "{said}");
    assert!(!said.contains("(tuned)"), "{said}");

    fs::write(&file, "{").unwrap();
    let said = run(&["--quiet"]);
    assert!(said.contains("warning") && said.contains("tuning.json"), "{said}");
    for seconds in ["--tune=0", "--tune=-1", "--tune=NaN", "--tune=4000"] {
        let output = command(folder.path(), &short(&[seconds])).output().unwrap();
        failed(seconds, &output, 2, &["--tune", "3600"]);
    }
}

#[test]
fn quiet_runs_write_files_and_say_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        [
            &[
                "a large red circle",
                "--steps",
                "10",
                "--width",
                "64",
                "--height",
                "64",
                "--scheduler",
                "ddim",
            ][..],
            &["--quiet", "--count", "2", "--stats", "stats.json", "--cache-interval", "2"],
        ]
        .concat();
    let output = command(folder.path(), &arguments).output().unwrap();
    succeeded(&output);
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), String::new()), "it spoke");
    assert_eq!(names(folder.path()), ["out-0.png", "out-1.png", "stats.json"], "files");

    let statistics: Value =
        serde_json::from_slice(&fs::read(folder.path().join("stats.json")).unwrap()).unwrap();
    let fields = "adapter backend driver dtype load_s prepare_s compile_s pipelines encode_s denoise_s decode_s steps submissions dispatches_full \
        dispatches_shallow weights_bytes activation_bytes cache_bytes peak_bytes";
    for field in fields.split_whitespace() {
        assert!(statistics.get(field).is_some_and(|value| !value.is_null()), "{field} is missing");
    }
    let steps = statistics["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 20, "ten steps for each picture");
    for field in ["index", "timestep", "kind", "gpu_ms", "cpu_ms"] {
        assert!(steps[0].get(field).is_some(), "steps: {field} is missing");
    }
    assert_eq!(steps[0]["kind"], "full", "the first step");
}

#[test]
fn several_pictures_of_a_name_without_ending_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let output = command(folder.path(), &short(&["--count", "2", "--output", "picture"])).output().unwrap();
    succeeded(&output);
    assert_eq!(names(folder.path()), ["picture-0", "picture-1"], "files");
    assert!(text(&output.stderr).contains("wrote picture-1"), "{}", text(&output.stderr));
}

#[test]
fn a_seed_is_a_picture_and_the_picture_says_how_it_was_made() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, file) in [("7", "a.png"), ("7", "b.png"), ("8", "c.png")] {
        let arguments = ["--seed", seed, "--output", file, "--negative-prompt", "green"];
        succeeded(&command(folder.path(), &short(&arguments)).output().unwrap());
    }
    let [a, b, c] = ["a.png", "b.png", "c.png"].map(|file| fs::read(folder.path().join(file)).unwrap());
    assert_eq!(a, b, "the same seed made two pictures");
    assert_ne!(a, c, "two seeds made the same picture");
    let reader = png::Decoder::new(std::io::Cursor::new(&a)).read_info().unwrap();
    let entries = &reader.info().utf8_text;
    let entry = entries.iter().find(|entry| entry.keyword == "parameters").expect("parameters");
    let parameters = entry.get_text().unwrap();
    for words in [
        "a large red circle",
        "Negative prompt: green",
        "Steps: 1",
        "ddim",
        "Seed: 7",
        "Size: 64x64",
        "Model: tiny",
    ] {
        assert!(parameters.contains(words), "\"{parameters}\" does not say \"{words}\"");
    }
}

#[test]
fn weights_of_8_bits_take_what_is_planned_and_the_picture_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let [int8, chosen] = [&["--weights", "int8"][..], &["--choices"]];
    let arguments = short(&[int8, chosen, &["--stats", "stats.json", "--output", "int8.png"]].concat());
    let output = command(folder.path(), &arguments).output().unwrap();
    succeeded(&output);
    let said = text(&output.stderr);
    assert!(said.contains("int8 weights) on ") && said.contains(", int8 weights: "), "{said}");
    let picture = text(&fs::read(folder.path().join("int8.png")).unwrap());
    assert!(picture.contains("Weights: int8"), "the picture does not say what it was made with");
    let stats: Value = serde_json::from_slice(&fs::read(folder.path().join("stats.json")).unwrap()).unwrap();
    assert_eq!(stats["weights_dtype"], "int8");
    let output = command(folder.path(), &short(&[int8, &["--plan"]].concat())).output().unwrap();
    let planned = text(&output.stdout);
    let bytes = format!("{:.1} MiB", stats["weights_bytes"].as_f64().unwrap() / f64::from(1 << 20));
    let line = planned.lines().find(|line| line.starts_with("weights  ")).unwrap();
    assert!(line.contains(&bytes), "{bytes}, planned\n{planned}");
}

#[test]
fn latents_are_saved_and_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("first.safetensors");
    succeeded(&command(folder.path(), &short(&["--save-latents", "first.safetensors"])).output().unwrap());
    assert_eq!(Latents::read(&saved).unwrap().shape(), [1, 4, 8, 8], "the latents of 64x64 pixels");
    let arguments =
        ["x", "--steps", "1", "--latents", "first.safetensors", "--save-latents", "second.safetensors"];
    succeeded(&command(folder.path(), &arguments).output().unwrap());
    let second = Latents::read(folder.path().join("second.safetensors")).unwrap();
    assert_eq!(second.shape(), [1, 4, 8, 8], "another size");
    let picture = text(&fs::read(folder.path().join("out.png")).unwrap());
    assert!(picture.contains("Latents: first.safetensors"), "the picture names a seed that it has not");
    let arguments = ["x", "--steps", "1", "--latents", "first.safetensors", "--width", "128"];
    let output = command(folder.path(), &[&arguments[..], &["--quiet"]].concat()).output().unwrap();
    failed("another width", &output, 2, &["--width", "128", "64"]);
    let output =
        command(folder.path(), &short(&["--latents", "first.safetensors", "--count", "2"])).output().unwrap();
    failed("another count", &output, 2, &["--count", "is 2", "first.safetensors holds 1"]);
}

#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_run_without_a_trace() {
    use std::io::{BufRead as _, BufReader, Read as _};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("out.png"), "old").unwrap();
    let mut command =
        command(folder.path(), &["x", "--steps", "900", "--stats", "s.json", "--save-latents", "l"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // The first line comes when the model is loaded.
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success(), "the signal was not sent");
    stderr.read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let last = said.trim_end().lines().last().unwrap();
    assert!(last.starts_with("error: cancelled after ") && last.ends_with(" of 900 steps"), "{said}");
    assert_eq!(names(folder.path()), ["out.png"], "files were left");
    assert_eq!(fs::read(folder.path().join("out.png")).unwrap(), b"old", "the old picture was touched");
}

#[test]
fn a_plan_is_a_table_of_what_the_run_takes_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |more: &[&str]| {
        let arguments = short(&[&["--plan"], more].concat());
        let output = command(folder.path(), &arguments).output().unwrap();
        succeeded(&output);
        assert_eq!(names(folder.path()), [""; 0], "files were left");
        text(&output.stdout)
    };
    let usual = plan(&[]);
    for word in ["weights of unet", "activations", "DeepCache's features", "peak", "decoded whole"] {
        assert!(usual.contains(word), "{word} is not in:\n{usual}");
    }
    let peak = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("peak")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    let low = plan(&["--low-memory"]);
    assert!(low.contains("denoising: weights") && peak(&low) < peak(&usual), "{usual}\n{low}");

    let int8 = plan(&["--weights", "int8"]);
    assert!(int8.contains("int8 weights") && peak(&int8) < peak(&usual), "{usual}\n{int8}");

    let output = command(folder.path(), &short(&["--low-memory", "--stats", "stats.json"])).output().unwrap();
    succeeded(&output);
    let stats: Value = serde_json::from_slice(&fs::read(folder.path().join("stats.json")).unwrap()).unwrap();
    let found = stats["peak_bytes"].as_f64().unwrap() / f64::from(1 << 20);
    assert!((found - peak(&low)).abs() <= 0.05, "{found:.2} MiB, planned\n{low}");
    let output = command(folder.path(), &short(&["--vae-tiling", "maybe"])).output().unwrap();
    failed("--vae-tiling maybe", &output, 2, &["--vae-tiling", "\"maybe\"", "auto, always or never"]);
}
