//! Colours and marks that stay apart for colour-blind readers and in gray.

/// Red, green, blue and how opaque.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ink {
    pub(super) tone: [u8; 3],
    pub(super) opacity: f64,
}

impl Ink {
    pub(super) const fn new(red: u8, green: u8, blue: u8) -> Self {
        Self { tone: [red, green, blue], opacity: 1.0 }
    }

    pub(super) fn faint(self, opacity: f64) -> Self {
        Self { opacity, ..self }
    }
}

pub(super) const WHITE: Ink = Ink::new(255, 255, 255);
/// Text and axes.
pub(super) const DARK: Ink = Ink::new(38, 38, 38);
/// What is beside the point: lines that lead to labels, the line through the front.
pub(super) const GRAY: Ink = Ink::new(130, 130, 130);
/// The grid behind the data.
pub(super) const PALE: Ink = Ink::new(228, 228, 228);

/// Okabe & Ito 2008, *Color universal design*, <https://jfly.uni-koeln.de/color/>, without their yellow, which
/// vanishes on white.
const INKS: [Ink; 7] = [
    Ink::new(0, 114, 178),
    Ink::new(213, 94, 0),
    Ink::new(0, 158, 115),
    Ink::new(204, 121, 167),
    Ink::new(230, 159, 0),
    Ink::new(86, 180, 233),
    Ink::new(0, 0, 0),
];

/// The form of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Circle,
    Square,
    TriangleUp,
    Diamond,
    TriangleDown,
    Pentagon,
    Star,
}

const FORMS: [Form; 7] = [
    Form::Circle,
    Form::Square,
    Form::TriangleUp,
    Form::Diamond,
    Form::TriangleDown,
    Form::Pentagon,
    Form::Star,
];

impl Form {
    /// The corners of a mark of radius one, y down; a circle has none. Marks of all forms look equally large.
    pub(super) fn corners(self) -> Vec<(f64, f64)> {
        let polygon = |count: usize, turn: f64, radii: &[f64]| {
            (0..count)
                .map(|corner| {
                    let angle = std::f64::consts::TAU * (corner as f64 / count as f64 + turn);
                    let radius = radii[corner % radii.len()];
                    (radius * angle.sin(), -radius * angle.cos())
                })
                .collect()
        };
        match self {
            Self::Circle => Vec::new(),
            Self::Square => polygon(4, 0.125, &[1.25]),
            Self::TriangleUp => polygon(3, 0.0, &[1.35]),
            Self::Diamond => polygon(4, 0.0, &[1.3]),
            Self::TriangleDown => polygon(3, 0.5, &[1.35]),
            Self::Pentagon => polygon(5, 0.0, &[1.18]),
            Self::Star => polygon(10, 0.0, &[1.55, 0.68]),
        }
    }
}

/// How a series is told from the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Style {
    pub(super) ink: Ink,
    pub(super) form: Form,
    /// Filled marks first; when the colours come again, the marks are hollow.
    pub(super) filled: bool,
    /// Lengths of strokes and gaps; none for a solid line.
    pub(super) dash: &'static [f64],
}

impl Style {
    /// The style of a series by its number. The first 21 differ, without lines the first 14; colour and form change together,
    /// so either is enough.
    pub(super) fn of(number: usize) -> Self {
        const DASHES: [&[f64]; 3] = [&[], &[7.0, 4.0], &[2.0, 3.0]];
        let round = number / INKS.len();
        Self {
            ink: INKS[number % INKS.len()],
            form: FORMS[number % FORMS.len()],
            filled: round.is_multiple_of(2),
            dash: DASHES[round % DASHES.len()],
        }
    }
}
