//! The charts of the programs that study caching, looked at pixel by pixel.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

#[path = "../examples/support/plot/mod.rs"]
mod plot;

use std::collections::HashMap;

use deepcache::image::Picture;
use deepcache::{Error, Result};
use image::RgbImage;
use plot::{
    HeatMap, LineChart, Marks, PictureCell, PictureGrid, PictureRow, ScatterChart, ScatterPoint, Series,
    Spread, grid_of_pictures, heat_map, lines, scatter,
};

const WHITE: [u8; 3] = [255; 3];
/// The ends of viridis.
const DARKEST: [u8; 3] = [68, 1, 84];
const BRIGHTEST: [u8; 3] = [253, 231, 37];
/// The colours of the first three series.
const INKS: [[u8; 3]; 3] = [[0, 114, 178], [213, 94, 0], [0, 158, 115]];
/// A text that needs more than one line anywhere.
const LONG: &str = "A title that says so much about what is shown, how it was measured, on which prompts, with how \
    many steps and with which model, that it needs more than one line";

/// What a chart looks like; writes it into a folder of its own.
fn drawn(draw: impl FnOnce(&std::path::Path) -> Result<()>) -> RgbImage {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chart.png");
    draw(&path).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["chart.png"], "one file and nothing beside it");
    image::open(&path).unwrap().into_rgb8()
}

/// The words of an error, after which there must be no file.
fn refused(draw: impl FnOnce(&std::path::Path) -> Result<()>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = draw(&folder.path().join("chart.png")).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file after: {error}");
    assert!(matches!(error, Error::Option { .. }), "{error:?}");
    error.to_string()
}

/// How often each colour occurs.
fn tones(image: &RgbImage) -> HashMap<[u8; 3], usize> {
    let mut counts = HashMap::new();
    for pixel in image.pixels() {
        *counts.entry(pixel.0).or_insert(0) += 1;
    }
    counts
}

fn count(image: &RgbImage, tone: [u8; 3]) -> usize {
    image.pixels().filter(|pixel| pixel.0 == tone).count()
}

/// Rows in which a colour occurs, first and last, as shares of the height.
fn rows(image: &RgbImage, tone: [u8; 3]) -> (f64, f64) {
    let rows: Vec<u32> =
        image.enumerate_pixels().filter(|(_, _, pixel)| pixel.0 == tone).map(|(_, row, _)| row).collect();
    let share = |row: Option<&u32>| f64::from(*row.unwrap()) / f64::from(image.height());
    (share(rows.iter().min()), share(rows.iter().max()))
}

#[track_caller]
fn keeps_a_white_edge(image: &RgbImage) {
    const EDGE: u32 = 16;
    let (width, height) = image.dimensions();
    let at_edge = |x: u32, y: u32| x.min(y).min(width - 1 - x).min(height - 1 - y) < EDGE;
    let inked = image.enumerate_pixels().find(|(x, y, pixel)| at_edge(*x, *y) && pixel.0 != WHITE);
    assert!(inked.is_none(), "cut off or nearly so: {inked:?} of {width}x{height}");
}

fn matrix(values: &[Vec<f64>]) -> HeatMap<'_> {
    HeatMap { title: "t", x_label: "x", y_label: "y", values, range: (0.0, 1.0), legend: "values" }
}

fn series(name: &str, points: Vec<(f64, f64)>) -> Series<'_> {
    Series { name, points, band: None, marks: Marks::None }
}

fn curves<'a>(series: &'a [Series<'a>]) -> LineChart<'a> {
    LineChart { title: "t", x_label: "x", y_label: "y", series, log_x: false, log_y: false, y_range: None }
}

fn points<'a>(points: &'a [ScatterPoint<'a>]) -> ScatterChart<'a> {
    ScatterChart { title: "t", x_label: "x", y_label: "y", points, front: &[], log_x: false, log_y: false }
}

fn point<'a>(label: &'a str, group: &'a str, x: f64, y: f64) -> ScatterPoint<'a> {
    let around = |value: f64| Spread { value, lower: value - 0.4, upper: value + 0.2 };
    ScatterPoint { label, group, x: around(x), y: around(y) }
}

#[test]
fn a_heat_map_has_a_square_of_its_colour_for_every_value() {
    let values = [vec![0.0, 1.0], vec![f64::NAN, 7.0]];
    let image = drawn(|path| heat_map(path, &matrix(&values)));
    let cell = 640 * 640; // two cells along 640 units of two pixels
    let near = |found: usize, expected: usize| found > expected * 99 / 100 && found < expected * 103 / 100;
    let (dark, bright) = (count(&image, DARKEST), count(&image, BRIGHTEST));
    assert!(near(dark, cell), "{dark} of {cell}: the value 0 once");
    assert!(near(bright, 2 * cell), "{bright} of {cell}: the value 1, and 7 beyond the end of the range");
    keeps_a_white_edge(&image);
    let blank = drawn(|path| heat_map(path, &matrix(&[vec![f64::NAN; 3], vec![f64::NAN; 3]])));
    let white = count(&blank, WHITE) * 10 / (blank.width() * blank.height()) as usize;
    assert!(
        blank.width() > blank.height() && white >= 8,
        "only the bar has colours: {white} tenths are white"
    );
}

#[test]
fn curves_lie_at_their_values() {
    let at = |value: f64| vec![(0.0, value), (10.0, value)];
    let all = [series("low", at(1.0)), series("high", at(9.0)), series("middle", at(5.0))];
    let chart = LineChart { y_range: Some((0.0, 10.0)), ..curves(&all) };
    let image = drawn(|path| lines(path, &chart));
    // without the legend, which lies right of the data
    let data = image::imageops::crop_imm(&image, 0, 0, 1600, image.height()).to_image();
    let [low, high, middle] = INKS.map(|ink| rows(&data, ink));
    for (first, last) in [low, high, middle] {
        assert!(last - first < 0.006, "a horizontal line: {first} to {last}");
    }
    assert!(high.1 < middle.0 && middle.1 < low.0, "upwards is more");
    let share = (low.0 - middle.0) / (low.0 - high.0);
    assert!((share - 0.5).abs() < 0.01, "the middle lies halfway: {share}");
    keeps_a_white_edge(&image);
}

#[test]
fn what_is_not_finite_or_out_of_range_is_not_drawn() {
    let broken =
        [series("", vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0), (3.0, f64::INFINITY), (4.0, 1.0)])];
    let image = drawn(|path| lines(path, &curves(&broken)));
    assert_eq!(count(&image, INKS[0]), 0, "no two neighbours are finite");
    for value in [1.05, 100.0, -0.05] {
        let far = [series("", vec![(0.0, value), (4.0, value)])];
        let image = drawn(|path| lines(path, &LineChart { y_range: Some((0.0, 1.0)), ..curves(&far) }));
        assert_eq!(count(&image, INKS[0]), 0, "{value} is out of the range");
    }
    let infinite =
        [point("a", "g", 1.0, 1.0), point("b", "h", 2.0, f64::INFINITY), point("c", "g", 3.0, 2.0)];
    let image = drawn(|path| scatter(path, &points(&infinite)));
    assert_eq!(count(&image, INKS[1]), 0, "neither the point nor its group");
}

#[test]
fn bands_marks_and_names_are_drawn() {
    let ramp: Vec<(f64, f64)> = (0..20).map(|step| (f64::from(step), f64::from(step))).collect();
    let plain = [series("", ramp.clone())];
    let ink = |all: &[Series<'_>]| count(&drawn(|path| lines(path, &curves(all))), INKS[0]);
    let bare = ink(&plain);
    let [some, all] = [Marks::Some, Marks::All].map(|marks| ink(&[Series { marks, ..plain[0].clone() }]));
    assert!(bare < some && some < all, "{bare}, {some}, {all}");
    assert!(ink(&[series("named", ramp.clone())]) != bare, "a legend");
    let band = Some(ramp.iter().map(|(_, y)| (y - 2.0, y + 2.0)).collect());
    let banded = drawn(|path| lines(path, &curves(&[Series { band, ..plain[0].clone() }])));
    let shade = tones(&banded).into_iter().filter(|(tone, _)| ![WHITE, INKS[0]].contains(tone));
    let (tone, pixels) = shade.max_by_key(|(_, pixels)| *pixels).unwrap();
    assert!(tone[2] > tone[0] && tone[0] > 200 && pixels > 100_000, "a pale blue band: {tone:?} {pixels}");
}

#[test]
fn points_have_marks_error_bars_labels_and_a_front() {
    let exact = |label, x, y| ScatterPoint { label, group: "", x: Spread::exact(x), y: Spread::exact(y) };
    let bare = [exact("", 1.0, 1.0), exact("", 2.0, 3.0)];
    let ink = |image: &RgbImage| count(image, INKS[0]);
    let marks = drawn(|path| scatter(path, &points(&bare)));
    assert!(ink(&marks) > 500, "two marks: {}", ink(&marks));
    let front = drawn(|path| scatter(path, &ScatterChart { front: &[0, 1], ..points(&bare) }));
    let gray = [130; 3];
    assert!(count(&marks, gray) < 100 && count(&front, gray) > 1000, "a line and its name");
    let labelled = drawn(|path| scatter(path, &points(&[exact("one", 1.0, 1.0), exact("two", 2.0, 3.0)])));
    let dark = [38; 3];
    assert!(count(&labelled, dark) > count(&marks, dark) + 200, "two labels");
    let bars = drawn(|path| scatter(path, &points(&[point("", "", 1.0, 1.0), point("", "", 2.0, 3.0)])));
    let inked =
        |image: &RgbImage| image.pixels().filter(|pixel| pixel.0[2] > pixel.0[0].saturating_add(80)).count();
    assert!(inked(&bars) > inked(&marks) + 1000, "error bars: {} and {}", inked(&bars), inked(&marks));
}

#[test]
fn no_text_is_cut_off_however_long() {
    let values = vec![vec![0.5; 50]; 50];
    let wide = HeatMap {
        title: LONG,
        x_label: LONG,
        y_label: LONG,
        range: (0.0, 1e6),
        legend: LONG,
        ..matrix(&values)
    };
    keeps_a_white_edge(&drawn(|path| heat_map(path, &wide)));
    for name in ["short", "a name that is too wide to stand beside the data", LONG] {
        let count = 12;
        let all: Vec<Series<'_>> = (1..=count)
            .map(|number| series(name, vec![(0.0, -1e5 * f64::from(number)), (99_999.0, 1e5)]))
            .collect();
        keeps_a_white_edge(&drawn(|path| {
            lines(path, &LineChart { title: LONG, x_label: LONG, y_label: LONG, ..curves(&all) })
        }));
    }
    let crowd: Vec<ScatterPoint<'_>> = (0..20)
        .map(|number| {
            point("N = 5, branch 11", "group", 50.0 + f64::from(number % 5) * 9.0, f64::from(number))
        })
        .collect();
    let chart = ScatterChart { title: LONG, log_x: true, front: &[0, 7, 13], ..points(&crowd) };
    keeps_a_white_edge(&drawn(|path| scatter(path, &chart)));
    let picture = Picture { width: 30, height: 20, pixels: vec![9; 1800] };
    let rows = [PictureRow { title: LONG, cells: vec![PictureCell { picture: &picture, note: "" }; 3] }];
    let grid =
        PictureGrid { title: LONG, column_titles: &["one or two", "b", LONG], rows: &rows, magnification: 4 };
    keeps_a_white_edge(&drawn(|path| grid_of_pictures(path, &grid)));
}

#[test]
fn a_grid_holds_every_pixel_of_every_picture() {
    let tone = |number: u32| [number % 200, number / 200, 40].map(|value| u8::try_from(value).unwrap());
    let pictures: Vec<Picture> = (0..4)
        .map(|picture| Picture {
            width: 20,
            height: 10,
            pixels: (0..200).flat_map(|pixel| tone(picture * 200 + pixel)).collect(),
        })
        .collect();
    let cells = |range: std::ops::Range<usize>| -> Vec<PictureCell<'_>> {
        pictures[range].iter().map(|picture| PictureCell { picture, note: "12.3 dB" }).collect()
    };
    let rows =
        [PictureRow { title: "first", cells: cells(0..3) }, PictureRow { title: "", cells: cells(3..4) }];
    for magnification in [1, 2, 3, 5] {
        let titles = ["a", "b", "c"];
        let grid = PictureGrid { title: "t", column_titles: &titles, rows: &rows, magnification };
        let image = drawn(|path| grid_of_pictures(path, &grid));
        for number in 0..800 {
            let places: Vec<(u32, u32)> = image
                .enumerate_pixels()
                .filter(|(_, _, pixel)| pixel.0 == tone(number))
                .map(|(x, y, _)| (x, y))
                .collect();
            let (left, top) = places[0];
            let square =
                (0..magnification.pow(2)).map(|k| (left + k % magnification, top + k / magnification));
            assert_eq!(places, square.collect::<Vec<_>>(), "pixel {number}, magnified {magnification} times");
        }
    }
}

#[test]
fn what_cannot_be_drawn_is_an_error_and_leaves_no_file() {
    let message = refused(|path| heat_map(path, &matrix(&[vec![1.0, 2.0], vec![1.0]])));
    assert_eq!(message, "chart \"t\": its rows are empty or of different lengths");
    assert!(refused(|path| heat_map(path, &matrix(&[]))).contains("empty"), "no rows");
    let message = refused(|path| heat_map(path, &HeatMap { range: (1.0, 1.0), ..matrix(&[vec![1.0]]) }));
    assert_eq!(message, "chart \"t\": its colours range from 1 to 1");

    assert_eq!(refused(|path| lines(path, &curves(&[]))), "chart \"t\": the x-axis has no values");
    let zero = [series("a", vec![(1.0, 0.0), (2.0, 1.0)])];
    let message = refused(|path| lines(path, &LineChart { log_y: true, ..curves(&zero) }));
    assert_eq!(message, "chart \"t\": the y-axis is logarithmic and has the value 0");
    let short = [Series { band: Some(vec![(0.0, 1.0)]), ..zero[0].clone() }];
    let message = refused(|path| lines(path, &curves(&short)));
    assert_eq!(message, "chart \"t\": \"a\" has 2 points, its band 1");

    let two = [point("a", "", 1.0, 1.0), point("b", "", 2.0, 2.0)];
    let message = refused(|path| scatter(path, &ScatterChart { front: &[0, 2], ..points(&two) }));
    assert_eq!(message, "chart \"t\": its front names point 2 of 2");

    let broken = Picture { width: 2, height: 2, pixels: vec![0; 11] };
    let rows = [PictureRow { title: "", cells: vec![PictureCell { picture: &broken, note: "" }] }];
    let grid = PictureGrid { title: "t", column_titles: &[], rows: &rows, magnification: 1 };
    let message = refused(|path| grid_of_pictures(path, &grid));
    assert_eq!(message, "chart \"t\": 11 bytes do not fill a picture of 2x2");
    let message = refused(|path| grid_of_pictures(path, &PictureGrid { rows: &[], ..grid }));
    assert_eq!(message, "chart \"t\": it has no pictures or no magnification");

    let folder = tempfile::tempdir().unwrap();
    let error = lines(folder.path().join("missing/chart.png"), &curves(&[series("a", vec![(1.0, 1.0)])]));
    assert!(matches!(error, Err(Error::Io { .. })), "{error:?}");
}
