//! Findings about a configuration: what, where, and what to do. Owns their one printed form.
//!
//! ```text
//! locum.toml:12:1: error: unknown key `intervall` in a check [unknown-key]
//!    12 | intervall = "2s"
//!       | ^^^^^^^^^
//!       = help: did you mean `interval`?
//! ```

use std::fmt;

use serde::Serialize;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The plan stands, but something is probably not meant so.
    Warning,
    /// There is no plan.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A piece of one line of a file, with the line itself, so that it prints without the file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize)]
pub struct Place {
    pub file: String,
    /// From 1; 0 when the finding is about the file as a whole.
    pub line: u32,
    /// From 1, in characters; 0 when the finding is about the file as a whole.
    pub column: u32,
    /// Characters to underline, at least 1.
    pub width: u32,
    /// Column within `excerpt`, from 1: less than `column` when a long line was cut.
    pub excerpt_column: u32,
    /// The line or the part of it around the column, control characters made visible, passwords
    /// hidden.
    pub excerpt: String,
}

impl Place {
    /// The file as a whole: it could not be read, or lacks something.
    pub fn file(path: impl Into<String>) -> Self {
        Self { file: path.into(), ..Self::default() }
    }
}

/// `file:line:column`, or `file` alone.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Short, kebab-case, stable: what scripts match on.
    pub code: &'static str,
    pub message: String,
    #[serde(flatten)]
    pub place: Place,
    /// What else is concerned: "first used at FILE:LINE:COLUMN".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding at this place, without note or help.
    pub fn at(
        place: Place,
        severity: Severity,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { severity, code, message: message.into(), place, note: None, help: None }
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The first line alone, for a log: `file:line:column: error: message [code]`.
    pub fn headline(&self) -> String {
        format!("{}: {}: {} [{}]", self.place, self.severity, self.message, self.code)
    }
}

/// The headline, then the excerpt with a caret, then note and help; every line ended.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        if self.place.line > 0 {
            let excerpt = &self.place.excerpt;
            let column = (self.place.excerpt_column as usize).max(1);
            let room = excerpt.chars().count().saturating_sub(column - 1).max(1);
            let width = (self.place.width.max(1) as usize).min(room);
            writeln!(f, "{:>5} |{}{}", self.place.line, space(excerpt), excerpt)?;
            writeln!(f, "      | {}{}", " ".repeat(column - 1), "^".repeat(width))?;
        }
        if let Some(note) = &self.note {
            writeln!(f, "      = note: {note}")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "      = help: {help}")?;
        }
        Ok(())
    }
}

/// What parts the rule from an excerpt, so that an empty one leaves no white space at the end.
const fn space(excerpt: &str) -> &'static str {
    if excerpt.is_empty() { "" } else { " " }
}

/// All findings of one load, sorted by place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
}

/// Findings kept per load; a binary file taken for a configuration yields thousands.
pub const MAX_DIAGNOSTICS: usize = 200;

impl Diagnostics {
    /// Keeps the finding, unless the limit is reached; errors push warnings out.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.items.len() < MAX_DIAGNOSTICS {
            self.items.push(diagnostic);
        } else if diagnostic.severity == Severity::Error && !self.has_errors() {
            self.items.pop();
            self.items.push(diagnostic);
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn has_errors(&self) -> bool {
        self.worst() == Some(Severity::Error)
    }

    /// `None` when there is nothing to say: the exit code of `locum check` follows from it.
    pub fn worst(&self) -> Option<Severity> {
        self.items.iter().map(|item| item.severity).max()
    }

    /// By file, line, column; equal findings once.
    pub fn sort(&mut self) {
        self.items.sort_by(|a, b| {
            (&a.place.file, a.place.line, a.place.column, a.code).cmp(&(
                &b.place.file,
                b.place.line,
                b.place.column,
                b.code,
            ))
        });
        self.items.dedup();
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// Every finding in full, one after the other.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| write!(f, "{item}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_kept_when_warnings_filled_the_list() {
        let mut all = Diagnostics::default();
        for _ in 0..MAX_DIAGNOSTICS + 5 {
            all.push(Diagnostic::at(Place::file("f"), Severity::Warning, "w", "w"));
        }
        all.push(Diagnostic::at(Place::file("f"), Severity::Error, "e", "e"));
        assert!(all.has_errors());
        assert_eq!(all.len(), MAX_DIAGNOSTICS);
    }
}
