//! File name patterns: `*`, `?`, `[a-z]`, `{one,two}`. Expanded against a [`Source`].

use ::glob::{MatchOptions, Pattern};

use crate::source::Source;

/// Paths that one pattern may yield; an include of more is a mistake.
pub(crate) const MAX_MATCHES: usize = 4096;

/// Whether the text asks for expansion at all.
pub(crate) fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '{'])
}

/// Every existing path that matches, sorted, at most [`MAX_MATCHES`].
pub(crate) fn expand(source: &dyn Source, pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    for plain in braces(pattern) {
        let (root, rest) = match plain.strip_prefix('/') {
            Some(rest) => ("/".to_owned(), rest.to_owned()),
            None => (String::new(), plain),
        };
        let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
        walk(source, &root, &segments, &mut found);
    }
    found.sort();
    found.dedup();
    found.truncate(MAX_MATCHES);
    found
}

fn walk(source: &dyn Source, directory: &str, segments: &[&str], found: &mut Vec<String>) {
    let Some((first, rest)) = segments.split_first() else { return };
    if found.len() >= MAX_MATCHES {
        return;
    }
    if !is_pattern(first) {
        let path = join(directory, first);
        if !rest.is_empty() {
            walk(source, &path, rest, found);
        } else if source.list(directory).is_ok_and(|names| names.iter().any(|name| name == first)) {
            found.push(path);
        }
        return;
    }
    let mut names = source.list(directory).unwrap_or_default();
    names.sort();
    for name in names.iter().filter(|name| matches(first, name)) {
        let path = join(directory, name);
        if rest.is_empty() {
            found.push(path);
        } else {
            walk(source, &path, rest, found);
        }
    }
}

/// A path below a directory; the empty directory is where relative paths start.
pub(crate) fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() || directory.ends_with('/') {
        format!("{directory}{name}")
    } else {
        format!("{directory}/{name}")
    }
}

/// Alternatives that braces may spell, to the limit of [`MAX_MATCHES`].
pub(crate) fn braces(pattern: &str) -> Vec<String> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(text) = open.pop() {
        match alternatives(&text) {
            Some(mut list) if open.len() + done.len() + list.len() <= MAX_MATCHES => {
                list.reverse();
                open.extend(list);
            }
            Some(_) | None => done.push(text),
        }
    }
    done
}

/// The first innermost `{a,b}` spelled out; `None` when there is none.
fn alternatives(text: &str) -> Option<Vec<String>> {
    let end = text.find('}')?;
    let start = text[..end].rfind('{')?;
    let (before, after) = (&text[..start], &text[end + 1..]);
    Some(text[start + 1..end].split(',').map(|word| format!("{before}{word}{after}")).collect())
}

/// A segment as a shell reads it: a leading dot must be written. One that is no pattern after all,
/// as with a bracket that is not closed, matches nothing but itself.
fn matches(pattern: &str, name: &str) -> bool {
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    // A shell negates a class by a caret too, and two stars are one within a segment.
    let mut spelled = pattern.replace("[^", "[!");
    while spelled.contains("**") {
        spelled = spelled.replace("**", "*");
    }
    match Pattern::new(&spelled) {
        Ok(pattern) => pattern.matches_with(name, options),
        Err(_) => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemorySource;

    #[test]
    fn a_segment_matches_as_a_shell_would() {
        for (pattern, name) in [
            ("*.conf", "a.conf"),
            ("a*b*c", "aXbYbc"),
            ("?[0-9]", "x7"),
            ("[!a]", "b"),
            ("[^a]", "b"),
            ("*", "x"),
            ("**x", "yx"),
            ("[a", "[a"),
            (".h*", ".hidden"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.conf", "a.conf~"),
            ("*", ".hidden"),
            ("?", "ab"),
            ("[!a]", "a"),
            ("[^a]", "a"),
            ("a*b", "ac"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_expands_in_order_through_directories_and_braces() {
        let source = MemorySource::new()
            .with("/etc/k/b.conf", "")
            .with("/etc/k/a.conf", "")
            .with("/etc/k/c.txt", "")
            .with("/etc/m/a.conf", "");
        assert_eq!(expand(&source, "/etc/k/*.conf"), ["/etc/k/a.conf", "/etc/k/b.conf"]);
        assert_eq!(expand(&source, "/etc/{k,m}/a.conf"), ["/etc/k/a.conf", "/etc/m/a.conf"]);
        assert_eq!(expand(&source, "/etc/?/a.*"), ["/etc/k/a.conf", "/etc/m/a.conf"]);
        assert!(expand(&source, "/usr/*").is_empty());
    }
}
