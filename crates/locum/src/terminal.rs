//! What a person reads on standard output and standard error.
//!
//! Much of it is foreign: what a check or a hook printed, the words of the kernel and of HAProxy, a
//! line of a configuration. A terminal takes some characters for orders (move the cursor, set the
//! title, write from right to left), so those are shown as `\u{1b}` here and in the text form of the
//! log. JSON carries everything as it was.
//!
//! Neither stream need take anything: a full disk or a reader that has seen enough is no reason to
//! end, which the macros of the standard library would.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Prints to standard output, in lines for people.
pub fn say(text: &str) {
    say_exactly(&lines(text));
}

/// Prints to standard output, every byte as it is.
pub fn say_exactly(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Prints lines for people to standard error.
pub fn complain(text: &str) {
    let text = lines(text);
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// `text` in one line that a terminal only shows.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, |c| !is_order(c))
}

/// `text` with its lines and tabs, in characters that a terminal only shows.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| matches!(c, '\n' | '\t') || !is_order(c))
}

/// `value` with every text in it in [`one_line`], whichever field it stands in.
pub fn in_one_line<T: Serialize + DeserializeOwned + Clone>(value: &T) -> T {
    let escaped = serde_json::to_value(value).and_then(|mut tree| {
        escape_texts(&mut tree);
        serde_json::from_value(tree)
    });
    // What has been read from JSON can be written as such.
    escaped.unwrap_or_else(|_| value.clone())
}

fn escape_texts(tree: &mut Value) {
    match tree {
        Value::String(text) => {
            if let Cow::Owned(escaped) = one_line(text) {
                *text = escaped;
            }
        }
        Value::Array(values) => values.iter_mut().for_each(escape_texts),
        Value::Object(fields) => fields.values_mut().for_each(escape_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_kept) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_kept(c) {
            shown.push(c);
        } else {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", c.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// Control characters of both sets, separators of lines, and the marks that turn the direction of
/// writing: they make a line read as another one.
fn is_order(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_to_a_terminal_are_shown_and_letters_of_any_language_stay() {
        for (text, shown) in [
            ("plain, übel, 日本", "plain, übel, 日本"),
            ("\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("a\r\n\tb", "a\\r\\n\\tb"),
            ("\u{202e}drow", "\\u{202e}drow"),
        ] {
            assert_eq!(one_line(text), shown);
        }
        assert_eq!(lines("a\n\tb\r\x1b"), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn every_text_of_a_document_is_shown_in_one_line() {
        let mut document = crate::commands::sample::document();
        document.checks[0].detail = "up\n\x1b]0;title\x07".into();
        document.instances[0].cause = "\x1b[31m".into();
        let shown = in_one_line(&document);
        assert_eq!(shown.checks[0].detail, "up\\n\\u{1b}]0;title\\u{7}");
        assert_eq!(shown.instances[0].cause, "\\u{1b}[31m");
        document.checks[0].detail.clone_from(&shown.checks[0].detail);
        document.instances[0].cause.clone_from(&shown.instances[0].cause);
        assert_eq!(shown, document, "nothing else has changed");
    }
}
