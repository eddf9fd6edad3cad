//! Loads a safetensors file in a way that is given, and prints seconds and the most memory that the process has had:
//! `candle-loading read|candle|candle-f32 FILE`.

use std::process::ExitCode;
use std::time::Instant;

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, way, file] = &arguments[..] else {
        eprintln!("usage: candle-loading read|candle|candle-f32 FILE");
        return ExitCode::FAILURE;
    };
    let started = Instant::now();
    let loaded = match way.as_str() {
        "read" => std::fs::read(file).map(|bytes| bytes.len()).map_err(|error| error.to_string()),
        "candle" => candle(file, None).map_err(|error| error.to_string()),
        "candle-f32" => candle(file, Some(DType::F32)).map_err(|error| error.to_string()),
        other => Err(format!("\"{other}\" is not read, candle or candle-f32")),
    };
    match loaded {
        Ok(bytes) => {
            println!("{} {bytes} {:.3} {}", way, started.elapsed().as_secs_f64(), peak());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Loads every tensor as candle's models do, as it is stored or as `wanted`; bytes of all.
fn candle(file: &str, wanted: Option<DType>) -> candle_core::Result<usize> {
    // SAFETY: nobody changes the file while this program runs.
    let file = unsafe { MmapedSafetensors::new(file)? };
    let mut tensors: Vec<Tensor> = Vec::new();
    for (name, _) in file.tensors() {
        let tensor = file.load(&name, &Device::Cpu)?;
        tensors.push(match wanted {
            Some(wanted) => tensor.to_dtype(wanted)?,
            None => tensor,
        });
    }
    Ok(tensors.iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum())
}

/// Bytes of the most memory that the process has had; 0 where the system does not tell.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    1024 * line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
}
