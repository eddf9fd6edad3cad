//! The command line from a picture, with the model that comes with the library.

#![expect(clippy::unwrap_used, reason = "a test that fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fs;
use std::path::Path;

use deepcache::image::Picture;
use program::{command_of, failed, names};
use support::repository;

fn fixtures(folder: &Path) {
    for name in ["picture.png", "mask.png", "odd.png"] {
        fs::copy(repository("tests/goldens/image-to-image").join(name), folder.join(name)).unwrap();
    }
    // The same picture as a photograph.
    let picture = image::open(folder.join("odd.png")).unwrap().into_rgb8();
    picture.save(folder.join("odd.jpg")).unwrap();
    fs::write(folder.join("text.png"), "no picture").unwrap();
}

const PROMPT: &str = "a large red circle on a blue background";

#[test]
fn pictures_are_drawn_from_pictures() {
    let folder = tempfile::tempdir().unwrap();
    fixtures(folder.path());
    let run = |output: &str, more: &[&str]| {
        let usual =
            [PROMPT, "--quiet", "--steps", "4", "--scheduler", "ddim", "--seed", "3", "--output", output];
        let arguments = [&usual, more].concat();
        let result = command_of("generate", folder.path(), &arguments).output().unwrap();
        assert!(result.status.success(), "{more:?}: {}", String::from_utf8_lossy(&result.stderr));
        Picture::read(folder.path().join(output), "picture").unwrap()
    };
    let little = run("little.png", &["--image", "picture.png", "--strength", "0.25"]);
    let much = run("much.png", &["--image", "picture.png", "--strength", "1"]);
    let original = Picture::read(folder.path().join("picture.png"), "picture").unwrap();
    let apart = |picture: &Picture| -> u64 {
        assert_eq!(picture.size(), original.size(), "as large as the picture");
        picture.pixels.iter().zip(&original.pixels).map(|(one, other)| u64::from(one.abs_diff(*other))).sum()
    };
    assert!(apart(&little) < apart(&much), "more strength is further away");
    let text = fs::read(folder.path().join("little.png")).unwrap();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("Image: picture.png, Denoising strength: 0.25"), "how it was made");

    // A photograph whose sides fit no latents.
    let odd = run("odd-out.png", &["--image", "odd.jpg", "--strength", "0.5"]);
    let step = 8;
    assert_eq!(odd.size(), [101 / step * step, 150 / step * step], "rounded down");

    // A mask leaves the rest alone.
    let masked = run("masked.png", &["--image", "picture.png", "--mask", "mask.png"]);
    assert!(apart(&masked) < apart(&much), "only a part is drawn anew");
}

#[test]
fn what_does_not_fit_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fixtures(folder.path());
    let before = names(folder.path()).len();
    let rows: [(&[&str], i32, &[&str]); 7] = [
        (&["--strength", "0.5"], 2, &["--image"]),
        (&["--mask", "mask.png"], 2, &["--image"]),
        (&["--image", "none.png"], 1, &["none.png"]),
        (&["--image", "text.png"], 2, &["--image", "text.png is no picture", "png"]),
        (&["--image", "picture.png", "--strength", "2"], 2, &["--strength", "expected 0 to 1, found 2"]),
        (&["--image", "picture.png", "--strength", "0.01"], 2, &["--strength", "less than one"]),
        (&["--image", "odd.png", "--mask", "mask.png"], 2, &["--mask", "128x128", "150x101"]),
    ];
    for (more, code, words) in rows {
        let arguments = [&[PROMPT, "--quiet"], more].concat();
        let output = command_of("generate", folder.path(), &arguments).output().unwrap();
        failed(&more.join(" "), &output, code, words);
    }
    assert_eq!(names(folder.path()).len(), before, "files were left");
}
