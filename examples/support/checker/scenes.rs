//! The words of the captions, and what `tools/tiny/scenes.py` draws for them: backgrounds and shapes.
//!
//! All arithmetic is in `f32` and in the order of the Python program, so that both see the same pixels.

/// Side of a picture in pixels.
pub(super) const SIDE: usize = 128;

/// Red, green and blue in 0..1.
pub(super) type Tone = [f32; 3];

/// The shapes in the order of [`distances`].
pub(super) const SHAPES: [&str; 8] =
    ["circle", "square", "triangle", "star", "ring", "cross", "diamond", "heart"];

/// The colours of objects, sRGB.
pub(super) const COLORS: [(&str, [u8; 3]); 10] = [
    ("red", [222, 38, 44]),
    ("orange", [247, 134, 22]),
    ("yellow", [252, 212, 28]),
    ("green", [38, 158, 62]),
    ("cyan", [24, 190, 208]),
    ("blue", [40, 82, 214]),
    ("purple", [128, 50, 178]),
    ("pink", [244, 92, 168]),
    ("white", [250, 250, 250]),
    ("black", [34, 34, 38]),
];

/// The colours of backgrounds, sRGB; pale, so that every object stands out.
pub(super) const BACKGROUNDS: [(&str, [u8; 3]); 8] = [
    ("white", [244, 244, 242]),
    ("gray", [150, 152, 156]),
    ("black", [44, 46, 54]),
    ("yellow", [252, 238, 160]),
    ("green", [172, 222, 172]),
    ("blue", [166, 204, 246]),
    ("purple", [208, 186, 240]),
    ("pink", [250, 200, 214]),
];

/// The patterns of backgrounds; the first needs no word.
pub(super) const PATTERNS: [&str; 4] = ["plain", "gradient", "striped", "checkered"];

/// The colours that may carry a pattern.
const PATTERNED: [&str; 6] = ["gray", "yellow", "green", "blue", "purple", "pink"];

/// The places of objects and how captions call them.
pub(super) const POSITIONS: [(&str, &str); 5] = [
    ("center", "in the center"),
    ("left", "on the left"),
    ("right", "on the right"),
    ("top", "at the top"),
    ("bottom", "at the bottom"),
];

/// A background without an object.
#[derive(Debug)]
pub(super) struct Background {
    pub(super) color: &'static str,
    pub(super) pattern: &'static str,
    /// Rows from the top.
    pub(super) pixels: Vec<Tone>,
}

/// All backgrounds: the plain ones first, then the patterned ones colour by colour.
pub(super) fn backgrounds() -> Vec<Background> {
    let plain = BACKGROUNDS.iter().map(|(color, _)| (*color, PATTERNS[0]));
    let patterned = PATTERNED.iter().flat_map(|color| PATTERNS[1..].iter().map(|pattern| (*color, *pattern)));
    plain
        .chain(patterned)
        .map(|(color, pattern)| Background { color, pattern, pixels: background(color, pattern) })
        .collect()
}

fn background(color: &str, pattern: &str) -> Vec<Tone> {
    let base = BACKGROUNDS.iter().find(|(name, _)| *name == color).map_or([0; 3], |(_, tone)| *tone);
    let base = base.map(|value| f32::from(value) / 255.0);
    let light = base.map(|value| value + (1.0 - value) * 0.62); // the second tone of a pattern
    let line: Vec<f32> = coordinates(SIDE, 1.0).iter().map(|place| (place + 1.0) / 2.0).collect();
    let pixel = |x: f32, y: f32| {
        // a faint vignette
        let vignette = 1.0 - 0.10 * ((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5));
        let share = match pattern {
            "striped" => wave(x) / 2.0 + 0.5,
            "checkered" => wave(x) * wave(y) / 2.0 + 0.5,
            _ => 1.0,
        };
        std::array::from_fn(|channel| {
            let (base, light) = (base[channel], light[channel]);
            let value = if pattern == "gradient" {
                light * (1.0 - y) + base * 0.72 * y
            } else {
                base * share + light * (1.0 - share)
            };
            value * vignette
        })
    };
    line.iter().flat_map(|y| line.iter().map(|x| pixel(*x, *y))).collect()
}

/// A square wave of period 1/4 with soft edges, -1 to 1.
fn wave(place: f32) -> f32 {
    let distance = ((place * 4.0) % 1.0 - 0.5).abs() - 0.25;
    (distance * (SIDE as f32 / 4.0)).clamp(-0.5, 0.5) * 2.0
}

/// The centres of `count` pixels that span -extent to extent.
pub(super) fn coordinates(count: usize, extent: f32) -> Vec<f32> {
    (0..count).map(|pixel| ((pixel as f32 + 0.5) / count as f32 * 2.0 - 1.0) * extent).collect()
}

/// Signed distances of a point, negative inside, from all shapes of radius one; x right, y down.
pub(super) fn distances(x: f32, y: f32) -> [f32; 8] {
    let (across, down) = (x.abs(), y.abs());
    let round = (x * x + y * y).sqrt();
    let half_diagonal = (0.74 / (1.0_f64 + 0.74 * 0.74).sqrt()).to_f32();
    [
        round - 0.96,
        rectangle(across, down, 0.84, 0.84),
        triangle(across, y),
        star(across, y),
        (round - 0.72).abs() - 0.24,
        rectangle(across, down, 0.94, 0.31).min(rectangle(across, down, 0.31, 0.94)),
        (across / 0.74 + down - 1.0) * half_diagonal - 0.03,
        heart(across, y),
    ]
}

/// A rectangle with rounded corners.
fn rectangle(across: f32, down: f32, half_width: f32, half_height: f32) -> f32 {
    const CORNER: f32 = 0.06;
    let (x, y) = (across - half_width + CORNER, down - half_height + CORNER);
    let outside = (x.max(0.0) * x.max(0.0) + y.max(0.0) * y.max(0.0)).sqrt();
    outside + x.max(y).min(0.0) - CORNER
}

/// Equilateral, apex up.
fn triangle(across: f32, y: f32) -> f32 {
    let slope = 3.0_f64.sqrt();
    let (inverse, slope) = ((1.0 / slope).to_f32(), slope.to_f32());
    let (mut x, mut y) = (across - 1.0, 0.22 - y + inverse);
    if x + slope * y > 0.0 {
        (x, y) = ((x - slope * y) / 2.0, (-slope * x - y) / 2.0);
    }
    x -= x.clamp(-2.0, 0.0);
    -(x * x + y * y).sqrt() * sign(y) - 0.03
}

/// Five points, one up.
fn star(across: f32, y: f32) -> f32 {
    const RADIUS: f32 = 1.06;
    const INNER: f64 = 0.48;
    const COSINE: f64 = 0.809_016_994_375;
    const SINE: f64 = -0.587_785_252_292;
    let (cosine, sine) = (COSINE.to_f32(), SINE.to_f32());
    let (mut x, mut y) = (across, 0.02 - y);
    let fold = 2.0 * (cosine * x + sine * y).max(0.0);
    (x, y) = (x - fold * cosine, y - fold * sine);
    let fold = 2.0 * (-cosine * x + sine * y).max(0.0);
    (x, y) = ((x + fold * cosine).abs(), y - fold * sine - RADIUS);
    let (edge_x, edge_y) = (-INNER * SINE, INNER * COSINE - 1.0);
    let length = (edge_x * edge_x + edge_y * edge_y).to_f32();
    let (edge_x, edge_y) = (edge_x.to_f32(), edge_y.to_f32());
    let along = ((x * edge_x + y * edge_y) / length).clamp(0.0, RADIUS);
    let (left, up) = (x - edge_x * along, y - edge_y * along);
    (left * left + up * up).sqrt() * sign(y * edge_x - x * edge_y) - 0.02
}

fn heart(across: f32, y: f32) -> f32 {
    let scale = (1.0_f64 / 1.72).to_f32();
    let (x, y) = (across * scale, (0.86 - y) * scale);
    if x + y > 1.0 {
        let (left, up) = (x - 0.25, y - 0.75);
        return ((left * left + up * up).sqrt() - (2.0_f64.sqrt() / 4.0).to_f32()) / scale;
    }
    let middle = 0.5 * (x + y).max(0.0);
    let top = x * x + (y - 1.0) * (y - 1.0);
    let edge = (x - middle) * (x - middle) + (y - middle) * (y - middle);
    top.min(edge).sqrt() * sign(x - y) / scale
}

/// -1, 0 or 1.
fn sign(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// Constants are worked out in `f64` and rounded once, where they meet a pixel.
pub(super) trait Round {
    fn to_f32(self) -> f32;
}

impl Round for f64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
    fn to_f32(self) -> f32 {
        self as f32
    }
}
