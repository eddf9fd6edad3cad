//! Lists of skip branches.

use deepcache::deepcache::parse_branch;
use deepcache::{Error, Result};

/// The skip indices of `--branches`, in the order given, for a model that has `count` of them.
///
/// # Errors
/// [`Error::Option`] for a name that is none, a branch that the model does not have, and one that is there twice.
pub(crate) fn parse_branches(text: &str, count: usize, layers_per_block: usize) -> Result<Vec<usize>> {
    let refuse = |problem: String| Err(Error::option("branches", problem));
    let mut branches = Vec::new();
    for name in names(text) {
        let branch = parse_branch(&name, layers_per_block).map_err(|error| match error {
            Error::Option { problem, .. } => Error::option("branches", problem),
            other => other,
        })?;
        if branch >= count {
            return refuse(format!("expected skip indices from 0 to {}, found {branch}", count - 1));
        }
        if branches.contains(&branch) {
            return refuse(format!("skip branch {branch} is there twice"));
        }
        branches.push(branch);
    }
    Ok(branches)
}

/// The names in a list, in which `paper:LAYER,BLOCK` holds a comma of its own.
fn names(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match names.last_mut() {
            Some(last) if last.starts_with("paper:") && !last.contains(',') => {
                last.push(',');
                last.push_str(part);
            }
            _ => names.push(part.to_owned()),
        }
    }
    names
}
