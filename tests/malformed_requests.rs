//! Malformed requests, latents and outputs: every row ends in an error that names what is wrong, soon and without a
//! panic.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "support/malformed.rs"]
mod support;

use std::fs;
use std::ops::ControlFlow;

use deepcache::files::{check_writable, write_whole};
use deepcache::image::Picture;
use deepcache::pipelines::{CacheOptions, DiffusionPipeline, Latents, Request, StorageType, VaeTiling};
use deepcache::{Error, Result};
use safetensors::Dtype;
use serde_json::json;
use support::{Change, Kind, Model, f16, gpu, says, soon};

const SCHEDULER: &str = "scheduler/scheduler_config.json";

type RequestRow = (&'static str, fn(&mut Request), Kind, &'static [&'static str]);

fn cached(interval: usize, branch: usize) -> Option<CacheOptions> {
    Some(CacheOptions::uniform(interval, branch))
}

fn latents(shape: [usize; 4]) -> Option<Latents> {
    Some(Latents::new(shape, vec![0.5; shape.iter().product()]).unwrap())
}

fn request_rows() -> Vec<RequestRow> {
    use Kind::{Limit, Option};
    vec![
        ("no steps", |r| r.steps = Some(0), Option, &["steps", "1 to 1000", "found 0"]),
        (
            "more steps than timesteps",
            |r| r.steps = Some(1001),
            Option,
            &["steps", "1 to 1000", "found 1001"],
        ),
        ("endless steps", |r| r.steps = Some(usize::MAX), Option, &["steps", "1 to 1000"]),
        ("a width of 100", |r| r.width = Some(100), Option, &["width", "100", "multiple of 8"]),
        ("no width", |r| r.width = Some(0), Option, &["width", "0 is not", "between 8 and 16384"]),
        (
            "a width of a milliard",
            |r| r.width = Some(1_000_000_000),
            Option,
            &["width", "1000000000", "16384"],
        ),
        ("an endless height", |r| r.height = Some(usize::MAX), Option, &["height", "16384"]),
        (
            "the largest sides",
            |r| (r.width, r.height) = (Some(16_384), Some(16_384)),
            Option,
            &["width and height", "16384x16384 are 268435456 pixels", "8388608"],
        ),
        (
            "the largest pictures",
            |r| (r.width, r.height, r.count) = (Some(16_384), Some(16_384), 1024),
            Option,
            &["16384x16384", "8388608"],
        ),
        (
            "latents of the largest sides",
            |r| r.latents = latents([1, 4, 2048, 2048]),
            Option,
            &["16384x16384", "8388608"],
        ),
        (
            "the largest picture",
            |r| (r.width, r.height, r.vae_tiling) = (Some(2048), Some(2040), VaeTiling::Never),
            Limit,
            &["MiB", "allows", "--vae-tiling auto", "smaller picture"],
        ),
        (
            "many large pictures",
            |r| {
                (r.width, r.height, r.count) = (Some(2048), Some(2040), 1024);
                r.vae_tiling = VaeTiling::Never;
            },
            Limit,
            &["MiB", "allows", "--vae-tiling auto", "smaller picture"],
        ),
        (
            "a large picture, cached",
            |r| {
                (r.width, r.height, r.cache) = (Some(2048), Some(2040), cached(3, 0));
                r.vae_tiling = VaeTiling::Never;
            },
            Limit,
            &["MiB"],
        ),
        ("no pictures", |r| r.count = 0, Option, &["count", "0 is not between 1 and 1024"]),
        ("a milliard pictures", |r| r.count = 1_000_000_000, Option, &["count", "1000000000"]),
        (
            "guidance of NaN",
            |r| r.guidance_scale = Some(f64::NAN),
            Option,
            &["guidance scale", "NaN", "number"],
        ),
        ("infinite guidance", |r| r.guidance_scale = Some(f64::INFINITY), Option, &["guidance scale", "inf"]),
        ("guidance beyond f32", |r| r.guidance_scale = Some(1e300), Option, &["guidance scale", "1000000"]),
        (
            "eta of NaN",
            |r| (r.eta, r.scheduler) = (f64::NAN, "ddim".parse().ok()),
            Option,
            &["eta", "0 to 1", "NaN"],
        ),
        (
            "eta for a sampler without",
            |r| (r.eta, r.scheduler) = (0.5, "pndm".parse().ok()),
            Option,
            &["eta", "pndm"],
        ),
        ("a cache interval of zero", |r| r.cache = cached(0, 0), Option, &["cache interval", "1", "found 0"]),
        ("a branch too far", |r| r.cache = cached(3, 12), Option, &["cache branch", "12", "0 to 11"]),
        (
            "a branch out of sight",
            |r| r.cache = cached(3, 1_000_000),
            Option,
            &["cache branch", "1000000", "0 to 11"],
        ),
        ("an endless branch", |r| r.cache = cached(3, usize::MAX), Option, &["cache branch", "0 to 11"]),
        (
            "latents of another model",
            |r| r.latents = latents([1, 16, 4, 4]),
            Option,
            &["latents", "16 channels", "needs 4"],
        ),
        (
            "latents of another width",
            |r| (r.latents, r.width) = (latents([1, 4, 4, 4]), Some(64)),
            Option,
            &["width", "64", "32"],
        ),
        (
            "latents of another height",
            |r| (r.latents, r.height) = (latents([1, 4, 4, 4]), Some(64)),
            Option,
            &["height", "64", "32"],
        ),
        (
            "latents without end",
            |r| r.latents = latents([1, 4, 1, 4096]),
            Option,
            &["latents", "width", "32768", "16384"],
        ),
        ("latents in crowds", |r| r.latents = latents([2000, 4, 1, 1]), Option, &["count", "2000"]),
    ]
}

#[test]
fn requests_that_cannot_be_honoured_name_the_option() {
    let model = Model::new();
    model.change(SCHEDULER, &Change::Key("/_class_name", json!("TCDScheduler")));
    let mut pipeline = DiffusionPipeline::load_on(gpu(), model.path(), &StorageType::F32.into()).unwrap();
    let small = Request {
        steps: Some(1),
        width: Some(32),
        height: Some(32),
        scheduler: "ddim".parse().ok(),
        ..Request::prompt("a large red circle")
    };
    let before = pipeline.generate(&small, |_| ControlFlow::Continue(())).unwrap();

    let mut asks = |name: &str, change: &dyn Fn(&mut Request), kind, words: &[&str]| {
        let mut request = Request { width: None, height: None, ..small.clone() };
        change(&mut request);
        says(name, soon(name, || pipeline.generate(&request, |_| ControlFlow::Continue(()))), kind, words);
    };
    for (name, change, kind, words) in request_rows() {
        asks(name, &change, kind, words);
    }
    let words = ["scheduler", "TCDScheduler", "ddpm, ddim, pndm"];
    asks("no scheduler of ours", &|request| request.scheduler = None, Kind::Option, &words);
    for steps in [0, 1] {
        let mut calls = 0;
        let outcome = pipeline.generate(&small, |_| {
            calls += 1;
            if calls > steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        says("cancelled", outcome, Kind::Cancelled, &[&format!("cancelled after {steps} of 1 steps")]);
    }

    // What failed has left nothing behind.
    let after = pipeline.generate(&small, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(after.latents, before.latents, "other latents than before the failures");
    assert_eq!(after.pictures, before.pictures, "another picture than before the failures");
    let bytes = |statistics: &deepcache::pipelines::Statistics| {
        (statistics.persistent_bytes, statistics.cache_bytes, statistics.peak_bytes)
    };
    assert_eq!(bytes(&after.statistics), bytes(&before.statistics), "memory was left behind");
}

#[test]
fn files_of_latents_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latents.safetensors");
    let read = |dtype: Dtype, name: &str, shape: &[usize], value: &[u8]| {
        fs::write(&path, support::one_tensor(name, dtype, shape, value)).unwrap();
        Latents::read(&path)
    };
    let one = 1.0_f32.to_le_bytes();
    read(Dtype::F32, "latents", &[1, 4, 2, 2], &one).expect("these are latents");
    let rows: [(&str, Result<Latents>, &[&str]); 7] = [
        (
            "f16",
            read(Dtype::F16, "latents", &[1, 4, 2, 2], &f16(1.0)),
            &["\"latents\"", "F16", "expected F32"],
        ),
        ("rank 3", read(Dtype::F32, "latents", &[4, 2, 2], &one), &["[4, 2, 2]", "expected [N, C, h, w]"]),
        ("rank 5", read(Dtype::F32, "latents", &[1, 1, 4, 2, 2], &one), &["[1, 1, 4, 2, 2]", "[N, C, h, w]"]),
        ("empty", read(Dtype::F32, "latents", &[1, 4, 0, 2], &one), &["0 values", "[1, 4, 0, 2]"]),
        (
            "NaN",
            read(Dtype::F32, "latents", &[1, 4, 2, 2], &f32::NAN.to_le_bytes()),
            &["value 0 is not finite"],
        ),
        (
            "infinity",
            read(Dtype::F32, "latents", &[1, 4, 2, 2], &f32::INFINITY.to_le_bytes()),
            &["not finite"],
        ),
        (
            "another name",
            read(Dtype::F32, "sample", &[1, 4, 2, 2], &one),
            &["\"latents\"", "is missing", "sample"],
        ),
    ];
    for (name, outcome, words) in rows {
        says(name, outcome, Kind::Weights, words);
    }
    for bytes in [&b""[..], b"PNG", &[255; 64]] {
        fs::write(&path, bytes).unwrap();
        says(
            "not safetensors",
            Latents::read(&path),
            Kind::Weights,
            &["latents.safetensors", "not a safetensors file"],
        );
    }
    says("a folder", Latents::read(folder.path()), Kind::Io, &["cannot read"]);
    says("no file", Latents::read(folder.path().join("none")), Kind::Io, &["none", "cannot read"]);
    says(
        "a short list",
        Latents::new([1, 4, 2, 2], vec![0.0; 15]),
        Kind::Option,
        &["15 values", "[1, 4, 2, 2]"],
    );
    let endless = Latents::new([usize::MAX, 4, 2, 2], vec![0.0]);
    says("an endless shape", endless, Kind::Option, &["1 values"]);
}

#[test]
fn outputs_that_cannot_be_written_leave_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let picture = Picture { width: 2, height: 1, pixels: vec![0; 6] };
    let old = root.join("old.png");
    fs::write(&old, "old").unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    let mut unwritable = vec![
        ("no folder", root.join("none/out.png")),
        ("a folder", root.join("folder")),
        ("below a file", old.join("out.png")),
    ];
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let locked = root.join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        // The superuser may write anyway.
        if fs::write(locked.join("probe"), "").is_err() {
            unwritable.push(("a locked folder", locked.join("out.png")));
        }
    }
    for (name, path) in unwritable {
        let file = path.file_name().unwrap().to_str().unwrap();
        says(name, check_writable(&path), Kind::Io, &[file, "cannot write"]);
        says(name, write_whole(&path, b"new"), Kind::Io, &[file, "cannot write"]);
        says(name, picture.save(&path, &[]), Kind::Io, &[file, "cannot write"]);
        says(name, Latents::new([1; 4], vec![0.0]).unwrap().write(&path), Kind::Io, &[file, "cannot write"]);
    }
    let torn = Picture { width: 2, height: 2, pixels: vec![0; 6] };
    says("too few pixels", torn.save(&old, &[]), Kind::Option, &["picture"]);
    says(
        "no pixels",
        Picture { width: 0, height: 0, pixels: vec![] }.save(&old, &[]),
        Kind::Option,
        &["picture"],
    );
    let keyword = "k".repeat(100);
    says("a long keyword", picture.save(&old, &[(&keyword, "text")]), Kind::Option, &["picture"]);
    check_writable(&old).unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"old", "the old file was touched");
    let left: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "left behind: {left:?}");
    assert!(matches!(picture.save(&old, &[("parameters", "a\nb: ü")]), Ok(())), "a good picture was refused");
}

#[test]
fn a_device_that_is_not_there_is_refused_with_those_that_are() {
    for wanted in ["no such adapter", "4096", "-1", ""] {
        let outcome = deepcache::gpu::Gpu::open(Some(wanted));
        if let Err(error) = outcome {
            assert!(matches!(error, Error::NoAdapter { .. }), "{wanted}: {error}");
            assert!(error.to_string().contains("there are: 0: "), "{wanted}: {error}");
        } else {
            assert_eq!(wanted, "", "an adapter was found");
        }
    }
}
