//! Reads the tiny model's pictures back into scenes and compares them with their prompts; nothing in it is learned.
//!
//! It judges as `tools/tiny/checker.py` does, constant for constant and rounding for rounding; `tests/study.rs` compares the
//! two on the pictures in `tests/goldens`. The tiny model's README says how well it reads pictures.

mod masks;
mod outlines;
mod reading;
mod scenes;

use deepcache::image::Picture;
use deepcache::{Error, Result};

pub(crate) use reading::{Object, Scene};
use scenes::{BACKGROUNDS, COLORS, PATTERNS, POSITIONS, SHAPES, SIDE, Tone};

/// Objects nearer to the middle than this, in units of the side, are in the center.
const CENTER: f64 = 0.11;
/// Objects of a smaller radius than this, in units of the side, are small.
const SMALL: f64 = 0.197;

/// The sizes that captions know.
const SIZES: [&str; 2] = ["small", "large"];

/// Everything that pictures are compared with, drawn once.
#[derive(Debug)]
pub(crate) struct Checker {
    backgrounds: Vec<scenes::Background>,
    outlines: Vec<outlines::Outline>,
}

/// Which attributes of a prompt its picture shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The background has the colour of the prompt.
    pub(crate) background: bool,
    /// The background has the pattern of the prompt.
    pub(crate) pattern: bool,
    /// There is exactly one object.
    pub(crate) count: bool,
    /// The largest object has the shape of the prompt.
    pub(crate) shape: bool,
    /// The largest object has the colour of the prompt.
    pub(crate) color: bool,
    /// The largest object has the size of the prompt.
    pub(crate) size: bool,
    /// The largest object is where the prompt says.
    pub(crate) position: bool,
}

impl Verdict {
    /// The attributes with their names, in the order of the tables.
    pub(crate) fn attributes(&self) -> [(&'static str, bool); 7] {
        [
            ("background", self.background),
            ("pattern", self.pattern),
            ("count", self.count),
            ("shape", self.shape),
            ("color", self.color),
            ("size", self.size),
            ("position", self.position),
        ]
    }

    /// Whether all attributes are right.
    pub(crate) fn all(&self) -> bool {
        self.attributes().iter().all(|(_, right)| *right)
    }
}

impl Checker {
    /// Draws the backgrounds and outlines.
    pub(crate) fn new() -> Self {
        Self { backgrounds: scenes::backgrounds(), outlines: outlines::outlines() }
    }

    /// What a picture shows.
    ///
    /// # Errors
    /// [`Error::Option`] if the picture is not of the tiny model's size.
    pub(crate) fn read(&self, picture: &Picture) -> Result<Scene> {
        Ok(reading::read(&tones(picture)?, &self.backgrounds, &self.outlines))
    }

    /// Which attributes of a prompt its picture shows.
    ///
    /// # Errors
    /// [`Error::Option`] if the picture is not of the tiny model's size, or the prompt not one of its captions.
    pub(crate) fn check(&self, picture: &Picture, prompt: &str) -> Result<Verdict> {
        Ok(compare(&wanted(prompt)?, &self.read(picture)?))
    }
}

/// The words of a caption.
struct Wanted {
    size: &'static str,
    color: &'static str,
    shape: &'static str,
    position: &'static str,
    background: &'static str,
    pattern: &'static str,
}

/// A caption, `a SIZE COLOR SHAPE [WHERE] on a COLOR [PATTERN] background`, taken apart; without a place it means the center.
fn wanted(prompt: &str) -> Result<Wanted> {
    let words: Vec<&str> = prompt.split_whitespace().collect();
    let end = words.iter().position(|word| *word == "background");
    let before = |count: usize| end.and_then(|end| words.get(end.checked_sub(count)?));
    let pattern = PATTERNS.into_iter().find(|pattern| before(1) == Some(pattern));
    let color = before(if pattern.is_some() { 2 } else { 1 });
    let place = POSITIONS.iter().find(|(_, phrase)| prompt.contains(&format!(" {phrase} ")));
    let backgrounds = BACKGROUNDS.iter().map(|(name, _)| *name);
    let colors = COLORS.iter().map(|(name, _)| *name);
    Ok(Wanted {
        size: known(prompt, "size", words.get(1), SIZES)?,
        color: known(prompt, "colour", words.get(2), colors)?,
        shape: known(prompt, "shape", words.get(3), SHAPES)?,
        position: place.map_or("center", |(position, _)| position),
        background: known(prompt, "background", color, backgrounds)?,
        pattern: pattern.unwrap_or(PATTERNS[0]),
    })
}

/// The name that a word of a prompt is.
fn known(
    prompt: &str,
    what: &str,
    word: Option<&&str>,
    names: impl IntoIterator<Item = &'static str>,
) -> Result<&'static str> {
    names.into_iter().find(|name| Some(name) == word).ok_or_else(|| {
        let word = word.copied().unwrap_or("nothing");
        let problem = format!("\"{prompt}\" has \"{word}\" where a caption of the tiny model has its {what}");
        Error::option("prompt", problem)
    })
}

fn compare(wanted: &Wanted, scene: &Scene) -> Verdict {
    let object = scene.objects.first();
    let is = |right: &dyn Fn(&Object) -> bool| object.is_some_and(right);
    Verdict {
        background: scene.background == wanted.background,
        pattern: scene.pattern == wanted.pattern,
        count: scene.objects.len() == 1,
        shape: is(&|object| object.shape == wanted.shape),
        color: is(&|object| object.color == wanted.color),
        size: is(&|object| SIZES[usize::from(object.radius >= SMALL)] == wanted.size),
        position: is(&|object| position(object) == wanted.position),
    }
}

fn position(object: &Object) -> &'static str {
    let (x, y) = (object.x - 0.5, object.y - 0.5);
    if x.abs().max(y.abs()) < CENTER {
        "center"
    } else if x.abs() > y.abs() {
        if x < 0.0 { "left" } else { "right" }
    } else if y < 0.0 {
        "top"
    } else {
        "bottom"
    }
}

/// The pixels in 0..1.
fn tones(picture: &Picture) -> Result<Vec<Tone>> {
    let pixels = picture.pixels.as_chunks::<3>().0;
    if (picture.width as usize, picture.height as usize) != (SIDE, SIDE) || pixels.len() != SIDE * SIDE {
        let problem =
            format!("the checker reads {SIDE}x{SIDE} pixels, not {}x{}", picture.width, picture.height);
        return Err(Error::option("picture", problem));
    }
    Ok(pixels.iter().map(|pixel| pixel.map(|value| f32::from(value) / 255.0)).collect())
}
