//! The lines of a haproxy.cfg and their words.

/// A line that says something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ConfigLine {
    /// Counted from 1.
    pub number: usize,
    pub words: Vec<ConfigWord>,
    /// Within `.if` … `.endif`: it may not be in force.
    pub conditional: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ConfigWord {
    pub text: String,
    /// A variable of the environment stands in it, unexpanded.
    pub has_variable: bool,
}

impl ConfigLine {
    /// Its words as text, the first one in front.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| word.text.as_str())
    }
}

/// Lines as HAProxy reads them: words between blanks, quotes and backslashes undone, without
/// comments.
pub(super) fn lines(text: &str) -> Vec<ConfigLine> {
    let mut depth = 0_u32;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line);
        match words.first().map(|word| word.text.as_str()) {
            None => {}
            Some(".if") => depth = depth.saturating_add(1),
            Some(".endif") => depth = depth.saturating_sub(1),
            Some(first) if first.starts_with('.') && !first.contains('/') => {}
            Some(_) => lines.push(ConfigLine { number, words, conditional: depth > 0 }),
        }
    }
    lines
}

pub(super) fn words(line: &str) -> Vec<ConfigWord> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Quote {
        None,
        Single,
        Double,
    }
    let mut words = Vec::new();
    let mut word: Option<ConfigWord> = None;
    let mut quote = Quote::None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let literal = match (quote, character) {
            (Quote::None, '#') => break,
            (Quote::None, blank) if blank.is_ascii_whitespace() => {
                words.extend(word.take());
                continue;
            }
            (Quote::None, '\'') | (Quote::Single, '\'') | (Quote::None | Quote::Double, '"') => {
                // A pair of quotes is a word, an empty one too.
                word.get_or_insert_default();
                quote = match (quote, character) {
                    (Quote::None, '\'') => Quote::Single,
                    (Quote::None, _) => Quote::Double,
                    (Quote::Single | Quote::Double, _) => Quote::None,
                };
                continue;
            }
            (Quote::None | Quote::Double, '\\') => match characters.next() {
                Some(escaped) => escaped,
                None => break,
            },
            (Quote::None | Quote::Double, '$') => {
                // Addresses are expanded outside quotes too.
                word.get_or_insert_default().has_variable = true;
                character
            }
            (Quote::None | Quote::Single | Quote::Double, character) => character,
        };
        word.get_or_insert_default().text.push(literal);
    }
    words.extend(word);
    words
}

/// Whether a line with this first word begins a section.
pub(super) fn is_section(word: &str) -> bool {
    const SECTIONS: [&str; 21] = [
        "acme",
        "backend",
        "cache",
        "crt-store",
        "defaults",
        "fcgi-app",
        "frontend",
        "global",
        "http-errors",
        "listen",
        "log-forward",
        "log-profile",
        "mailers",
        "peers",
        "program",
        "resolvers",
        "ring",
        "ruleset",
        "traces",
        "userlist",
        "healthcheck",
    ];
    SECTIONS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_haproxy() {
        let text = |line| words(line).into_iter().map(|word| word.text).collect::<Vec<_>>();
        assert_eq!(text("  bind\t:80  # comment"), ["bind", ":80"]);
        assert_eq!(text(r#"a 'b c' "d \" e" f\ g ''"#), ["a", "b c", "d \" e", "f g", ""]);
        assert_eq!(text(r"'it\s' # x"), [r"it\s"]);
        assert_eq!(text("# nothing"), Vec::<String>::new());
        assert_eq!(text("cut off\\"), ["cut", "off"]);
        assert_eq!(text("\"never closed"), ["never closed"]);
        let variables: Vec<_> =
            words(r#"a$B '$C' "$D" \$E"#).into_iter().map(|word| word.has_variable).collect();
        assert_eq!(variables, [true, false, true, false]);
    }

    #[test]
    fn lines_of_a_branch_may_not_be_in_force() {
        let found =
            lines(".if feature(OPENSSL)\nbind :1\n.else\nbind :2\n.endif\n.endif\nbind :3\n");
        let conditional: Vec<_> = found.iter().map(|line| line.conditional).collect();
        assert_eq!(conditional, [true, true, false]);
        assert_eq!(found.iter().map(|line| line.number).collect::<Vec<_>>(), [2, 4, 7]);
    }
}
