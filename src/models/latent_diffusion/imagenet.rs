//! Names of the classes that ImageNet models are conditioned on.

use crate::error::{Error, Result};

/// One name per line, in the order of the classes' numbers.
const NAMES: &str = include_str!("../../../assets/imagenet/classes.txt");

/// Number of classes of ILSVRC 2012.
pub const IMAGENET_CLASSES: usize = 1000;

/// More candidates than this are not listed.
const MOST_LISTED: usize = 8;

/// The name of an ImageNet class: 207 is `golden retriever`.
#[must_use]
pub fn imagenet_class(label: usize) -> Option<&'static str> {
    NAMES.lines().nth(label)
}

/// The number of an ImageNet class by its name, or by a part of its name that no other has; case matters only where two names
/// differ in nothing else.
///
/// ```
/// use deepcache::models::latent_diffusion::find_imagenet_class;
///
/// assert_eq!(find_imagenet_class("golden retriever")?, 207);
/// assert_eq!(find_imagenet_class("Macaw")?, 88);
/// # Ok::<(), deepcache::Error>(())
/// ```
///
/// # Errors
/// [`Error::Option`] if no class has this name, or several have it as a part: then with their names.
pub fn find_imagenet_class(name: &str) -> Result<usize> {
    let wanted = name.trim().to_lowercase();
    let refuse = |problem: String| Err(Error::option("class label", problem));
    if wanted.is_empty() {
        return refuse("expected a number or the name of a class, found nothing".to_owned());
    }
    // Cardigan is a dog, a cardigan is worn.
    if let Some(label) = NAMES.lines().position(|other| other == name.trim()) {
        return Ok(label);
    }
    let names = || NAMES.lines().map(str::to_lowercase).enumerate();
    if let Some((label, _)) = names().find(|(_, other)| *other == wanted) {
        return Ok(label);
    }
    let found: Vec<(usize, String)> = names().filter(|(_, other)| other.contains(&wanted)).collect();
    match &found[..] {
        [(label, _)] => Ok(*label),
        [] => {
            refuse(format!("no ImageNet class is called \"{name}\"; a number from 0 to 999 will do as well"))
        }
        several => {
            let listed = several.iter().take(MOST_LISTED).map(|(label, name)| format!("{label} {name}"));
            let listed: Vec<String> = listed.collect();
            let more = if several.len() > MOST_LISTED { ", …" } else { "" };
            refuse(format!("several ImageNet classes are called \"{name}\": {}{more}", listed.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_one_name_that_finds_it() {
        assert_eq!(NAMES.lines().count(), IMAGENET_CLASSES);
        for (label, name) in NAMES.lines().enumerate() {
            assert_eq!(find_imagenet_class(name).unwrap(), label, "{name}");
            assert_eq!(imagenet_class(label), Some(name));
        }
        assert_eq!(imagenet_class(IMAGENET_CLASSES), None);
    }

    #[test]
    fn a_part_of_a_name_will_do_where_it_is_clear() {
        assert_eq!(find_imagenet_class(" Golden Retr").unwrap(), 207);
        let error = find_imagenet_class("terrier").unwrap_err().to_string();
        assert!(error.contains("several") && error.contains("terrier, "), "{error}");
        for wrong in ["", "no such animal"] {
            assert!(matches!(find_imagenet_class(wrong), Err(Error::Option { .. })), "{wrong}");
        }
    }
}
