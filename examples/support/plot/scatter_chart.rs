//! Points with their uncertainty in two measures.

use std::path::Path;

use deepcache::Result;

use super::axis::Axis;
use super::canvas::{Align, Area, Canvas, Point};
use super::font::Font;
use super::frame::{EDGE, Frame, LINE, Words, title_height};
use super::labels::{Label, places};
use super::legend::{Entry, Legend};
use super::style::{DARK, GRAY, Style};
use super::{SMALL, WIDTH, refused};

/// Height of the chart in units of the layout.
const HEIGHT: f64 = 640.0;
/// Half of the length of the strokes at the ends of error bars.
const CAP: f64 = 4.0;

/// A value and how far it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The value itself.
    pub(crate) value: f64,
    /// The lower end of its error bar.
    pub(crate) lower: f64,
    /// The upper end of its error bar.
    pub(crate) upper: f64,
}

impl Spread {
    /// A value without an error bar.
    pub(crate) fn exact(value: f64) -> Self {
        Self { value, lower: value, upper: value }
    }
}

/// One point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScatterPoint<'a> {
    /// What is written beside it; empty for nothing.
    pub(crate) label: &'a str,
    /// The points of a group have one colour and one mark, which the legend explains; empty for no line in the legend.
    pub(crate) group: &'a str,
    /// How far to the right it lies.
    pub(crate) x: Spread,
    /// How far up it lies.
    pub(crate) y: Spread,
}

/// Points over common axes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScatterChart<'a> {
    /// What is shown; empty for none.
    pub(crate) title: &'a str,
    /// What is to the right.
    pub(crate) x_label: &'a str,
    /// What is upwards.
    pub(crate) y_label: &'a str,
    /// The points; those with a value that is not finite are left out.
    pub(crate) points: &'a [ScatterPoint<'a>],
    /// The points that a line connects, by their number and in its order: the Pareto front. Empty for no line.
    pub(crate) front: &'a [usize],
    /// Whether the x-axis is logarithmic.
    pub(crate) log_x: bool,
    /// Whether the y-axis is logarithmic.
    pub(crate) log_y: bool,
}

/// Draws points with error bars, and labels where they hide least.
///
/// # Errors
/// [`deepcache::Error::Option`] if there is nothing to draw, the front names a point that is not there, or a logarithmic
/// axis has values that are not positive; [`deepcache::Error::Io`] if the file cannot be written.
pub(crate) fn scatter(path: impl AsRef<Path>, chart: &ScatterChart<'_>) -> Result<()> {
    if let Some(number) = chart.front.iter().find(|number| **number >= chart.points.len()) {
        let problem = format!("its front names point {number} of {}", chart.points.len());
        return Err(refused(chart.title, problem));
    }
    let shown = |point: &&ScatterPoint<'_>| (point.x.value + point.y.value).is_finite();
    let ends = |spread: Spread| [spread.lower, spread.value, spread.upper];
    let points = chart.points.iter().filter(shown);
    let refuse = |axis, problem| refused(chart.title, format!("the {axis}-axis {problem}"));
    let x = Axis::new(points.clone().flat_map(|point| ends(point.x)), chart.log_x, None)
        .map_err(|problem| refuse("x", problem))?;
    let y = Axis::new(points.clone().flat_map(|point| ends(point.y)), chart.log_y, None)
        .map_err(|problem| refuse("y", problem))?;

    let mut groups: Vec<&str> = Vec::new();
    for point in points.clone() {
        if !groups.contains(&point.group) {
            groups.push(point.group);
        }
    }
    let style = |point: &ScatterPoint<'_>| {
        Style::of(groups.iter().position(|group| *group == point.group).unwrap_or(0))
    };

    // 1. legend and axes
    let named = groups.iter().enumerate().filter(|(_, group)| !group.is_empty());
    let mut entries: Vec<Entry<'_>> = named
        .map(|(number, name)| Entry { name, style: Style::of(number), line: false, mark: true })
        .collect();
    let front = Style { ink: GRAY, dash: &[6.0, 4.0], ..Style::of(0) };
    if !chart.front.is_empty() {
        entries.push(Entry { name: "Pareto front", style: front, line: true, mark: false });
    }
    let (font, width) = (Font::new()?, WIDTH - 2.0 * EDGE);
    let legend = Legend::new(&font, entries, width);
    let (width, height) = (width.max(legend.width()), HEIGHT + legend.height());
    let mut canvas = Canvas::new(width + 2.0 * EDGE, height)?;
    let sheet = Area { left: EDGE, top: EDGE, width, height: height - 2.0 * EDGE };
    let rest = legend.draw(&mut canvas, &sheet, EDGE + title_height(&font, chart.title, width));
    let words = Words { title: chart.title, x_label: chart.x_label, y_label: chart.y_label };
    let frame = Frame::draw(&mut canvas, &rest, &words, x, y);

    // 2. front, error bars, marks
    let place = |point: &ScatterPoint<'_>| frame.place((point.x.value, point.y.value));
    let connected = chart.front.iter().map(|number| &chart.points[*number]).filter(shown);
    let connected: Vec<Point> = connected.map(place).collect();
    canvas.line(&connected, 1.6, front.dash, front.ink);
    let mut lines: Vec<(Point, Point)> = connected.windows(2).map(|pair| (pair[0], pair[1])).collect();
    for point in points.clone() {
        let bars = error_bars(&frame, point);
        for (from, to) in &bars {
            canvas.line(&[*from, *to], 1.4, &[], style(point).ink.faint(0.75));
        }
        lines.extend(bars);
    }
    for point in points.clone() {
        let Style { form, filled, ink, .. } = style(point);
        canvas.mark(form, place(point), 5.5, filled, ink);
    }

    // 3. labels
    let labelled: Vec<&ScatterPoint<'_>> = points.collect();
    let labels: Vec<Label> = labelled
        .iter()
        .map(|point| Label {
            point: place(point),
            width: canvas.font().width(point.label, SMALL),
            height: if point.label.is_empty() { 0.0 } else { SMALL * LINE * 0.85 },
        })
        .collect();
    for (point, found) in labelled.iter().zip(places(&labels, &lines, &frame.area)) {
        if let Some(end) = found.lead.filter(|_| !point.label.is_empty()) {
            canvas.line(&[place(point), end], 1.0, &[], GRAY);
        }
        canvas.text_with_rim(point.label, found.middle, SMALL, Align::Center, DARK);
    }
    for point in labelled {
        let Style { form, filled, ink, .. } = style(point);
        canvas.mark(form, place(point), 5.5, filled, ink); // again, above the lines that lead to labels
    }
    canvas.save(path.as_ref())
}

/// The strokes of a point's error bars; none where a value is exact.
fn error_bars(frame: &Frame, point: &ScatterPoint<'_>) -> Vec<(Point, Point)> {
    let ScatterPoint { x, y, .. } = point;
    let mut strokes = Vec::new();
    if x.lower < x.upper {
        let (from, to) = (frame.place((x.lower, y.value)), frame.place((x.upper, y.value)));
        strokes.push((from, to));
        strokes.extend([from, to].map(|(x, y)| ((x, y - CAP), (x, y + CAP))));
    }
    if y.lower < y.upper {
        let (from, to) = (frame.place((x.value, y.lower)), frame.place((x.value, y.upper)));
        strokes.push((from, to));
        strokes.extend([from, to].map(|(x, y)| ((x - CAP, y), (x + CAP, y))));
    }
    strokes
}
