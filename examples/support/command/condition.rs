//! What pictures are made from.

use std::path::Path;

use clap::Args;
use deepcache::models::latent_diffusion::{IMAGENET_CLASSES, find_imagenet_class};
use deepcache::pipelines::Request;
use deepcache::weights::ModelKind;
use deepcache::{Error, Result};

/// What a picture does not show, and classes.
#[derive(Debug, Args)]
pub(crate) struct Conditions {
    /// What the picture does not show.
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,

    /// How prompts are read. plain: as diffusers, brackets are text, and what does not fit (75 tokens) is cut off with a
    /// warning. weighted: (word:1.3), (word) and [word] weigh words, BREAK starts a new chunk, \\( stands for a
    /// bracket, and prompts may be of any length.
    #[arg(long, value_name = "NAME", default_value = "plain")]
    prompt_syntax: String,

    /// Leave out so many layers at the end of the text encoder when the prompt is read, as `clip_skip` of diffusers does;
    /// programs that count from 1 call this N+1.
    #[arg(long, value_name = "N", default_value_t = 0)]
    clip_skip: usize,

    /// The class that the picture shows, for a class-conditional model: a number, or an ImageNet name such as "golden
    /// retriever". May be given several times.
    #[arg(long, value_name = "CLASS")]
    class_label: Vec<String>,
}

impl Conditions {
    /// The negative prompt.
    pub(crate) fn negative_prompt(&self) -> String {
        self.negative_prompt.clone().unwrap_or_default()
    }

    /// The request with what it says about prompts.
    pub(crate) fn worded(&self, request: Request) -> Result<Request> {
        Ok(Request { prompt_syntax: self.prompt_syntax.parse()?, clip_skip: self.clip_skip, ..request })
    }

    /// The numbers of the classes; at least one.
    pub(crate) fn labels(&self) -> Result<Vec<usize>> {
        if self.class_label.is_empty() {
            return Err(Error::option("class label", "expected the number or the name of a class"));
        }
        self.class_label.iter().map(|label| class(label)).collect()
    }

    /// Refuses what this kind of model does not want.
    pub(crate) fn check(&self, model: &Path, kind: ModelKind, prompt: bool) -> Result<()> {
        let given = [
            ("prompt", prompt, ModelKind::TextToImage),
            ("negative prompt", self.negative_prompt.is_some(), ModelKind::TextToImage),
            ("class label", !self.class_label.is_empty(), ModelKind::ClassConditional),
        ];
        match given.into_iter().find(|(_, given, wanted_by)| *given && kind != *wanted_by) {
            None => Ok(()),
            Some((option, _, wanted_by)) => {
                let problem = format!("{} is not a {wanted_by} model, but {kind}", model.display());
                Err(Error::option(option, problem))
            }
        }
    }
}

/// A class by its number or its ImageNet name.
fn class(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => find_imagenet_class(text),
    }
}

/// Refuses names of ImageNet for a model of other classes.
pub(crate) fn check_names(conditions: &Conditions, classes: usize) -> Result<()> {
    let named = conditions.class_label.iter().find(|label| label.parse::<usize>().is_err());
    match named.filter(|_| classes != IMAGENET_CLASSES) {
        None => Ok(()),
        Some(name) => {
            let problem = format!(
                "\"{name}\" is a name of ImageNet, but this model has {classes} classes: use a number"
            );
            Err(Error::option("class label", problem))
        }
    }
}
