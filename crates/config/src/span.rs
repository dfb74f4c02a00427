//! Places in the files read: a span is a range of octets of one file until someone must see it.

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::{Need, NeedKind};

/// Octets `start..end` of a file in [`Files`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
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

    fn place(&self, span: Span) -> Place {
        let start = self.floor(span.start as usize);
        let row = self.lines.partition_point(|line| *line as usize <= start).saturating_sub(1);
        let line_start = self.lines.get(row).map_or(0, |line| *line as usize);
        let line_end = self.lines.get(row + 1).map_or(self.text.len(), |next| (*next as usize) - 1);
        let end = self.floor(span.end as usize).clamp(start, line_end.max(start));
        let line = self.text[line_start..line_end].trim_end_matches('\r');
        Place {
            file: self.path.clone(),
            line: row as u32 + 1,
            column: self.text[line_start..start].chars().count() as u32 + 1,
            width: (self.text[start..end].chars().count() as u32).max(1),
            excerpt: line.chars().map(visible).collect(),
        }
    }

    /// The last character boundary at or before `at`.
    fn floor(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at.min(self.text.len()))
    }
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

    pub fn warning(
        &mut self,
        span: Span,
        code: &'static str,
        message: impl Into<String>,
    ) -> Finding<'_> {
        self.find(span, Severity::Warning, code, message.into())
    }

    pub fn need(&mut self, span: Span, kind: NeedKind) {
        let need = Need { kind, place: self.place(span) };
        if !self.needs.contains(&need) {
            self.needs.push(need);
        }
    }

    fn find(
        &mut self,
        span: Span,
        severity: Severity,
        code: &'static str,
        message: String,
    ) -> Finding<'_> {
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
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.take().map(|finding| finding.with_help(help));
        self
    }

    /// Points at the other place that is concerned.
    pub fn see(mut self, what: &str, span: Span) -> Self {
        let note = format!("{what} at {}", self.report.place(span));
        self.diagnostic = self.diagnostic.take().map(|finding| finding.with_note(note));
        self
    }

    /// Adds "did you mean" when a known word is close.
    pub fn suggest<'w>(self, wrong: &str, known: impl IntoIterator<Item = &'w str>) -> Self {
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
