//! The name that was meant, for a name that is not there.

/// The name most like `wanted`, if one is like it.
pub(super) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a String> + Clone) -> Option<&'a str> {
    let longer = |name: &&String| {
        name.strip_suffix(wanted).is_some_and(|rest| rest.ends_with('.'))
            || wanted.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
    };
    if let Some(name) = names.clone().find(longer) {
        return Some(name);
    }
    let (distance, name) = names.map(|name| (edits(wanted, name), name)).min()?;
    (distance * 4 <= wanted.len()).then_some(name)
}

/// Single-character changes between two names (Levenshtein distance).
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, character) in left.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn edits_count_single_characters() {
        assert_eq!(edits("weight", "weight"), 0, "equal names differ");
        assert_eq!(edits("weight", "weights"), 1, "one insertion");
        assert_eq!(edits("conv1", "conv2"), 1, "one replacement");
        assert_eq!(edits("", "abc"), 3, "all inserted");
    }

    #[test]
    fn a_name_under_a_prefix_is_the_nearest() {
        let names = ["conv_im.weight".to_owned(), "model.diffusion_model.conv_in.weight".to_owned()];
        assert_eq!(
            nearest("conv_in.weight", names.iter()),
            Some("model.diffusion_model.conv_in.weight"),
            "the prefix was not seen"
        );
    }

    #[test]
    fn unlike_names_are_not_near() {
        let names = ["abc".to_owned()];
        assert_eq!(nearest("down_blocks.0.weight", names.iter()), None, "everything is near");
    }
}
