//! The rules of ARCHITECTURE.md that a compiler does not check: what lies where, and who knows whom.

#![expect(clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files with an extension below a folder; none if the folder is not there.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

/// Lines of code with their numbers: no comments.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let lines = (1..).zip(text.lines().map(|line| line.split("//").next().unwrap_or("").to_owned()));
    lines.collect()
}

/// `FILE:LINE: TEXT` of every line of code below `folder` that holds one of the words.
fn mentions(folder: &str, words: &[&str], exempt: &[&str]) -> Vec<String> {
    let path = root().join(folder);
    let files = if path.is_file() { vec![path] } else { files(&path, "rs") };
    let mut found = Vec::new();
    for path in files.iter().filter(|path| !exempt.iter().any(|start| relative(path).starts_with(start))) {
        for (number, line) in code(path) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{number}: {}", relative(path), line.trim()));
            }
        }
    }
    found
}

/// The operations: every file in src/kernels but mod.rs and those exempt.
fn stems(folder: &str, exempt: &[&str]) -> BTreeSet<String> {
    let names = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let stems = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    stems.filter(|stem| stem != "mod" && !exempt.contains(&stem.as_str())).collect()
}

#[test]
fn every_kernel_has_a_twin_a_shader_and_a_line_in_the_battery() {
    let kernels = stems("src/kernels", &["product", "tiling"]);
    assert_eq!(kernels, stems("src/reference", &["case"]), "kernels and their twins");

    let battery = fs::read_to_string(root().join("tests/kernels.rs")).unwrap();
    let call = battery.rsplit("kernel_battery!(").next().unwrap().split(')').next().unwrap();
    let listed: BTreeSet<_> =
        call.split(',').map(|stem| stem.trim().to_owned()).filter(|stem| !stem.is_empty()).collect();
    assert_eq!(kernels, listed, "kernels and their lines in tests/kernels.rs");

    let shaders = stems("shaders", &["shared", "README"]);
    let belongs = |shader: &str, kernel: &str| {
        shader.strip_prefix(kernel).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    for kernel in &kernels {
        assert!(shaders.iter().any(|shader| belongs(shader, kernel)), "{kernel} has a shader");
    }
    for shader in &shaders {
        assert!(kernels.iter().any(|kernel| belongs(shader, kernel)), "{shader}.wgsl has a kernel");
    }
}

#[test]
fn only_the_device_layer_knows_wgpu() {
    assert_eq!(mentions("src", &["wgpu::"], &["src/gpu/"]), [""; 0]);
    for name in ["choices", "recording", "segments", "shader", "slots"] {
        let file = format!("src/gpu/{name}.rs");
        assert!(root().join(&file).is_file(), "{file}");
        assert_eq!(mentions(&file, &["wgpu"], &[]), [""; 0]);
    }
}

#[test]
fn kernels_know_nothing_above_them() {
    let above = ["crate::nn", "crate::models", "crate::pipelines", "super::super::"];
    assert_eq!(mentions("src/kernels", &above, &[]), [""; 0]);
}

#[test]
fn models_know_neither_schedulers_nor_the_deepcache_schedule() {
    let words = ["deepcache::", "schedulers"];
    assert_eq!(mentions("src/models", &words, &[]), [""; 0]);
}

#[test]
fn schedulers_know_no_tensors() {
    assert_eq!(mentions("src/schedulers", &["crate::tensor"], &[]), [""; 0]);
}

#[test]
fn files_stay_short() {
    for path in files(&root().join("src"), "rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines: split it", relative(&path));
    }
}
