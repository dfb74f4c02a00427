//! The known word that a mistyped one probably means.

/// Longest word compared, in characters; longer ones are not typing errors.
const MAX_LENGTH: usize = 64;

/// The nearest known word, if at most a third of its letters differ. Ties go to the first.
pub(crate) fn closest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wrong_length = wrong.chars().count();
    if wrong_length == 0 || wrong_length > MAX_LENGTH {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let limit = (word.chars().count().max(wrong_length) / 3).max(1);
        // Two neighbours that changed places count as one step.
        let distance = strsim::osa_distance(&wrong.to_lowercase(), &word.to_lowercase());
        if distance <= limit && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 4] = ["priority", "interval", "interface", "vrid"];

    #[test]
    fn a_typing_error_finds_its_word() {
        assert_eq!(closest("prioritiy", WORDS), Some("priority"));
        assert_eq!(closest("intreval", WORDS), Some("interval"));
        assert_eq!(closest("VRID", WORDS), Some("vrid"));
    }

    #[test]
    fn a_different_word_finds_nothing() {
        assert_eq!(closest("scheduler", WORDS), None);
        assert_eq!(closest("", WORDS), None);
    }
}
