//! LoRA, LoHa and LoKr: small files that change the weights of a model.
//!
//! Which change belongs to which tensor is found by names and shapes before anything is loaded; the changes are added to
//! the values when a tensor is packed, in 32 bits, so that no more than one tensor's factors are in memory at once.

mod change;
mod factors;
mod keys;
mod metadata;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

pub(super) use change::Applied;
pub(crate) use change::Change;
pub(crate) use keys::Network;

use super::checkpoint::Checkpoint;
use super::recognition::CheckpointKind;
use crate::error::{Error, Result};
use change::{Fitting, Goal, Group};
use keys::Key;
use metadata::Scales;
use targets::{Target, Targets};

/// Names that a warning or an error gives as examples.
const EXAMPLES: usize = 3;

/// A LoRA, LoHa or `LoKr` to be added to a model's weights.
///
/// Read are the names of kohya's trainers, of diffusers, of PEFT and of LyCORIS.
///
/// ```
/// use deepcache::weights::Lora;
///
/// let lora: Lora = "pixel-art.safetensors:0.8".parse()?;
/// assert_eq!(lora, Lora { path: "pixel-art.safetensors".into(), weight: 0.8 });
/// # Ok::<(), deepcache::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The safetensors file.
    pub path: PathBuf,
    /// What the change is multiplied by; 1 as it was trained.
    pub weight: f32,
}

impl Lora {
    /// A file with the weight that it was trained for.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), weight: 1.0 }
    }
}

impl FromStr for Lora {
    type Err = Error;

    /// A path, and a weight behind a colon: `file.safetensors:0.8`.
    fn from_str(text: &str) -> Result<Self> {
        let Some((path, weight)) = text.rsplit_once(':').filter(|_| !PathBuf::from(text).is_file()) else {
            return Ok(Self::new(text));
        };
        match weight.trim().parse::<f32>() {
            Ok(weight) if weight.is_finite() => Ok(Self { path: path.into(), weight }),
            // A drive of Windows has a colon too.
            Err(_) if weight.contains(['/', '\\']) => Ok(Self::new(text)),
            _ => Err(Error::option("lora", format!("\"{weight}\" is not a number, expected FILE:WEIGHT"))),
        }
    }
}

/// The changes of one network, by the names of the tensors that they change.
pub(crate) type Changes = BTreeMap<String, Vec<Change>>;

/// LoRA files that are open; of their values nothing has been read.
#[derive(Debug)]
pub(crate) struct LoraFiles(Vec<LoraFile>);

#[derive(Debug)]
struct LoraFile {
    checkpoint: Arc<Checkpoint>,
    weight: f32,
    layers: BTreeMap<(Network, String), Group>,
    /// Tensors that are no part of a change.
    unknown: Vec<String>,
    scales: Scales,
}

impl LoraFiles {
    /// Opens the files and reads their names.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Weights`] as [`Checkpoint::open`]; [`Error::Weights`] for a file that is no LoRA;
    /// [`Error::Option`] for a weight that is not finite.
    pub(crate) fn open(loras: &[Lora]) -> Result<Self> {
        loras.iter().map(LoraFile::open).collect::<Result<_>>().map(Self)
    }

    /// Finds the tensors of some networks that the files change: the changes of every network, and warnings about what
    /// fits nothing.
    ///
    /// # Errors
    /// [`Error::Weights`], naming the tensor, if a shape does not fit or a part is missing, and naming the file if
    /// nothing of it fits.
    pub(crate) fn fit(&self, networks: &[(Network, &Checkpoint)]) -> Result<(Vec<Changes>, Vec<String>)> {
        let mut changes = vec![Changes::new(); networks.len()];
        if self.0.is_empty() {
            return Ok((changes, Vec::new()));
        }
        let targets: Vec<Targets> =
            networks.iter().map(|(network, checkpoint)| Targets::of(*network, checkpoint)).collect();
        let mut warnings = Vec::new();
        for file in &self.0 {
            let mut unknown: BTreeSet<&str> = file.unknown.iter().map(String::as_str).collect();
            let mut fitting = 0;
            for ((network, layer), group) in &file.layers {
                let place = networks.iter().position(|(other, _)| other == network);
                let found = place.and_then(|place| Some((place, targets[place].get(layer)?)));
                let Some((place, target)) = found else {
                    unknown.extend(group.values().map(String::as_str));
                    continue;
                };
                let (network, checkpoint) = networks[place];
                let place_of = Place { file, network, checkpoint, layer };
                let left = place_of.fit(target, group, &mut changes[place])?;
                fitting += group.len() - left.len();
                unknown.extend(left);
            }
            warnings.extend(file.report(&unknown, fitting)?);
        }
        Ok((changes, warnings))
    }
}

/// A layer of a file, and the network that it is for.
struct Place<'a> {
    file: &'a LoraFile,
    network: Network,
    checkpoint: &'a Checkpoint,
    layer: &'a str,
}

impl Place<'_> {
    /// Adds the changes of one layer; the tensors of it that change nothing.
    fn fit<'g>(&self, target: &Target, group: &'g Group, changes: &mut Changes) -> Result<Vec<&'g str>> {
        let mut unknown = Vec::new();
        let has_weight = group.keys().any(|part| !["diff_b", "alpha"].contains(part));
        if has_weight {
            match &target.weight {
                Some(name) => {
                    if let Some(change) =
                        self.fitting(name, target.transposed, group, |fitting| fitting.change())?
                    {
                        changes.entry(name.clone()).or_default().push(change);
                    }
                }
                None => unknown
                    .extend(group.iter().filter(|(part, _)| **part != "diff_b").map(|(_, key)| key.as_str())),
            }
        } else if !group.contains_key("diff_b") {
            // An alpha of nothing.
            unknown.extend(group.values().map(String::as_str));
        }
        if let Some(key) = group.get("diff_b") {
            match &target.bias {
                Some(name) => {
                    let change = self.fitting(name, false, group, |fitting| fitting.full(key))?;
                    changes.entry(name.clone()).or_default().push(change);
                }
                None => unknown.push(key.as_str()),
            }
        }
        Ok(unknown)
    }

    fn fitting<T>(
        &self,
        name: &str,
        transposed: bool,
        group: &Group,
        make: impl FnOnce(&Fitting<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut shape = self.checkpoint.shape(name).unwrap_or_default().to_vec();
        if transposed {
            shape.reverse();
        }
        let own = self.checkpoint.name_in_file(name).unwrap_or(name);
        let goal = Goal { name: own, shape: &shape, transposed };
        let LoraFile { checkpoint: file, weight, scales, .. } = self.file;
        make(&Fitting {
            file,
            group,
            weight: *weight,
            goal,
            alpha: scales.alpha(self.network.folder(), self.layer),
        })
    }
}

impl LoraFile {
    fn open(lora: &Lora) -> Result<Self> {
        let Lora { path, weight } = lora;
        if !weight.is_finite() {
            let problem = format!("the weight of {} is {weight}, expected a number", path.display());
            return Err(Error::option("lora", problem));
        }
        let checkpoint = Checkpoint::open(std::slice::from_ref(path))?;
        let mut layers: BTreeMap<(Network, String), Group> = BTreeMap::new();
        let mut unknown = Vec::new();
        for name in checkpoint.names() {
            let Some(Key { network, layer, part }) = Key::read(name) else {
                unknown.push(name.to_owned());
                continue;
            };
            let group = layers.entry((network, layer)).or_default();
            if let Some(other) = group.insert(part, name.to_owned()) {
                return Err(checkpoint.problem(name, format!("is the same part of a layer as \"{other}\"")));
            }
        }
        if layers.is_empty() {
            return Err(match CheckpointKind::of(&checkpoint) {
                Some(kind) if kind != CheckpointKind::Lora => {
                    checkpoint.refuse(format!("holds {}, expected a LoRA", kind.name()))
                }
                _ => checkpoint.refuse(format!(
                    "is not a LoRA by the names of its tensors: looked for *.lora_down.weight, *.lora.down.weight, \
                    *.lora_A.weight, *.hada_w1_a and *.lokr_w1; found {}",
                    examples(unknown.iter().map(String::as_str))
                )),
            });
        }
        let scales = Scales::read(&checkpoint)?;
        Ok(Self { checkpoint: Arc::new(checkpoint), weight: *weight, layers, unknown, scales })
    }

    /// What to say about the tensors that fit nothing, if there are any.
    fn report(&self, unknown: &BTreeSet<&str>, fitting: usize) -> Result<Option<String>> {
        let examples = examples(unknown.iter().copied());
        if fitting == 0 {
            let problem = format!("changes nothing in this model: no layer of it has the names {examples}");
            return Err(self.checkpoint.refuse(problem));
        }
        let file = self.checkpoint.files().next().map(|file| file.display().to_string()).unwrap_or_default();
        let (count, all) = (unknown.len(), self.checkpoint.names().count());
        Ok((count > 0).then(|| {
            format!("{file}: {count} of {all} tensors fit nothing in this model and are left out: {examples}")
        }))
    }
}

fn examples<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let count = names.clone().count();
    let mut text = names.take(EXAMPLES).map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    if count > EXAMPLES {
        text += ", …";
    }
    if count == 0 { "none".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::Lora;

    #[test]
    fn a_weight_stands_behind_the_last_colon() {
        for (text, path, weight) in [
            ("a.safetensors", "a.safetensors", 1.0),
            ("a.safetensors:-0.5", "a.safetensors", -0.5),
            ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0),
            ("C:\\loras\\a.safetensors:2", "C:\\loras\\a.safetensors", 2.0),
        ] {
            assert_eq!(text.parse::<Lora>().unwrap(), Lora { path: path.into(), weight }, "{text}");
        }
        for text in ["a.safetensors:", "a.safetensors:strong", "a.safetensors:nan", "a:inf"] {
            let error = text.parse::<Lora>().unwrap_err().to_string();
            assert!(error.contains("expected FILE:WEIGHT"), "{text}: {error}");
        }
    }
}
