//! Places in the files read: a span is a range of octets of one file until someone must see it.

use std::collections::HashSet;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::need::{Need, NeedKind};

/// Octets `start..end` of one of the files of a [`Report`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(crate) struct Span {
    pub file: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    /// From here to the end of `other`, when both are in one file.
    pub fn to(self, other: Self) -> Self {
        if self.file == other.file { Self { end: other.end.max(self.end), ..self } } else { self }
    }
}

/// A value and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), span: self.span }
    }
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub path: String,
    pub text: String,
    /// Octet at which each line begins.
    lines: Vec<u32>,
}

impl SourceFile {
    fn new(path: String, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n');
        // Files are shorter than MAX_FILE_SIZE, so a position fits 32 bits.
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { path, text, lines }
    }

    /// Path, line and column of the beginning.
    fn position(&self, span: Span) -> (&str, u32, u32) {
        let start = self.floor(span.start as usize);
        let (row, line_start) = self.row(start);
        let before = self.text[line_start..start].chars().count();
        (&self.path, row as u32 + 1, before as u32 + 1)
    }

    /// Number from 0, and first octet, of the line with this octet.
    fn row(&self, at: usize) -> (usize, usize) {
        let row = self.lines.partition_point(|line| *line as usize <= at).saturating_sub(1);
        (row, self.lines.get(row).map_or(0, |line| *line as usize))
    }

    fn place(&self, span: Span) -> Place {
        let start = self.floor(span.start as usize);
        let (row, line_start) = self.row(start);
        let line_end = self.lines.get(row + 1).map_or(self.text.len(), |next| (*next as usize) - 1);
        let end = self.floor(span.end as usize).clamp(start, line_end.max(start));
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        let before = self.text[line_start..start].chars().count();
        let skipped = before.saturating_sub(MAX_EXCERPT / 2);
        let secret = secret_from(line);
        let shown = |(at, c): (usize, char)| visible(if at < secret { c } else { hidden(c) });
        let excerpt = line.char_indices().skip(skipped).take(MAX_EXCERPT).map(shown).collect();
        Place {
            file: self.path.clone(),
            line: row as u32 + 1,
            column: before as u32 + 1,
            width: (self.text[start..end].chars().count() as u32).max(1),
            excerpt_column: (before - skipped) as u32 + 1,
            excerpt,
        }
    }

    /// The last character boundary at or before `at`.
    fn floor(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at.min(self.text.len()))
    }
}

/// Characters of an excerpt: two terminal lines.
const MAX_EXCERPT: usize = 160;

/// Octet of a line from which its characters are not shown: what follows a key of a password, so
/// that no finding carries one into a log (V-343). Also after a mistyped key, which is when a
/// finding shows the line.
fn secret_from(line: &str) -> usize {
    let keys = ["pass", "pasw", "auth_p"];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let after = |key: usize| line[key..].find(|c| !word(c)).map_or(line.len(), |end| key + end);
    let of_key = keys.iter().filter_map(|key| line.find(key)).min().map(after);
    // And what looks like the hash of one, whatever stands before it.
    let hashes = ["\"$", "'$"];
    let of_hash = hashes.iter().filter_map(|hash| line.find(hash)).min();
    of_key.into_iter().chain(of_hash).min().unwrap_or(line.len())
}

/// A star, unless the character only parts words.
fn hidden(character: char) -> char {
    let parts = matches!(character, '=' | '"' | '\'' | '{' | '}' | ',');
    if parts || character.is_whitespace() { character } else { '*' }
}

/// One column each, so that the caret stays below what it points at.
fn visible(character: char) -> char {
    match character {
        '\t' => ' ',
        other if other.is_control() => '\u{fffd}',
        other => other,
    }
}

/// Files read so far, findings so far, and what the host must have.
#[derive(Default, Debug)]
pub(crate) struct Report {
    pub files: Vec<SourceFile>,
    pub diagnostics: Diagnostics,
    pub needs: Vec<Need>,
    needed: HashSet<(Span, NeedKind)>,
}

impl Report {
    /// Takes a file in and returns its number.
    pub fn add_file(&mut self, path: &str, text: String) -> u32 {
        self.files.push(SourceFile::new(path.to_owned(), text));
        self.files.len() as u32 - 1
    }

    pub fn place(&self, span: Span) -> Place {
        self.files.get(span.file as usize).map_or_else(Place::default, |file| file.place(span))
    }

    /// Starts an error; it counts when [`Finding`] is dropped.
    pub fn error(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
    ) -> Finding<'_> {
        self.find(span, Severity::Error, code, message.into())
    }

    /// Reports what is written beside a kind and means nothing there: each name with where it is
    /// written, and whether it fits.
    pub fn misplaced<'a>(
        &mut self,
        kind: &str,
        written: impl IntoIterator<Item = (&'a str, Option<Span>, bool)>,
    ) {
        for (name, span, fits) in written {
            if let (Some(span), false) = (span, fits) {
                self.error(
                    span,
                    "misplaced-key",
                    format!("`{name}` means nothing beside `{kind}`"),
                );
            }
        }
    }

    pub fn warning(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
    ) -> Finding<'_> {
        self.find(span, Severity::Warning, code, message.into())
    }

    /// A mistake that the language of the file forgives: a warning that says what is in effect.
    pub fn forgiven(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
        effect: impl Into<String>,
    ) -> Finding<'_> {
        let mut finding = self.warning(span, code, message);
        let diagnostic = finding.diagnostic.take();
        finding.diagnostic = diagnostic.map(|diagnostic| diagnostic.with_effect(effect));
        finding
    }

    pub fn need(&mut self, span: Span, kind: NeedKind) {
        if self.needed.insert((span, kind.clone())) {
            let place = self.place(span);
            self.needs.push(Need { kind, place, severity: Severity::Error });
        }
    }

    fn find(
        &mut self,
        span: Span,
        severity: Severity,
        code: &'static str,
        message: String,
    ) -> Finding<'_> {
        let file = self.files.get(span.file as usize);
        let position = file.map_or(("", 0, 0), |file| file.position(span));
        // What repeats a million times is not written a million times.
        if self.diagnostics.count_only(severity, code, &message, position) {
            return Finding { report: self, diagnostic: None };
        }
        let diagnostic = Diagnostic::at(self.place(span), severity, code, message);
        Finding { report: self, diagnostic: Some(diagnostic) }
    }
}

/// A finding being written; dropped, it is filed.
pub(crate) struct Finding<'a> {
    report: &'a mut Report,
    diagnostic: Option<Diagnostic>,
}

impl Finding<'_> {
    /// It will be shown; one that only repeats another is counted.
    pub const fn is_kept(&self) -> bool {
        self.diagnostic.is_some()
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.take().map(|finding| finding.with_help(help));
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.take().map(|finding| finding.with_note(note));
        self
    }

    /// Points at the other place that is concerned.
    pub fn see(self, what: &str, span: Span) -> Self {
        if self.diagnostic.is_none() {
            return self;
        }
        let note = format!("{what} at {}", self.report.place(span));
        self.note(note)
    }

    /// Adds "did you mean" when a known word is close.
    pub fn suggest<'w>(self, wrong: &str, known: impl IntoIterator<Item = &'w str>) -> Self {
        if self.diagnostic.is_none() {
            return self;
        }
        match crate::suggest::closest(wrong, known) {
            Some(word) => self.help(format!("did you mean `{word}`?")),
            None => self,
        }
    }
}

impl Drop for Finding<'_> {
    fn drop(&mut self) {
        if let Some(diagnostic) = self.diagnostic.take() {
            self.report.diagnostics.push(diagnostic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, start: usize, end: usize) -> Place {
        let mut report = Report::default();
        let file = report.add_file("f", text.to_owned());
        report.place(Span { file, start: start as u32, end: end as u32 })
    }

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let found = place("a\n\tä b\r\n", 5, 7);
        assert_eq!((found.line, found.column, found.width), (2, 3, 2));
        assert_eq!(found.excerpt, " ä b");
    }

    #[test]
    fn a_long_line_is_cut_around_the_finding() {
        let text = format!("{}bad{}", " ".repeat(500), " ".repeat(500));
        let found = place(&text, 500, 503);
        assert_eq!((found.column, found.excerpt.len()), (501, MAX_EXCERPT));
        let at = found.excerpt_column as usize - 1;
        assert_eq!(&found.excerpt[at..at + 3], "bad");
    }

    /// V-343.
    #[test]
    fn an_excerpt_shows_no_password() {
        let found = place("auth_pass geheim # x", 10, 16);
        assert_eq!(found.excerpt, "auth_pass ****** * *");
        let found = place("auth = { password = \"geheim\" }", 20, 28);
        assert_eq!(found.excerpt, "auth = { password = \"******\" }");
        let found = place("\"$6$geheim\" # x", 0, 1);
        assert_eq!(found.excerpt, "\"*********\" * *");
        let found = place("auth_pas geheim", 0, 8);
        assert_eq!(found.excerpt, "auth_pas ******");
    }

    #[test]
    fn a_span_beyond_the_text_is_the_end_of_the_text() {
        assert_eq!(place("ab", 90, 99).column, 3);
        assert_eq!(place("", 0, 0).line, 1);
    }
}
