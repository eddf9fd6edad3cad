//! Curves.

use std::path::Path;

use deepcache::Result;

use super::axis::Axis;
use super::canvas::{Area, Canvas, Point};
use super::font::Font;
use super::frame::{EDGE, Frame, Words, title_height};
use super::legend::{Entry, Legend};
use super::style::Style;
use super::{WIDTH, refused};

/// Height of the chart in units of the layout.
const HEIGHT: f64 = 600.0;
/// Marks of a series that has some of them, about.
const SOME: usize = 10;

/// Which points of a series have a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// No point.
    None,
    /// Every so many points, at other points in each series, for long curves that lie close.
    Some,
    /// Every point.
    All,
}

/// One curve.
#[derive(Clone, Debug)]
pub(crate) struct Series<'a> {
    /// Its name in the legend; without names there is no legend.
    pub(crate) name: &'a str,
    /// Pairs of values in the order of the curve; where one is not finite the curve has a gap.
    pub(crate) points: Vec<(f64, f64)>,
    /// Lower and upper value at each point, as of a confidence interval.
    pub(crate) band: Option<Vec<(f64, f64)>>,
    /// Which points have a mark.
    pub(crate) marks: Marks,
}

/// Curves over common axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineChart<'a> {
    /// What is shown; empty for none.
    pub(crate) title: &'a str,
    /// What is to the right.
    pub(crate) x_label: &'a str,
    /// What is upwards.
    pub(crate) y_label: &'a str,
    /// The curves; the first 21 differ in colour, form of marks and dash.
    pub(crate) series: &'a [Series<'a>],
    /// Whether the x-axis is logarithmic.
    pub(crate) log_x: bool,
    /// Whether the y-axis is logarithmic.
    pub(crate) log_y: bool,
    /// The ends of the y-axis [default: all values]; what lies outside is cut off.
    pub(crate) y_range: Option<(f64, f64)>,
}

/// Draws curves.
///
/// # Errors
/// [`deepcache::Error::Option`] if there is nothing to draw, a band has not one pair for each point, or a logarithmic
/// axis has values that are not positive; [`deepcache::Error::Io`] if the file cannot be written.
pub(crate) fn lines(path: impl AsRef<Path>, chart: &LineChart<'_>) -> Result<()> {
    for series in chart.series {
        if let Some(band) = &series.band
            && band.len() != series.points.len()
        {
            let problem =
                format!("\"{}\" has {} points, its band {}", series.name, series.points.len(), band.len());
            return Err(refused(chart.title, problem));
        }
    }
    let points = chart.series.iter().flat_map(|series| series.points.iter());
    let bands = chart.series.iter().flat_map(|series| series.band.iter().flatten());
    let values = points.clone().map(|(_, y)| *y).chain(bands.flat_map(|(lower, upper)| [*lower, *upper]));
    let axis = |axis: &str| {
        let axis = axis.to_owned();
        move |problem: String| refused(chart.title, format!("the {axis}-axis {problem}"))
    };
    let x = Axis::new(points.map(|(x, _)| *x), chart.log_x, None).map_err(axis("x"))?;
    let y = Axis::new(values, chart.log_y, chart.y_range).map_err(axis("y"))?;

    let named = chart.series.iter().enumerate().filter(|(_, series)| !series.name.is_empty());
    let entries: Vec<Entry<'_>> = named
        .map(|(number, series)| Entry {
            name: series.name,
            style: Style::of(number),
            line: true,
            mark: series.marks != Marks::None,
        })
        .collect();
    let (font, width) = (Font::new()?, WIDTH - 2.0 * EDGE);
    let legend = Legend::new(&font, entries, width);
    let (width, height) = (width.max(legend.width()), HEIGHT + legend.height());
    let mut canvas = Canvas::new(width + 2.0 * EDGE, height)?;
    let sheet = Area { left: EDGE, top: EDGE, width, height: height - 2.0 * EDGE };
    let rest = legend.draw(&mut canvas, &sheet, EDGE + title_height(&font, chart.title, width));
    let words = Words { title: chart.title, x_label: chart.x_label, y_label: chart.y_label };
    let frame = Frame::draw(&mut canvas, &rest, &words, x, y);

    canvas.clip(&frame.area);
    for (number, series) in chart.series.iter().enumerate() {
        draw_band(&mut canvas, &frame, series, &Style::of(number));
    }
    for (number, series) in chart.series.iter().enumerate() {
        let Style { ink, dash, .. } = Style::of(number);
        for stretch in stretches(&series.points) {
            let places: Vec<Point> = stretch.iter().map(|point| frame.place(*point)).collect();
            canvas.line(&places, 2.2, dash, ink);
        }
    }
    canvas.unclip();
    for (number, series) in chart.series.iter().enumerate() {
        draw_marks(&mut canvas, &frame, series, number, chart.series.len());
    }
    canvas.save(path.as_ref())
}

fn draw_band(canvas: &mut Canvas, frame: &Frame, series: &Series<'_>, style: &Style) {
    let Some(band) = &series.band else { return };
    let ends = |choose: fn(&(f64, f64)) -> f64| -> Vec<Point> {
        let pairs = series.points.iter().zip(band);
        let finite = pairs.filter(|((x, _), (lower, upper))| (x + lower + upper).is_finite());
        finite.map(|((x, _), pair)| frame.place((*x, choose(pair)))).collect()
    };
    let (lower, mut upper) = (ends(|pair| pair.0), ends(|pair| pair.1));
    upper.reverse();
    canvas.polygon(&[lower, upper].concat(), style.ink.faint(0.16));
}

fn draw_marks(canvas: &mut Canvas, frame: &Frame, series: &Series<'_>, number: usize, of: usize) {
    let every = match series.marks {
        Marks::None => return,
        Marks::Some => series.points.len().div_ceil(SOME).max(1),
        Marks::All => 1,
    };
    let Style { ink, form, filled, .. } = Style::of(number);
    let first = every * number / of.max(1);
    for point in series.points.iter().skip(first).step_by(every) {
        let (x, y) = frame.place(*point);
        let Area { left, top, .. } = frame.area;
        if (left - 1.0..=frame.area.right() + 1.0).contains(&x)
            && (top - 1.0..=frame.area.bottom() + 1.0).contains(&y)
        {
            canvas.mark(form, (x, y), 5.0, filled, ink);
        }
    }
}

/// The pieces of a curve between its gaps.
fn stretches(points: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    points.split(|(x, y)| !(x + y).is_finite()).filter(|stretch| !stretch.is_empty())
}
