//! Lists in sentences.

/// How many of a list a sentence names; the rest is a number.
const NAMED: usize = 3;

/// The first few of them, and how many more there are.
pub fn first_few(all: &[String], separator: &str) -> String {
    let mut text = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(separator);
    if all.len() > NAMED {
        text.push_str(&format!("{separator}and {} more", thousands(all.len() - NAMED)));
    }
    text
}

/// As people write it: `1,497`.
pub fn thousands(count: usize) -> String {
    match (count / 1000, count % 1000) {
        (0, rest) => rest.to_string(),
        (more, rest) => format!("{},{rest:03}", thousands(more)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_ends_in_a_number() {
        let all: Vec<String> = (1..=5).map(|number| number.to_string()).collect();
        assert_eq!(first_few(&all, "; "), "1; 2; 3; and 2 more");
        assert_eq!(first_few(&all[..3], ", "), "1, 2, 3");
        assert_eq!(first_few(&[], ", "), "");
    }
}
