//! Finds places for labels beside their points: on no mark, on no other label, and on as little else as possible.

use super::canvas::{Area, Point};

/// Distances between a point and its label that are tried, in units of the layout.
const DISTANCES: [f64; 6] = [9.0, 16.0, 26.0, 40.0, 58.0, 80.0];
/// Directions that are tried at each distance.
const DIRECTIONS: usize = 24;
/// Labels further away than this get a line that leads to their point.
const NEAR: f64 = 20.0;
/// Rounds in which every label may move once more.
const ROUNDS: usize = 30;
/// Half of the side of the square that a mark keeps free.
const MARK: f64 = 7.0;

/// A text that belongs to a point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) point: Point,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Where a text goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    point: Point,
    /// The middle of the text.
    pub(super) middle: Point,
    /// The end of the line that leads to the point, if the text is far from it.
    pub(super) lead: Option<Point>,
    area: Area,
}

/// Places for all labels within `inside`; `lines` are what the labels should not hide.
pub(super) fn places(labels: &[Label], lines: &[(Point, Point)], inside: &Area) -> Vec<Place> {
    let candidates: Vec<Vec<(Place, f64)>> =
        labels.iter().map(|label| candidates(label, labels, lines, inside)).collect();
    let best = |label: usize, chosen: &[Option<Place>]| {
        let cost = |(place, fixed): &(Place, f64)| {
            let others = chosen.iter().enumerate().filter(|(other, _)| *other != label);
            let between = others.filter_map(|(_, other)| other.as_ref()).map(|other| conflict(place, other));
            fixed + between.sum::<f64>()
        };
        let costs = candidates[label].iter().map(|candidate| (cost(candidate), candidate.0));
        costs.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, place)| place)
    };
    // first the labels with the least room, then each again among the others until none moves
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let room = |label: &usize| candidates[*label].iter().filter(|(_, fixed)| *fixed < 10.0).count();
    order.sort_by_key(room);
    let mut chosen: Vec<Option<Place>> = vec![None; labels.len()];
    for _ in 0..ROUNDS {
        let mut moved = false;
        for label in &order {
            let place = best(*label, &chosen);
            moved |= place.map(|place| place.middle) != chosen[*label].map(|place| place.middle);
            chosen[*label] = place;
        }
        if !moved {
            break;
        }
    }
    chosen.into_iter().flatten().collect()
}

/// All places of a label, each with the cost that no other label changes.
fn candidates(label: &Label, labels: &[Label], lines: &[(Point, Point)], inside: &Area) -> Vec<(Place, f64)> {
    let tries = DISTANCES.iter().flat_map(|distance| (0..DIRECTIONS).map(move |turn| (*distance, turn)));
    tries
        .map(|(distance, turn)| {
            let angle = std::f64::consts::TAU * turn as f64 / DIRECTIONS as f64;
            let (right, down) = (angle.cos(), -angle.sin());
            let middle = (
                label.point.0 + right * (distance + label.width / 2.0),
                label.point.1 + down * (distance + label.height / 2.0),
            );
            let area = Area {
                left: middle.0 - label.width / 2.0,
                top: middle.1 - label.height / 2.0,
                width: label.width,
                height: label.height,
            };
            let lead = (distance > NEAR).then(|| nearest(&area, label.point));
            let place = Place { point: label.point, middle, lead, area };
            let out = (inside.left - area.left).max(area.right() - inside.right()).max(0.0)
                + (inside.top - area.top).max(area.bottom() - inside.bottom()).max(0.0);
            let marks = labels.iter().map(|other| {
                let square = Area {
                    left: other.point.0 - MARK,
                    top: other.point.1 - MARK,
                    width: 2.0 * MARK,
                    height: 2.0 * MARK,
                };
                let led = lead.filter(|_| other.point != label.point);
                common(&area, &square) + led.map_or(0.0, |end| 3.0 * within(&square, label.point, end))
            });
            let hidden = lines.iter().map(|(from, to)| within(&rim(&area), *from, *to));
            let cost = 1000.0 * out
                + 2.0 * marks.sum::<f64>()
                + 2.0 * hidden.sum::<f64>()
                + 0.5 * (distance - DISTANCES[0])
                + 1.0
                - right; // of equal places the one to the right, as one reads
            (place, cost)
        })
        .collect()
}

/// What it costs that two labels stand where they do: their common area, and lines through a text or another line.
fn conflict(place: &Place, other: &Place) -> f64 {
    let hidden =
        |text: &Place, line: &Place| line.lead.map_or(0.0, |end| within(&text.area, line.point, end));
    let crossing = place.lead.zip(other.lead).is_some_and(|(end, other_end)| {
        let apart = |from: Point, to: Point, a: Point, b: Point| side(from, to, a) * side(from, to, b) < 0.0;
        apart(place.point, end, other.point, other_end) && apart(other.point, other_end, place.point, end)
    });
    4.0 * common(&rim(&place.area), &rim(&other.area))
        + 3.0 * (hidden(place, other) + hidden(other, place))
        + if crossing { 40.0 } else { 0.0 }
}

/// Positive on one side of a line, negative on the other.
fn side(from: Point, to: Point, point: Point) -> f64 {
    (to.0 - from.0) * (point.1 - from.1) - (to.1 - from.1) * (point.0 - from.0)
}

/// An area with the room around it that keeps a text apart from other things.
fn rim(area: &Area) -> Area {
    Area { left: area.left - 2.0, top: area.top - 1.0, width: area.width + 4.0, height: area.height + 2.0 }
}

/// The place of an area that is nearest to a point.
fn nearest(area: &Area, point: Point) -> Point {
    (point.0.clamp(area.left, area.right()), point.1.clamp(area.top, area.bottom()))
}

/// The size of what two areas have in common.
fn common(a: &Area, b: &Area) -> f64 {
    let width = a.right().min(b.right()) - a.left.max(b.left);
    let height = a.bottom().min(b.bottom()) - a.top.max(b.top);
    width.max(0.0) * height.max(0.0)
}

/// The length of the part of a line that lies within an area.
///
/// Liang & Barsky 1984, *A new concept and method for line clipping*, <https://doi.org/10.1145/357332.357333>.
fn within(area: &Area, from: Point, to: Point) -> f64 {
    let (x, y) = (to.0 - from.0, to.1 - from.1);
    let (mut enters, mut leaves) = (0.0_f64, 1.0_f64);
    for (direction, room) in [
        (-x, from.0 - area.left),
        (x, area.right() - from.0),
        (-y, from.1 - area.top),
        (y, area.bottom() - from.1),
    ] {
        if direction == 0.0 {
            if room < 0.0 {
                return 0.0;
            }
        } else if direction < 0.0 {
            enters = enters.max(room / direction);
        } else {
            leaves = leaves.min(room / direction);
        }
    }
    (leaves - enters).max(0.0) * x.hypot(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHEET: Area = Area { left: 0.0, top: 0.0, width: 400.0, height: 300.0 };

    fn label(x: f64, y: f64) -> Label {
        Label { point: (x, y), width: 60.0, height: 16.0 }
    }

    #[test]
    fn crowded_labels_share_no_place_and_stay_inside() {
        let labels: Vec<Label> = (0..16)
            .map(|number| label(150.0 + f64::from(number % 4) * 25.0, 100.0 + f64::from(number / 4) * 25.0))
            .collect();
        let found = places(&labels, &[], &SHEET);
        assert_eq!(found.len(), labels.len(), "every label has a place");
        for (number, place) in found.iter().enumerate() {
            let area = place.area;
            assert!(area.left >= 0.0 && area.top >= 0.0, "{area:?}");
            assert!(area.right() <= 400.0 && area.bottom() <= 300.0, "{area:?}");
            for other in &found[number + 1..] {
                assert_eq!(common(&area, &other.area), 0.0, "{place:?} and {other:?}");
            }
            for mark in &labels {
                assert!(
                    within(&area, mark.point, (mark.point.0 + 1.0, mark.point.1)) == 0.0,
                    "{area:?} hides a mark"
                );
            }
        }
    }

    #[test]
    fn a_label_alone_stands_to_the_right_and_avoids_lines() {
        let alone = places(&[label(200.0, 150.0)], &[], &SHEET)[0];
        assert!(alone.middle.0 > 230.0 && alone.middle.1 == 150.0 && alone.lead.is_none(), "{alone:?}");
        let line = ((200.0, 150.0), (400.0, 150.0));
        let beside = places(&[label(200.0, 150.0)], &[line], &SHEET)[0];
        assert_eq!(within(&beside.area, line.0, line.1), 0.0, "{beside:?}");
        let at_the_edge = places(&[label(395.0, 150.0)], &[], &SHEET)[0];
        assert!(at_the_edge.area.right() <= 400.0, "{at_the_edge:?}");
    }

    #[test]
    fn the_part_of_a_line_within_an_area_is_measured() {
        let area = Area { left: 10.0, top: 10.0, width: 20.0, height: 10.0 };
        for (from, to, length) in [
            ((0.0, 15.0), (100.0, 15.0), 20.0),
            ((15.0, 0.0), (15.0, 12.0), 2.0),
            ((12.0, 12.0), (15.0, 16.0), 5.0),
            ((0.0, 5.0), (100.0, 5.0), 0.0),
            ((0.0, 60.0), (60.0, 0.0), 0.0),
            ((0.0, 30.0), (30.0, 0.0), 200.0_f64.sqrt()),
        ] {
            assert!((within(&area, from, to) - length).abs() < 1e-9, "{from:?} {to:?}");
        }
    }
}
