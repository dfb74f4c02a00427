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
        let distance = distance(&wrong.to_lowercase(), &word.to_lowercase());
        if distance <= limit && best.is_none_or(|(nearest, _)| distance < nearest) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// Insertions, deletions, substitutions and swaps of neighbours from one word to the other
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for row in 1..=from.len() {
        let mut current = vec![row; to.len() + 1];
        for column in 1..=to.len() {
            let same = from[row - 1] == to[column - 1];
            let mut cost = (above[column] + 1)
                .min(current[column - 1] + 1)
                .min(above[column - 1] + usize::from(!same));
            let swapped = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if swapped {
                cost = cost.min(before[column - 2] + 1);
            }
            current[column] = cost;
        }
        before = std::mem::replace(&mut above, current);
    }
    above[to.len()]
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

    #[test]
    fn neighbours_swapped_cost_one_step() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
