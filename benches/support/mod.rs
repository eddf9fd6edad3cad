//! What benches share: a device, how long a program takes on it, and where figures are kept.

#![allow(dead_code, reason = "each bench uses a part of this module")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use deepcache::files::write_whole;
use deepcache::gpu::recording::Recording;
use deepcache::gpu::{Executor, Gpu, Memory, Program, Purpose};
use deepcache::tensor::{ElementType, Tensor};
use deepcache::{Error, Result};

/// A bench: its command line read, its work done, its errors told.
pub(crate) fn program<P: Parser>(run: impl FnOnce(&P) -> Result<()>) -> ExitCode {
    match run(&P::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How values are stored: as asked for, or as halves where that is usual.
pub(crate) fn element(asked: Option<&str>, halves: bool) -> Result<ElementType> {
    match asked {
        Some("f32") => Ok(ElementType::F32),
        Some("f16") => Ok(ElementType::F16),
        None if halves => Ok(ElementType::F16),
        None => Ok(ElementType::F32),
        Some(other) => Err(Error::option("dtype", format!("expected f16 or f32, found \"{other}\""))),
    }
}

/// A device with memory and what plays on it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) memory: Memory,
    pub(crate) executor: Executor,
}

/// How long a play took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// The median of several plays.
    pub(crate) seconds: f64,
    /// Of all cores together, where the system tells: what a software adapter needs.
    pub(crate) core_seconds: Option<f64>,
    /// Whether the cores do the device's work.
    software: bool,
}

impl Timing {
    /// The time that says most: the clock of a GPU, or the cores of a software adapter, which other programs share.
    pub(crate) fn effective(&self) -> f64 {
        self.core_seconds.filter(|seconds| self.software && *seconds > 0.0).unwrap_or(self.seconds)
    }
}

impl Bench {
    pub(crate) fn open(device: Option<&str>) -> Result<Self> {
        let gpu = Arc::new(Gpu::open(device)?);
        Ok(Self { memory: Memory::new(gpu.clone()), executor: Executor::new(gpu.clone()), gpu })
    }

    /// A tensor of small random numbers.
    pub(crate) fn random(&mut self, shape: &[usize], element: ElementType) -> Result<Tensor> {
        let tensor = Tensor::external("values", shape, element);
        self.memory.allocate([&tensor], Purpose::Persistent)?;
        self.fill(&tensor)?;
        Ok(tensor)
    }

    /// Puts small random numbers into a tensor.
    pub(crate) fn fill(&mut self, tensor: &Tensor) -> Result<()> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut number = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            #[expect(clippy::cast_precision_loss, reason = "random numbers")]
            let value = (state >> 40) as f32 / 16_777_216.0 - 0.5;
            value
        };
        let count = tensor.shape().count();
        let bytes: Vec<u8> = match tensor.element() {
            ElementType::F32 => (0..count).flat_map(|_| number().to_le_bytes()).collect(),
            ElementType::F16 => {
                (0..count).flat_map(|_| half::f16::from_f32(number()).to_le_bytes()).collect()
            }
            ElementType::U32 => vec![0; 4 * count],
            ElementType::Int8 => {
                // Scales that make the integers numbers of the same size.
                let scales = std::iter::repeat_n(1.0_f32 / 254.0, tensor.shape().channels());
                #[expect(clippy::cast_possible_truncation, reason = "between -127 and 127")]
                let integers = (0..count).map(|_| ((254.0 * number()) as i8).cast_unsigned());
                scales.flat_map(f32::to_le_bytes).chain(integers).collect()
            }
        };
        self.memory.write(tensor, 0, &bytes)?;
        self.memory.flush()
    }

    /// Prepares a recording and forgets the one before.
    pub(crate) fn program(&mut self, recording: &Recording) -> Result<Program> {
        let mut programs = self.executor.prepare(&self.memory, &[recording])?;
        programs.pop().ok_or_else(|| Error::option("recording", "was not prepared"))
    }

    /// Plays a program for about so many seconds, three times at least, after a first time that does not count.
    pub(crate) fn time(&mut self, program: &Program, seconds: f64) -> Result<Timing> {
        self.time_calls(program, seconds, 1)
    }

    /// The same by so many plays for each wait for the device.
    pub(crate) fn time_calls(&mut self, program: &Program, seconds: f64, calls: u32) -> Result<Timing> {
        self.play(program)?;
        let (mut times, mut cores) = (Vec::new(), Vec::new());
        let started = Instant::now();
        while times.len() < 3 || started.elapsed().as_secs_f64() < seconds {
            let (before, cpu) = (Instant::now(), cpu_seconds());
            for _ in 0..calls {
                self.executor.play(program)?;
            }
            self.executor.finish()?;
            times.push(before.elapsed().as_secs_f64() / f64::from(calls));
            cores.extend(cpu_seconds().zip(cpu).map(|(after, before)| (after - before) / f64::from(calls)));
        }
        let core_seconds = settle(&cores);
        times.sort_by(f64::total_cmp);
        Ok(Timing { seconds: times[times.len() / 2], core_seconds, software: self.gpu.is_software() })
    }

    pub(crate) fn play(&mut self, program: &Program) -> Result<()> {
        self.executor.play(program)?;
        self.executor.finish()
    }
}

/// One figure of several: the smallest, since other programs only ever add to the work by spoiling caches. The
/// clock ticks coarsely, so that short plays have their mean instead.
fn settle(cores: &[f64]) -> Option<f64> {
    const COARSE: f64 = 0.05;
    let smallest = cores.iter().copied().min_by(f64::total_cmp)?;
    #[expect(clippy::cast_precision_loss, reason = "a count of plays")]
    let mean = cores.iter().sum::<f64>() / cores.len() as f64;
    Some(if smallest > COARSE { smallest } else { mean })
}

/// Where figures of a device are kept, with today's date.
pub(crate) fn record_path(device: &str, bench: &str) -> PathBuf {
    let words: Vec<String> = device
        .split(|character: char| !character.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/record").join(words.join("-"));
    folder.join(format!("{}-{bench}.csv", today()))
}

/// Writes a file of figures, and the folder that it is in.
pub(crate) fn keep(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, "create", source))?;
    }
    write_whole(path, text.as_bytes())
}

/// Seconds that all threads of this process have computed; `None` where the system does not tell.
pub(crate) fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    // This file is of the main thread alone: those of all threads are in their folder.
    let mut nanoseconds = text.split_whitespace().next()?.parse::<u64>().ok()?;
    let own = std::process::id().to_string();
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let thread = thread.ok()?;
        if thread.file_name().to_string_lossy() != own {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds += text.split_whitespace().next().and_then(|part| part.parse().ok()).unwrap_or(0);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    Some(nanoseconds as f64 * 1e-9)
}

/// `2026-11-24`, of the universal time.
fn today() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = now.map_or(0, |now| now.as_secs() / 86_400);
    // Howard Hinnant, *chrono-compatible low-level date algorithms*: civil_from_days.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
