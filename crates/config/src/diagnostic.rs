//! Findings about a configuration: what, where, and what to do. Owns their one printed form.
//!
//! ```text
//! locum.toml:12:1: error: unknown key `intervall` in a check [unknown-key]
//!    12 | intervall = "2s"
//!       | ^^^^^^^^^
//!       = help: did you mean `interval`?
//! ```

use std::collections::HashMap;
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
    /// Where it comes among others.
    fn order(&self) -> (&str, u32, u32) {
        (&self.file, self.line, self.column)
    }

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
    /// What is in effect instead of what was written: of a mistake that the language of the file
    /// forgives. `check --strict` forgives none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Further places with the same warning, which are not shown.
    #[serde(skip_serializing_if = "is_zero")]
    pub repeats: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands over a reference.
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Diagnostic {
    /// A finding at this place, without note or help.
    pub fn at(
        place: Place,
        severity: Severity,
        code: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            place,
            note: None,
            effect: None,
            help: None,
            repeats: 0,
        }
    }

    pub fn with_effect(mut self, effect: impl Into<String>) -> Self {
        self.effect = Some(effect.into());
        self
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

/// The headline, then the excerpt with a caret, then note, effect and help; every line ended.
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
        if let Some(effect) = &self.effect {
            writeln!(f, "      = effect: {effect}")?;
        }
        if let Some(help) = &self.help {
            writeln!(f, "      = help: {help}")?;
        }
        match self.repeats {
            0 => Ok(()),
            1 => writeln!(f, "      = and once more"),
            several => writeln!(f, "      = and {several} times more"),
        }
    }
}

/// What parts the rule from an excerpt, so that an empty one leaves no white space at the end.
const fn space(excerpt: &str) -> &'static str {
    if excerpt.is_empty() { "" } else { " " }
}

/// All findings of one load: errors first, then by place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    /// Of all that were found, whether kept or not.
    #[serde(skip)]
    errors: usize,
    #[serde(skip)]
    warnings: usize,
    /// Where the warnings that are kept are, by code and message: one that repeats is kept once.
    #[serde(skip)]
    kept: HashMap<&'static str, HashMap<String, usize>>,
    #[serde(skip)]
    kept_errors: usize,
}

/// Findings kept per load; a binary file taken for a configuration yields thousands.
pub const MAX_DIAGNOSTICS: usize = 200;

impl Diagnostics {
    /// Counts the finding, and keeps it unless the limit is reached; errors push warnings out. A
    /// warning that was found before is kept once, with the number of its repeats.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        match diagnostic.severity {
            Severity::Error => self.push_error(diagnostic),
            Severity::Warning => self.push_warning(diagnostic),
        }
    }

    /// Counts a finding that [`Self::push`] would not keep, so that nobody writes it down first;
    /// false of any other. It stands at `position`: its file, line and column.
    pub(crate) fn count_only(
        &mut self,
        severity: Severity,
        code: &'static str,
        message: &str,
        position: (&str, u32, u32),
    ) -> bool {
        let is_full = self.items.len() >= MAX_DIAGNOSTICS;
        if severity == Severity::Error {
            let is_kept = !is_full || self.kept_errors < MAX_DIAGNOSTICS;
            self.errors += usize::from(!is_kept);
            return !is_kept;
        }
        let first = self.kept.get(code).and_then(|by_message| by_message.get(message));
        let Some(first) = first.and_then(|at| self.items.get_mut(*at)) else {
            self.warnings += usize::from(is_full);
            return is_full;
        };
        let order = position.cmp(&first.place.order());
        if order.is_gt() {
            first.repeats += 1;
            self.warnings += 1;
        }
        order.is_ge()
    }

    fn push_error(&mut self, diagnostic: Diagnostic) {
        self.errors += 1;
        if self.items.len() < MAX_DIAGNOSTICS {
            self.items.push(diagnostic);
            self.kept_errors += 1;
        } else if let Some(at) =
            self.items.iter().rposition(|item| item.severity == Severity::Warning)
        {
            self.items[at] = diagnostic;
            self.index();
        }
    }

    fn push_warning(&mut self, diagnostic: Diagnostic) {
        let kept = self.kept.entry(diagnostic.code).or_default();
        let first = kept.get(&diagnostic.message).copied();
        if let Some(first) = first.and_then(|at| self.items.get_mut(at)) {
            if first.place == diagnostic.place {
                return;
            }
            first.repeats += 1 + diagnostic.repeats;
            self.warnings += 1 + diagnostic.repeats;
            if diagnostic.place.order() < first.place.order() {
                first.place = diagnostic.place;
            }
            return;
        }
        self.warnings += 1 + diagnostic.repeats;
        if self.items.len() < MAX_DIAGNOSTICS {
            kept.insert(diagnostic.message.clone(), self.items.len());
            self.items.push(diagnostic);
        }
    }

    /// Where each warning is.
    fn index(&mut self) {
        self.kept.clear();
        self.kept_errors = 0;
        for (at, item) in self.items.iter().enumerate() {
            match item.severity {
                Severity::Error => self.kept_errors += 1,
                Severity::Warning => {
                    self.kept.entry(item.code).or_default().insert(item.message.clone(), at);
                }
            }
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// Errors that were found, whether kept or not.
    pub const fn errors(&self) -> usize {
        self.errors
    }

    /// Warnings that were found, each repeat counted, whether kept or not.
    pub const fn warnings(&self) -> usize {
        self.warnings
    }

    pub const fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }

    pub const fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// `None` when there is nothing to say: the exit code of `locum check` follows from it.
    pub const fn worst(&self) -> Option<Severity> {
        match (self.errors, self.warnings) {
            (0, 0) => None,
            (0, _) => Some(Severity::Warning),
            _ => Some(Severity::Error),
        }
    }

    /// What the language of the file forgives is an error now.
    pub fn forgive_nothing(&mut self) {
        for item in &mut self.items {
            if item.effect.is_some() && item.severity == Severity::Warning {
                item.severity = Severity::Error;
                self.errors += 1 + item.repeats;
                self.warnings -= 1 + item.repeats;
            }
        }
        self.sort();
    }

    /// Errors first; by file, line, column; equal findings once.
    pub fn sort(&mut self) {
        let rank = |item: &Diagnostic| std::cmp::Reverse(item.severity);
        self.items.sort_by(|a, b| {
            (rank(a), a.place.order(), a.code).cmp(&(rank(b), b.place.order(), b.code))
        });
        let before = self.items.len();
        self.items.dedup();
        // Warnings that are equal were never kept twice.
        self.errors -= before - self.items.len();
        self.index();
    }

    /// Those that were found and are not kept.
    fn hidden(&self) -> usize {
        let shown: usize = self.items.iter().map(|item| 1 + item.repeats).sum();
        (self.errors + self.warnings).saturating_sub(shown)
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

/// Every finding in full, one after the other, and how many are not shown.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| write!(f, "{item}"))?;
        match self.hidden() {
            0 => Ok(()),
            hidden => writeln!(f, "{hidden} more findings are not shown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(severity: Severity, line: u32, message: String) -> Diagnostic {
        Diagnostic::at(Place { line, ..Place::file("f") }, severity, "x", message)
    }

    #[test]
    fn errors_are_kept_when_warnings_filled_the_list_and_all_are_counted() {
        let mut all = Diagnostics::default();
        for line in 0..MAX_DIAGNOSTICS as u32 + 5 {
            all.push(found(Severity::Warning, line, format!("w{line}")));
        }
        for line in 1..=3 {
            all.push(found(Severity::Error, line, "e".to_owned()));
        }
        all.sort();
        assert_eq!((all.errors(), all.warnings()), (3, MAX_DIAGNOSTICS + 5));
        let first: Vec<_> = all.iter().take(4).map(|item| item.severity).collect();
        assert_eq!(first, [Severity::Error, Severity::Error, Severity::Error, Severity::Warning]);
        assert_eq!(all.iter().len(), MAX_DIAGNOSTICS);
        assert!(all.to_string().ends_with("\n8 more findings are not shown\n"));
    }

    #[test]
    fn a_warning_that_repeats_is_kept_once_with_its_count_and_its_first_place() {
        let mut all = Diagnostics::default();
        for line in [7, 3, 9, 9] {
            all.push(found(Severity::Warning, line, "w".to_owned()));
        }
        let only: Vec<_> = all.iter().map(|item| (item.place.line, item.repeats)).collect();
        assert_eq!((only.as_slice(), all.warnings()), (&[(3, 3)][..], 4));
    }

    #[test]
    fn strictness_makes_an_error_of_what_was_forgiven_and_of_nothing_else() {
        let mut all = Diagnostics::default();
        all.push(found(Severity::Warning, 1, "a".to_owned()).with_effect("nothing"));
        all.push(found(Severity::Warning, 2, "a".to_owned()).with_effect("nothing"));
        all.push(found(Severity::Warning, 3, "b".to_owned()));
        all.forgive_nothing();
        assert_eq!((all.errors(), all.warnings()), (2, 1));
    }
}
