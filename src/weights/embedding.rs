//! Textual inversions: words of their own for a model's text encoders. Gal et al. 2022,
//! <https://arxiv.org/abs/2208.01618>.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::checkpoint::Checkpoint;
use super::recognition::CheckpointKind;
use crate::error::{Error, Result};

/// The name of the vectors in a file of AUTOMATIC1111.
const PARAMETERS: &str = "emb_params";
/// The names of the vectors for the two text encoders of SDXL.
const OF_XL: [&str; 2] = ["clip_l", "clip_g"];

/// A textual inversion: vectors that stand for a word of a prompt.
///
/// ```
/// use deepcache::weights::Embedding;
///
/// let embedding: Embedding = "cat-toy.safetensors:<cat-toy>".parse()?;
/// assert_eq!(embedding.token.as_deref(), Some("<cat-toy>"));
/// # Ok::<(), deepcache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedding {
    /// The safetensors file: of diffusers (one tensor, named as the word), of AUTOMATIC1111 (`emb_params`), or for SDXL
    /// (`clip_l` and `clip_g`).
    pub path: PathBuf,
    /// The word. If `None`, the name of the only tensor, or the file's name without its extension where tensors have
    /// those names.
    pub token: Option<String>,
}

impl Embedding {
    /// A file, for the word that it names.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), token: None }
    }
}

impl FromStr for Embedding {
    type Err = Error;

    /// A path, and a word behind a colon: `file.safetensors:<word>`.
    fn from_str(text: &str) -> Result<Self> {
        if Path::new(text).is_file() {
            return Ok(Self::new(text));
        }
        // A word may have colons too, and so does a drive of Windows.
        let mut splits = text.rmatch_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let first = splits.clone().next().filter(|(_, word)| !word.contains(['/', '\\']));
        match splits.find(|(path, _)| Path::new(path).is_file()).or(first) {
            None => Ok(Self::new(text)),
            Some((_, "")) => {
                Err(Error::option("embedding", "has no word behind the colon, expected FILE:TOKEN"))
            }
            Some((path, token)) => Ok(Self { path: path.into(), token: Some(token.to_owned()) }),
        }
    }
}

/// A textual inversion whose values have been read.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) token: String,
    /// Number of vectors, which every text encoder has.
    pub(crate) count: usize,
    /// For every text encoder, `[count, C]`.
    pub(crate) values: Vec<Vec<f32>>,
}

impl Word {
    /// Reads the vectors for text encoders of so many channels, of which a prompt holds at most `most`; `is_second` tells
    /// that a single one is SDXL's second, as its refiner has.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Weights`] if the file is damaged, no textual inversion or one of another model, or if
    /// a value is not finite.
    pub(crate) fn read(
        embedding: &Embedding,
        channels: &[usize],
        most: usize,
        is_second: bool,
    ) -> Result<Self> {
        let file = Checkpoint::open(std::slice::from_ref(&embedding.path))?;
        let names: Vec<&str> = file.names().collect();
        let is_xl = OF_XL.iter().any(|name| names.contains(name));
        let (keys, named) = match (&names[..], channels.len()) {
            (_, 2) if OF_XL.iter().all(|name| names.contains(name)) => (OF_XL.to_vec(), None),
            ([_], 1) if is_xl => (names.clone(), None),
            (_, 1) if is_second && OF_XL.iter().all(|name| names.contains(name)) => (vec![OF_XL[1]], None),
            ([..], 1) if names.contains(&PARAMETERS) => (vec![PARAMETERS], None),
            ([name], 1) => (vec![*name], Some((*name).to_owned())),
            _ => return Err(refusal(&file, &names, channels.len())),
        };
        let stem = || embedding.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let token = embedding.token.clone().or(named).unwrap_or_else(stem);
        let mut count = None;
        let mut values = Vec::with_capacity(keys.len());
        for (key, channels) in keys.into_iter().zip(channels) {
            let shape = file.shape(key).unwrap_or_default();
            let found = match shape {
                [width] if width == channels => 1,
                [rows, width] if width == channels && (1..=most).contains(rows) => *rows,
                [rows, width] if width == channels => {
                    let problem =
                        format!("holds {rows} vectors, expected 1 to {most}, which a prompt can hold");
                    return Err(file.problem(key, problem));
                }
                _ => {
                    let problem = format!(
                        "has shape {shape:?}, expected [vectors, {channels}], since the text encoder has {channels} channels"
                    );
                    return Err(file.problem(key, problem));
                }
            };
            if let Some(other) = count.filter(|other| *other != found) {
                let problem = format!("holds {found} vectors, but \"{}\" holds {other}", OF_XL[0]);
                return Err(file.problem(key, problem));
            }
            count = Some(found);
            values.push(file.finite_values(key)?);
        }
        Ok(Self { token, count: count.unwrap_or(0), values })
    }
}

fn refusal(file: &Checkpoint, names: &[&str], encoders: usize) -> Error {
    let expected = if encoders == 2 {
        "\"clip_l\" and \"clip_g\", since the model has two text encoders"
    } else {
        "one tensor, or \"emb_params\", since the model has one text encoder"
    };
    match CheckpointKind::of(file) {
        Some(kind) if kind != CheckpointKind::TextualInversion => {
            file.refuse(format!("holds {}, expected a textual inversion: {expected}", kind.name()))
        }
        _ => {
            let some: Vec<String> = names.iter().take(3).map(|name| format!("\"{name}\"")).collect();
            let problem = format!("holds {} tensors ({}), expected {expected}", names.len(), some.join(", "));
            file.refuse(problem)
        }
    }
}

impl Checkpoint {
    /// Puts rows behind the first `first` ones of a table; those that the file has there are left out.
    ///
    /// # Errors
    /// [`Error::Weights`] if the tensor is missing, or is no table of at least `first` rows of such a width.
    pub(crate) fn set_rows(&mut self, name: &str, first: usize, values: &[f32]) -> Result<()> {
        let [rows, columns] = self.extents(name)?;
        if rows < first || !values.len().is_multiple_of(columns) {
            let problem = format!("has shape [{rows}, {columns}], expected {first} rows or more");
            return Err(self.problem(name, problem));
        }
        let found = self.find(name).map(|(found, _)| found.to_owned());
        if let Some(entry) = found.and_then(|found| self.entry_mut(&found)) {
            entry.end = entry.start + (entry.end - entry.start) / rows * first;
            entry.shape[0] = first + values.len() / columns;
            entry.appended = values.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Embedding;

    #[test]
    fn a_word_stands_behind_a_colon() {
        let embedding = |path: &str, token: Option<&str>| Embedding {
            path: path.into(),
            token: token.map(str::to_owned),
        };
        for (text, expected) in [
            ("a.safetensors", embedding("a.safetensors", None)),
            ("a.safetensors:<cat>", embedding("a.safetensors", Some("<cat>"))),
            ("C:\\a.safetensors", embedding("C:\\a.safetensors", None)),
            ("C:\\a.safetensors:cat", embedding("C:\\a.safetensors", Some("cat"))),
            ("Cargo.toml:<cat:toy>", embedding("Cargo.toml", Some("<cat:toy>"))),
            ("Cargo.toml", embedding("Cargo.toml", None)),
        ] {
            assert_eq!(text.parse::<Embedding>().unwrap(), expected, "{text}");
        }
        assert!("a.safetensors:".parse::<Embedding>().is_err(), "no word");
    }
}
