//! The Rust files of the workspace, and what of their text is code.

use std::fs;
use std::path::{Path, PathBuf};

use locum_integration::require;

/// All files below `directory` with one of these extensions, sorted.
pub fn files(directory: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![require::workspace().join(directory)];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|ext| extensions.iter().any(|one| ext == *one)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no files below {directory}");
    found
}

/// Text of a file; a test's data may be no text on purpose.
pub fn text(path: &Path) -> String {
    let bytes = fs::read(path);
    let bytes = bytes.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The folder below `crates` that a file is in, else the first folder of its path.
pub fn crate_of(path: &Path) -> String {
    let path = path.strip_prefix(require::workspace()).expect("a file of the workspace");
    let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let first = parts.next().unwrap_or_default();
    if first == "crates" { parts.next().unwrap_or_default() } else { first }
}

/// `text` with the contents of comments and of string and character literals made blank, line for
/// line.
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = literal_or_comment(bytes, at);
        if length == 0 {
            code.push(bytes[at]);
            at += 1;
            continue;
        }
        let end = (at + length).min(bytes.len());
        code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// [`code`] up to the tests of the file.
pub fn built_code(text: &str) -> String {
    let mut code = code(text);
    code.truncate(code.find("#[cfg(test)]").unwrap_or(code.len()));
    code
}

/// Octets of the comment or the literal that begins here; 0 when none does.
fn literal_or_comment(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let within_word = at.checked_sub(1).is_some_and(|before| is_word(&bytes[before]));
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => find(&rest[2..], b"*/").map_or(rest.len(), |end| end + 4),
        [b'r', b'"' | b'#', ..] if !within_word => raw_string(rest),
        [b'"', ..] => closed(rest, b'"'),
        [b'\'', b'\\', ..] => closed(rest, b'\''),
        // A lifetime has no quote at its end; a character may have several octets.
        [b'\'', ..] => {
            let characters = std::str::from_utf8(&rest[1..rest.len().min(6)]);
            let valid = characters.unwrap_or_else(|error| {
                std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).unwrap_or_default()
            });
            match valid.chars().next() {
                Some(one) if rest.get(1 + one.len_utf8()) == Some(&b'\'') => one.len_utf8() + 2,
                Some(_) | None => 0,
            }
        }
        _ => 0,
    }
}

/// Up to the closing quote that no backslash escapes.
fn closed(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// `r"…"` and `r#"…"#`; 0 for `r#name`.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let begin = hashes + 2;
    find(&rest[begin..], &end).map_or(rest.len(), |at| begin + at + end.len())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The words of an identifier or of prose: `retry_soon` and `RetrySoon` have two.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    for one in text.chars() {
        let begins = one.is_uppercase() && before.is_lowercase();
        if (begins || !one.is_alphabetic()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if one.is_alphabetic() {
            word.extend(one.to_lowercase());
        }
        before = one;
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a // b\n\"c \\\" d\" e /* f\ng */ 'h' '\\'' i<'j> r#\"k\"# l r#m 'ü' n";
    let code = code(text);
    let left: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(left, ["a", "e", "i<'j>", "l", "r#m", "n"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn words_end_at_humps_and_underscores() {
    assert_eq!(words("retry_soon RetrySoon IPv4"), ["retry", "soon", "retry", "soon", "ipv"]);
}
