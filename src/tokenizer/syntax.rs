//! What brackets in a prompt mean.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a pair of round brackets without a number multiplies weights by; square ones divide by it.
const STEP: f64 = 1.1;
/// A stronger weight than this, to either side, is taken for a mistake.
const MOST_WEIGHT: f64 = 100.0;
/// The word that starts a new chunk.
const BREAK: &str = "BREAK";
/// So much of a text is quoted in errors.
const QUOTED: usize = 40;

/// How a prompt is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PromptSyntax {
    /// As diffusers: what does not fit into the text encoder (75 tokens with CLIP) is cut off, and brackets are text.
    #[default]
    Plain,
    /// As [`parse_weighted`] reads it, and of any length: a prompt is encoded in chunks, each as long as fits.
    Weighted,
}

impl fmt::Display for PromptSyntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Weighted => "weighted",
        })
    }
}

impl FromStr for PromptSyntax {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "plain" => Ok(Self::Plain),
            "weighted" => Ok(Self::Weighted),
            other => Err(Error::option("prompt syntax", format!("\"{other}\" is not plain or weighted"))),
        }
    }
}

/// Some text of a prompt, all of one weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The text, without brackets that mean something.
    pub text: String,
    /// How much it counts; 1 is as without brackets.
    pub weight: f64,
    /// Whether a `BREAK` stands before it.
    pub begins_chunk: bool,
}

/// Reads weights as the programs around Stable Diffusion write them.
///
/// - `(word:1.3)` multiplies the weight of what is between the brackets by the number, which may be 0 or negative;
///   `(word)` multiplies by 1.1, `[word]` divides by it. Brackets may be nested; their factors are multiplied.
/// - `\(`, `\)`, `\[`, `\]` and `\\` stand for these signs themselves. Any other backslash is text.
/// - `BREAK`, in capitals and a word of its own, starts a new chunk, inside of brackets too.
/// - A bracket without its partner is text, as is a colon without a number between it and the closing bracket. Where
///   pairs cross, as in `( [ ) ]`, the pair that closes first counts.
///
/// What other programs read besides (schedules such as `[cat:dog:0.5]`, alternations, `AND`, `<lora:…>`) is text.
///
/// ```
/// use deepcache::tokenizer::parse_weighted;
///
/// # fn main() -> deepcache::Result<()> {
/// let parts = parse_weighted("a (red:1.5) circle")?;
/// assert_eq!(parts[1].text, "red");
/// assert_eq!(parts[1].weight, 1.5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Option`] if a weight is above 100 or below -100, several brackets taken together.
pub fn parse_weighted(prompt: &str) -> Result<Vec<Part>> {
    Ok(Parsed::read(prompt)?.parts)
}

/// A prompt by its parts.
pub(crate) struct Parsed {
    pub(crate) parts: Vec<Part>,
    /// Whether something in it cannot be meant as text: a weight in numbers, or a `BREAK`.
    pub(crate) is_explicit: bool,
}

/// What a prompt is made of.
enum Piece {
    Text(String),
    Bracket {
        sign: char,
        /// Of a bracket that opens and has a partner: what it multiplies weights by.
        factor: Option<f64>,
        /// Whether it has a partner.
        is_paired: bool,
    },
}

impl Parsed {
    pub(crate) fn read(prompt: &str) -> Result<Self> {
        let mut pieces = pieces(prompt);
        let has_numbers = pair(&mut pieces);
        let mut parsed = Self { parts: Vec::new(), is_explicit: has_numbers };
        let mut weights = vec![1.0];
        let mut breaks = false;
        for piece in &pieces {
            let weight = weights.last().copied().unwrap_or(1.0);
            match piece {
                Piece::Bracket { factor: Some(factor), .. } => weights.push(weight * factor),
                Piece::Bracket { is_paired: true, .. } => {
                    weights.pop();
                }
                Piece::Bracket { sign, .. } => {
                    parsed.push(sign.encode_utf8(&mut [0; 4]), weight, &mut breaks);
                }
                Piece::Text(text) => {
                    for (number, text) in split_at_breaks(text).into_iter().enumerate() {
                        breaks |= number > 0;
                        parsed.is_explicit |= number > 0;
                        parsed.push(text, weight, &mut breaks);
                    }
                }
            }
        }
        let wrong = |part: &&Part| !(-MOST_WEIGHT..=MOST_WEIGHT).contains(&part.weight);
        match parsed.parts.iter().find(wrong) {
            None => Ok(parsed),
            Some(Part { text, weight, .. }) => {
                let text: String = text.chars().take(QUOTED).collect();
                let problem = format!(
                    "expected weights from -{MOST_WEIGHT} to {MOST_WEIGHT}, found {weight:.3e} for \"{text}\""
                );
                Err(Error::option("prompt", problem))
            }
        }
    }

    /// Adds text, to the last part if that is of the same weight.
    fn push(&mut self, text: &str, weight: f64, breaks: &mut bool) {
        if text.is_empty() {
            return;
        }
        let begins_chunk = std::mem::take(breaks);
        match self.parts.last_mut() {
            #[expect(clippy::float_cmp, reason = "products of the same factors")]
            Some(last) if last.weight == weight && !begins_chunk => last.text.push_str(text),
            _ => self.parts.push(Part { text: text.to_owned(), weight, begins_chunk }),
        }
    }
}

/// Text and brackets; those behind a backslash are text.
fn pieces(prompt: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut signs = prompt.chars().peekable();
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => text.push(signs.next_if(|next| "()[]\\".contains(*next)).unwrap_or(sign)),
            '(' | ')' | '[' | ']' => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                pieces.push(Piece::Bracket { sign, factor: None, is_paired: false });
            }
            _ => text.push(sign),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// Finds the partners of brackets, and takes numbers out of the texts; whether there were any.
fn pair(pieces: &mut [Piece]) -> bool {
    let mut has_numbers = false;
    // Brackets that are open, innermost last, and how many of them are round and square.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut counts = [0_usize; 2];
    for index in 0..pieces.len() {
        let Piece::Bracket { sign, .. } = pieces[index] else { continue };
        let is_square = matches!(sign, '[' | ']');
        if matches!(sign, '(' | '[') {
            open.push((index, is_square));
            counts[usize::from(is_square)] += 1;
            continue;
        }
        if counts[usize::from(is_square)] == 0 {
            continue;
        }
        while let Some((partner, square)) = open.pop() {
            counts[usize::from(square)] -= 1;
            if square != is_square {
                continue; // a bracket that the pair crosses
            }
            let number = if is_square { None } else { take_number(&mut pieces[partner + 1..index]) };
            has_numbers |= number.is_some();
            let factor = number.unwrap_or(if is_square { 1.0 / STEP } else { STEP });
            for (place, factor) in [(partner, Some(factor)), (index, None)] {
                if let Piece::Bracket { factor: of, is_paired, .. } = &mut pieces[place] {
                    (*of, *is_paired) = (factor, true);
                }
            }
            break;
        }
    }
    has_numbers
}

/// Takes `:1.3` from the end of what stands between two brackets.
fn take_number(between: &mut [Piece]) -> Option<f64> {
    let Some(Piece::Text(text)) = between.last_mut() else { return None };
    let colon = text.rfind(':')?;
    let number = text[colon + 1..].trim();
    let is_plain = number.chars().all(|sign| sign.is_ascii_digit() || matches!(sign, '.' | '+' | '-'));
    let number = number.parse().ok().filter(|_| is_plain)?;
    text.truncate(colon);
    Some(number)
}

/// The texts between the words `BREAK`.
fn split_at_breaks(text: &str) -> Vec<&str> {
    let is_of_word = |sign: char| sign.is_alphanumeric() || sign == '_';
    let mut texts = Vec::new();
    let mut start = 0;
    for (place, word) in text.match_indices(BREAK) {
        let end = place + word.len();
        let before = text[..place].chars().next_back().is_some_and(is_of_word);
        let behind = text[end..].chars().next().is_some_and(is_of_word);
        if !before && !behind {
            texts.push(&text[start..place]);
            start = end;
        }
    }
    texts.push(&text[start..]);
    texts
}
