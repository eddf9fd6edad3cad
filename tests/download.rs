//! Models fetched from a server of the test's own, with everything that can go wrong on the way.

#![cfg(feature = "download")]
#![expect(clippy::unwrap_used, reason = "a test program that prints its errors")]

#[path = "support/hub.rs"]
mod hub;
#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::{Path, PathBuf};

use deepcache::Error;
use deepcache::download::{HubModel, HubOptions, fetch};
use deepcache::weights::{ModelFiles, ModelKind};
use hub::{COMMIT, Hub};
use program::{command_of, failed, succeeded};
use tempfile::TempDir;

const WEIGHTS: &str = "unet/diffusion_pytorch_model.fp16.safetensors";

fn model_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/sdxl/model")
}

/// A server with an SDXL model, with files that are not needed beside it, and an empty cache.
fn site() -> (Hub, TempDir) {
    let hub = Hub::of(&model_folder());
    let mut state = hub.state.lock().unwrap();
    for name in [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "README.md",
        "x.safetensors",
    ] {
        state.files.insert(name.to_owned(), vec![1; 50]);
    }
    drop(state);
    (hub, tempfile::tempdir().unwrap())
}

fn options(hub: &Hub, cache: &TempDir) -> HubOptions {
    HubOptions { endpoint: hub.endpoint.clone(), cache: cache.path().to_owned(), token: None, offline: false }
}

fn get(options: &HubOptions) -> deepcache::Result<PathBuf> {
    fetch(&"some/model".parse().unwrap(), options, |_| ())
}

/// Every file of a cache by its path, and its size, but for what is kept for going on.
fn cached(cache: &TempDir) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![cache.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(cache.path()).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with(".deepcache") {
                    folders.push(path);
                }
            } else {
                found.push((name, path.metadata().unwrap().len()));
            }
        }
    }
    found.sort();
    found
}

/// Whether all that the cache shows of a file is whole.
fn is_absent(cache: &TempDir, file: &str) -> bool {
    !cached(cache).iter().any(|(name, _)| name.ends_with(file) || name.contains("/refs/"))
}

#[test]
fn a_model_is_fetched_once_with_what_it_needs() {
    let (hub, cache) = site();
    let mut seen = Vec::new();
    let options = HubOptions { token: Some("secret".to_owned()), ..options(&hub, &cache) };
    let folder =
        fetch(&"some/model".parse().unwrap(), &options, |fetched| seen.push((fetched.bytes, fetched.of)));
    let folder = folder.unwrap();
    assert_eq!(ModelFiles::open(&folder).unwrap().kind(), ModelKind::TextToImage);
    assert!(folder.ends_with(format!("models--some--model/snapshots/{COMMIT}")), "{}", folder.display());
    let (last, of) = *seen.last().unwrap();
    assert!(
        seen.windows(2).all(|pair| pair[0].0 <= pair[1].0) && last == of,
        "progress only grows, to the end"
    );
    for unneeded in [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "README.md",
        "x.safetensors",
    ] {
        assert!(hub.starts(unneeded).is_empty(), "{unneeded} is not asked for");
    }
    assert_eq!(hub.starts(WEIGHTS), [0], "once, from the start");
    for file in ["unet/config.json", WEIGHTS, "tokenizer_2/merges.txt"] {
        assert_eq!(
            fs::read(folder.join(file)).unwrap(),
            fs::read(model_folder().join(file)).unwrap(),
            "{file}"
        );
    }
    assert_eq!(fs::read_to_string(cache.path().join("models--some--model/refs/main")).unwrap(), COMMIT);
    assert!(!cache.path().join(".deepcache").exists(), "nothing is left over");
    assert!(!format!("{options:?}").contains("secret"), "a token is not printed");
    assert!(
        hub.state.lock().unwrap().tokens.iter().all(|token| token == "Bearer secret"),
        "the token is shown"
    );

    let before = hub.requests();
    assert_eq!(get(&options).unwrap(), folder);
    assert_eq!(hub.requests(), before + 1, "only the list of files is asked for again");
}

#[test]
fn a_transfer_that_breaks_off_goes_on() {
    let (hub, cache) = site();
    hub.state.lock().unwrap().breaks.insert(WEIGHTS.to_owned(), (1000, 1));
    get(&options(&hub, &cache)).unwrap();
    assert_eq!(hub.starts(WEIGHTS), [0, 1000], "within one call");
}

#[test]
fn a_later_call_goes_on_where_one_was_interrupted() {
    let (hub, cache) = site();
    {
        let mut state = hub.state.lock().unwrap();
        state.breaks.insert(WEIGHTS.to_owned(), (1000, 1));
        state.falls_silent = true;
    }
    let error = get(&options(&hub, &cache)).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    assert!(error.to_string().contains(WEIGHTS) && error.to_string().contains("503"), "{error}");
    assert!(is_absent(&cache, WEIGHTS), "{:?}", cached(&cache));
    hub.state.lock().unwrap().refuses = None;
    let folder = get(&options(&hub, &cache)).unwrap();
    assert_eq!(hub.starts(WEIGHTS), [0, 1000], "from where it was");
    assert_eq!(fs::read(folder.join(WEIGHTS)).unwrap(), fs::read(model_folder().join(WEIGHTS)).unwrap());
    assert!(!cache.path().join(".deepcache").exists(), "nothing is left over");
}

#[test]
fn damaged_files_never_reach_the_cache() {
    let (hub, cache) = site();
    let mut changed = hub.state.lock().unwrap().files[WEIGHTS].clone();
    changed[100] ^= 1;
    let short = changed[..changed.len() - 7].to_vec();
    for (bytes, words) in [(changed, "SHA-256"), (short, "bytes, expected")] {
        hub.state.lock().unwrap().changed.insert(WEIGHTS.to_owned(), bytes);
        let error = get(&options(&hub, &cache)).unwrap_err();
        assert!(matches!(error, Error::Download { .. }), "{error:?}");
        assert!(error.to_string().contains(WEIGHTS) && error.to_string().contains(words), "{error}");
        assert!(is_absent(&cache, WEIGHTS), "{:?}", cached(&cache));
    }
    let offline = HubOptions { offline: true, ..options(&hub, &cache) };
    assert!(matches!(get(&offline), Err(Error::Option { .. })), "half a model is none");
    hub.state.lock().unwrap().changed.clear();
    let folder = get(&options(&hub, &cache)).unwrap();
    ModelFiles::open(folder).unwrap();
}

#[test]
fn refusals_say_whose_fault_they_are() {
    let (hub, cache) = site();
    let absent = fetch(&"some/other@v1".parse().unwrap(), &options(&hub, &cache), |_| ()).unwrap_err();
    assert!(matches!(absent, Error::Option { .. }), "{absent:?}");
    assert!(absent.to_string().contains("no some/other@v1"), "{absent}");
    for (status, words) in
        [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "there is no some/model@main"), (500, "500")]
    {
        hub.state.lock().unwrap().refuses = Some(status);
        let error = get(&options(&hub, &cache)).unwrap_err();
        assert!(error.to_string().contains(words), "{status}: {error}");
        assert_eq!(matches!(error, Error::Download { .. }), status == 500, "{error:?}");
    }
    assert!(cached(&cache).is_empty(), "{:?}", cached(&cache));
    let empty = Hub::new();
    let error = get(&options(&empty, &cache)).unwrap_err();
    assert!(error.to_string().contains("no model_index.json"), "{error}");
    empty
        .state
        .lock()
        .unwrap()
        .files
        .insert("model_index.json".to_owned(), br#"{"unet": ["diffusers", "X"]}"#.to_vec());
    let error = get(&options(&empty, &cache)).unwrap_err();
    assert!(error.to_string().contains("no diffusion_pytorch_model.safetensors"), "{error}");
}

#[test]
fn without_a_network_the_cache_is_used() {
    let (hub, cache) = site();
    let nowhere = HubOptions { endpoint: "http://127.0.0.1:9".to_owned(), ..options(&hub, &cache) };
    let error = get(&nowhere).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    assert!(cached(&cache).is_empty(), "nothing is written");

    let folder = get(&options(&hub, &cache)).unwrap();
    assert_eq!(get(&nowhere).unwrap(), folder, "a model that is there needs no network");
    let before = hub.requests();
    let offline = HubOptions { offline: true, ..options(&hub, &cache) };
    assert_eq!(get(&offline).unwrap(), folder);
    let by_commit: HubModel = format!("some/model@{COMMIT}").parse().unwrap();
    assert_eq!(fetch(&by_commit, &offline, |_| ()).unwrap(), folder);
    assert_eq!(hub.requests(), before, "nothing is asked");
    let error = fetch(&"some/other".parse().unwrap(), &offline, |_| ()).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn names_are_owner_and_name() {
    let model: HubModel = "stabilityai/stable-diffusion-xl-base-1.0@refs/pr/3".parse().unwrap();
    assert_eq!(
        (model.name.as_str(), model.revision.as_str()),
        ("stabilityai/stable-diffusion-xl-base-1.0", "refs/pr/3")
    );
    assert_eq!("a/b".parse::<HubModel>().unwrap().to_string(), "a/b@main");
    for text in [
        "", "a", "a/", "/a", "a/b/c", "../a", "a/..", "./a", "a/b@", "a/b@../x", "a b/c", "é/a", "a\\b/c",
        "~/a", "a/b@x/",
    ] {
        assert!(text.parse::<HubModel>().is_err(), "{text}");
    }
}

#[test]
fn the_command_line_takes_names_of_models() {
    let (hub, home) = site();
    let draw = |offline: &str, model: &str| {
        let arguments = ["a boat", "--model", model, "--steps", "1", "--width", "64", "--height", "64"];
        let mut command = command_of("generate", home.path(), &arguments);
        command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", home.path().join("hf"));
        command.env("HF_HUB_OFFLINE", offline).env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
        command.output().unwrap()
    };
    failed("offline", &draw("1", "some/model"), 2, &["--model", "some/model@main", "HF_HUB_OFFLINE"]);
    failed("absent", &draw("0", "some/other"), 2, &["--model", "there is no some/other@main"]);
    succeeded(&draw("0", "some/model"));
    assert!(
        home.path().join(format!("hf/hub/models--some--model/snapshots/{COMMIT}")).is_dir(),
        "the usual cache"
    );
    let before = hub.requests();
    succeeded(&draw("1", "some/model@main"));
    assert_eq!(hub.requests(), before, "nothing is asked");
}
