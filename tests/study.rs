//! What the programs that study caching stand on: measures, the checker, tables and charts.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "../examples/support/checker/mod.rs"]
mod checker;
#[path = "../examples/support/measures.rs"]
mod measures;
#[path = "../examples/support/table.rs"]
mod table;

use std::path::{Path, PathBuf};

use checker::{Checker, Scene, Verdict};
use deepcache::image::Picture;
use measures::{Better, Interval, bootstrap, paired_bootstrap, pareto_front, psnr, quartiles, share, ssim};
use serde_json::Value;
use table::{Cell, Table};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn picture(name: &str) -> Picture {
    let path = goldens().join(name);
    let decoded = image::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let pixels = decoded.into_rgb8();
    Picture { width: pixels.width(), height: pixels.height(), pixels: pixels.into_raw() }
}

fn tiny(run: &str) -> Picture {
    picture(&format!("tiny/{run}_b0.png"))
}

fn crop(picture: &Picture, left: usize, top: usize, width: usize, height: usize) -> Picture {
    let rows = picture.pixels.chunks_exact(3 * picture.width as usize).skip(top).take(height);
    let pixels = rows.flat_map(|row| row[3 * left..3 * (left + width)].to_vec()).collect();
    Picture { width: width.try_into().unwrap(), height: height.try_into().unwrap(), pixels }
}

#[track_caller]
fn near(found: f64, expected: f64, limit: f64) {
    assert!((found - expected).abs() <= limit, "{found}, expected {expected} within {limit}");
}

/// Pairs of pictures with scikit-image 0.26's `structural_similarity` (Gaussian weights, sigma 1.5, population covariances,
/// data range 255, last axis channels) and `peak_signal_noise_ratio`.
fn compared() -> Vec<(Picture, Picture, f64, f64)> {
    let small = |left, top, width, height| {
        let crop = |run| crop(&tiny(run), left, top, width, height);
        (crop("02_ddim50_n1"), crop("06_ddim50_n1"))
    };
    let whole = |first, second| (tiny(first), tiny(second));
    [
        (whole("00_ddim50_n1", "00_ddim50_n3"), 0.997_998_623_616_521_9, 46.972_286_089_961_42),
        (whole("00_ddim50_n1", "00_ddim50_n5"), 0.990_849_732_000_244, 36.887_490_644_724_62),
        (whole("03_ddim50_n1", "03_ddim50_n5"), 0.991_098_432_449_440_2, 39.173_462_249_711_63),
        (whole("07_ddim50_n1", "07_ddim50_n5"), 0.978_214_347_064_519_3, 35.242_972_423_299_136),
        (whole("00_ddim50_n1", "04_ddim50_n1"), 0.695_232_359_812_155_8, 12.617_594_484_681_998),
        (small(30, 40, 17, 11), 0.211_864_802_369_399_5, 11.991_360_853_737_074),
        (small(30, 40, 11, 12), 0.604_702_007_771_254, 15.330_081_022_945_592),
        (small(50, 20, 11, 11), 0.541_961_226_340_812_1, 9.885_321_347_169_128),
    ]
    .map(|((first, second), ssim, psnr)| (first, second, ssim, psnr))
    .into()
}

#[test]
fn ssim_and_psnr_are_those_of_scikit_image() {
    for (first, second, expected_ssim, expected_psnr) in compared() {
        near(ssim(&first, &second).unwrap(), expected_ssim, 1e-12);
        near(ssim(&second, &first).unwrap(), expected_ssim, 1e-12);
        near(psnr(&first, &second).unwrap(), expected_psnr, 1e-12);
    }
}

#[test]
fn a_picture_is_perfectly_similar_to_itself_and_only_to_itself() {
    let first = tiny("00_ddim50_n1");
    assert_eq!(psnr(&first, &first).unwrap(), f64::INFINITY);
    near(ssim(&first, &first).unwrap(), 1.0, 1e-12);
    let mut second = first.clone();
    second.pixels[3 * (64 * 128 + 64)] ^= 1;
    near(psnr(&first, &second).unwrap(), 10.0 * (255.0 * 255.0 * 3.0 * 128.0 * 128.0_f64).log10(), 1e-12);
    assert!(ssim(&first, &second).unwrap() < 1.0 - 1e-9, "one changed value is seen");
}

#[test]
fn pictures_that_cannot_be_compared_are_errors() {
    let first = tiny("00_ddim50_n1");
    let (wide, narrow) = (crop(&first, 0, 0, 40, 20), crop(&first, 0, 0, 20, 40));
    assert_eq!(psnr(&wide, &narrow).unwrap_err().to_string(), "picture: sizes differ: 40x20 and 20x40");
    assert!(ssim(&wide, &narrow).is_err(), "equal numbers of pixels are not equal sizes");
    let low = crop(&first, 0, 0, 40, 10);
    let message = ssim(&low, &low).unwrap_err().to_string();
    assert_eq!(message, "picture: 40x10 is smaller than SSIM's window, 11x11");
    let broken = Picture { width: 40, height: 20, pixels: vec![0; 7] };
    assert!(ssim(&broken, &broken).is_err() && psnr(&broken, &broken).is_err(), "pixels that do not fill");
}

const SCORES: [f64; 12] = [0.93, 0.88, 0.97, 0.79, 0.91, 0.86, 0.95, 0.90, 0.84, 0.99, 0.72, 0.89];

#[test]
fn the_bootstrap_agrees_with_a_long_one_of_scipy() {
    near(measures::mean(&SCORES), 0.885_833_333_333_333_6, 1e-15);
    near(measures::standard_deviation(&SCORES), 0.076_450_617_850_328_51, 1e-15);
    let found = bootstrap(&SCORES, 1);
    near(found.estimate, 0.885_833_333_333_333_6, 1e-15);
    near(found.lower, 0.8425, 0.002); // scipy.stats.bootstrap, percentile, a million resamples
    near(found.upper, 0.9250, 0.002);
    assert_eq!(found, bootstrap(&SCORES, 1), "the seed decides");
    assert_ne!(found, bootstrap(&SCORES, 2), "another seed, other resamples");
    let even = bootstrap(&[0.5; 9], 1);
    assert_eq!(even, Interval { estimate: 0.5, lower: 0.5, upper: 0.5 });
}

#[test]
fn an_interval_of_95_percent_holds_the_truth_19_times_of_20() {
    let mut noise = deepcache::random::TorchGenerator::new(5);
    let trials = 200;
    let held = (0..trials).filter(|trial| {
        let values: Vec<f64> = noise.normal(40).into_iter().map(|value| 3.0 + f64::from(value)).collect();
        let Interval { lower, upper, .. } = bootstrap(&values, *trial);
        (lower..=upper).contains(&3.0)
    });
    let held = held.count();
    assert!((182..=197).contains(&held), "{held} of {trials}"); // 190 is expected, standard deviation 3.1
}

#[test]
fn pairing_finds_a_difference_that_the_means_hide() {
    let better: Vec<f64> =
        SCORES.iter().enumerate().map(|(number, score)| score + 0.01 + 0.001 * number as f64).collect();
    let [first, second] = [bootstrap(&SCORES, 3), bootstrap(&better, 3)];
    assert!(second.lower < first.upper, "the intervals of the means overlap");
    let difference = paired_bootstrap(&better, &SCORES, 3).unwrap();
    near(difference.estimate, 0.0155, 1e-12);
    assert!(difference.lower > 0.01 && difference.upper < 0.021, "{difference:?}");
    let opposite = paired_bootstrap(&SCORES, &better, 3).unwrap();
    near(opposite.estimate, -difference.estimate, 1e-12);
    near(opposite.lower, -difference.upper, 1e-3);
    let message = paired_bootstrap(&SCORES, &better[1..], 3).unwrap_err().to_string();
    assert_eq!(message, "paired values: one method has 12 and the other 11");
}

#[test]
fn quartiles_are_those_of_numpy_whatever_the_outliers() {
    // numpy.quantile([9.0, 1.0, 2.0, 4.0, 1e6], [0.5, 0.25, 0.75])
    let five = quartiles(&[9.0, 1.0, 2.0, 4.0, 1e6]);
    assert_eq!((five.estimate, five.lower, five.upper), (4.0, 2.0, 9.0), "five values");
    // numpy.quantile([1.0, 2.0, 3.0, 4.0], [0.5, 0.25, 0.75])
    let four = quartiles(&[4.0, 3.0, 2.0, 1.0]);
    assert_eq!((four.estimate, four.lower, four.upper), (2.5, 1.75, 3.25), "four values");
}

#[test]
fn shares_have_wilsons_interval() {
    // scipy.stats.binomtest(…).proportion_ci(method="wilson")
    for (right, of, lower, upper) in [
        (62, 64, 0.893_027_082_290_416_9, 0.991_387_861_653_828_1),
        (64, 64, 0.943_375_940_207_194_6, 1.0),
        (0, 8, 0.0, 0.324_407_564_888_880_23),
    ] {
        let found = share(right, of);
        near(found.estimate, right as f64 / of as f64, 1e-15);
        near(found.lower, lower, 1e-9);
        near(found.upper, upper, 1e-9);
    }
}

#[test]
fn the_front_holds_what_nothing_beats() {
    let points =
        [(3.0, 30.0), (1.0, 20.0), (2.0, 19.0), (4.0, f64::NAN), (5.0, 40.0), (1.0, 20.0), (3.0, 25.0)];
    assert_eq!(pareto_front(&points, (Better::Lower, Better::Higher)), [1, 0, 4]);
    assert_eq!(pareto_front(&points, (Better::Lower, Better::Lower)), [1, 2]);
    assert_eq!(pareto_front(&points, (Better::Higher, Better::Higher)), [4]);
    assert!(pareto_front(&[], (Better::Lower, Better::Higher)).is_empty(), "nothing");
}

fn recorded() -> Vec<Value> {
    let text = std::fs::read_to_string(goldens().join("checker/checker.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Checks that a scene is the one that the Python program read.
fn same_scene(name: &str, found: &Scene, expected: &Value) {
    assert_eq!(found.background, expected["background"], "{name}: background");
    assert_eq!(found.pattern, expected["pattern"], "{name}: pattern");
    let objects = expected["objects"].as_array().unwrap();
    assert_eq!(found.objects.len(), objects.len(), "{name}: {found:?}");
    for (found, expected) in found.objects.iter().zip(objects) {
        assert_eq!(found.shape, expected["shape"], "{name}: shape");
        assert_eq!(found.color, expected["color"], "{name}: colour");
        for (what, found) in
            [("radius", found.radius), ("overlap", found.overlap), ("x", found.x), ("y", found.y)]
        {
            let expected = expected[what].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-12, "{name}: {what} is {found}, expected {expected}");
        }
    }
}

#[test]
fn the_checker_reads_what_the_python_program_reads() {
    let checker = Checker::new();
    let pictures = recorded();
    let mut wrong = std::collections::BTreeMap::new();
    for entry in &pictures {
        let name = entry["file"].as_str().unwrap();
        let picture = picture(&format!("checker/{name}"));
        same_scene(name, &checker.read(&picture).unwrap(), &entry["scene"]);
        for line in entry["prompts"].as_array().unwrap() {
            let prompt = line["prompt"].as_str().unwrap();
            let verdict = checker.check(&picture, prompt).unwrap();
            let found: Vec<&str> = verdict
                .attributes()
                .iter()
                .filter(|(_, right)| !right)
                .map(|(attribute, _)| *attribute)
                .collect();
            let expected: Vec<&str> = line["wrong"]
                .as_array()
                .unwrap()
                .iter()
                .map(|attribute| attribute.as_str().unwrap())
                .collect();
            assert_eq!(found, expected, "{name}: wrong of \"{prompt}\"");
            assert_eq!(verdict.all(), line["all"], "{name}: all of \"{prompt}\"");
            for attribute in found {
                *wrong.entry(attribute.to_owned()).or_insert(0) += 1;
            }
        }
    }
    // The comparison is worth something only if the goldens hold right and wrong ones of everything.
    assert!(pictures.len() >= 65, "{} pictures", pictures.len());
    assert_eq!(wrong.len(), 7, "attributes that are wrong somewhere: {wrong:?}");
    assert!(wrong.values().all(|count| *count >= 5), "{wrong:?}");
    let right = pictures.iter().filter(|entry| entry["prompts"][0]["all"] == true).count();
    assert!(right >= 40, "{right} are wholly right");
}

#[test]
fn the_checker_sees_one_changed_colour() {
    let checker = Checker::new();
    let prompt = "a large red circle in the center on a blue background";
    let mut drawn = picture("checker/00.png");
    let perfect = checker.check(&drawn, prompt).unwrap();
    assert!(perfect.all(), "{perfect:?}");
    for pixel in drawn.pixels.chunks_exact_mut(3).filter(|pixel| pixel[0] > 150 && pixel[2] < 100) {
        pixel.swap(0, 1);
    }
    let verdict = checker.check(&drawn, prompt).unwrap();
    assert_eq!(verdict, Verdict { color: false, ..perfect });
}

#[test]
fn what_the_checker_cannot_judge_is_an_error() {
    let checker = Checker::new();
    let drawn = picture("checker/00.png");
    for (prompt, words) in [
        ("", "has \"nothing\" where a caption of the tiny model has its size"),
        ("a large red dog on a blue background", "\"dog\""),
        ("a huge red circle on a blue background", "\"huge\""),
        ("a large red circle on a brown background", "\"brown\""),
        ("a large red circle on a brown striped background", "\"brown\""),
        ("a large red circle", "its background"),
        ("background large red circle", "its background"),
    ] {
        let message = checker.check(&drawn, prompt).unwrap_err().to_string();
        assert!(message.starts_with("prompt: ") && message.contains(words), "{message}");
    }
    let message = checker.read(&crop(&drawn, 0, 0, 128, 64)).unwrap_err().to_string();
    assert_eq!(message, "picture: the checker reads 128x128 pixels, not 128x64");
}

#[test]
fn tables_are_written_for_people_spreadsheets_and_programs() {
    let mut table = Table::new(&["method", "calls", "PSNR, dB"]);
    table.push(vec!["every | step".into(), 50.into(), Cell::Number(f64::INFINITY, 1)]).unwrap();
    table.push(vec!["a \"quoted\", one".to_owned().into(), 17.into(), Cell::Number(44.96, 1)]).unwrap();
    table.push(vec![" broken\nline".into(), 5.into(), Cell::Missing]).unwrap();
    assert_eq!(
        table.markdown(),
        "\
| method          | calls | PSNR, dB |
| --------------- | ----: | -------: |
| every \\| step   |    50 |        ∞ |
| a \"quoted\", one |    17 |     45.0 |
|  broken line    |     5 |        – |
"
    );
    assert_eq!(
        table.csv(),
        "method,calls,\"PSNR, dB\"\nevery | step,50,inf\n\"a \"\"quoted\"\", one\",17,44.96\n\" broken\nline\",5,\n"
    );
    assert_eq!(
        table.json(),
        serde_json::json!([
            {"method": "every | step", "calls": 50, "PSNR, dB": null},
            {"method": "a \"quoted\", one", "calls": 17, "PSNR, dB": 44.96},
            {"method": " broken\nline", "calls": 5, "PSNR, dB": null},
        ])
    );
    let message = table.push(vec!["short".into()]).unwrap_err().to_string();
    assert_eq!(message, "table: a row has 1 cells for 3 columns");
}
