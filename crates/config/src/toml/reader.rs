//! Typed reading of a TOML table: known keys only, per-node values picked, a place for every error.

use std::time::Duration;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::duration;
use crate::span::{At, Report, Span};
use crate::toml::keys::{Key, PerNode, Section};
use crate::wish::Field;
use locum_plan::{Name, Node};

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// A table whose keys are all known.
pub(super) struct Table<'t, 'i> {
    pub section: &'static Section,
    pub entries: &'t DeTable<'i>,
    pub span: Span,
}

pub(super) struct Reader<'r> {
    pub report: &'r mut Report,
    pub file: u32,
    /// `None` when it could not be told: per-node values are then not judged.
    pub node: Option<Name>,
    pub nodes: Vec<Node>,
}

impl Reader<'_> {
    pub fn span(&self, range: std::ops::Range<usize>) -> Span {
        // Files are shorter than MAX_FILE_SIZE, so a position fits 32 bits.
        Span { file: self.file, start: range.start as u32, end: range.end as u32 }
    }

    /// Opens a table of this kind; reports every key that does not belong there.
    pub fn open<'t, 'i>(
        &mut self,
        entries: &'t DeTable<'i>,
        span: Span,
        section: &'static Section,
    ) -> Table<'t, 'i> {
        for (name, _) in entries.iter() {
            let known = || section.keys.iter().map(|key| key.name);
            let text = name.get_ref().as_ref();
            if !known().any(|key| key == text) {
                let message = format!("unknown key `{text}` in {}", section.what);
                let finding = self.span(name.span());
                self.report.error(finding, "unknown-key", message).suggest(text, known());
            }
        }
        Table { section, entries, span }
    }

    /// Opens an inline table or `[x]`; anything else is an error that says `shape`.
    pub fn open_value<'t, 'i>(
        &mut self,
        value: &'t Value<'i>,
        section: &'static Section,
        name: &str,
        shape: &str,
    ) -> Option<Table<'t, 'i>> {
        let span = self.span(value.span());
        match value.get_ref() {
            DeValue::Table(entries) => Some(self.open(entries, span, section)),
            other => {
                let kind = kind(other);
                self.wrong_type(span, name, shape, kind);
                None
            }
        }
    }

    /// Reads one setting.
    pub fn field<'i, T>(
        &mut self,
        table: &Table<'_, 'i>,
        name: &'static str,
        read: impl FnOnce(&mut Self, &Value<'i>, &'static Key) -> Option<T>,
    ) -> Field<T> {
        let Some(key) = table.section.keys.iter().find(|key| key.name == name) else {
            debug_assert!(false, "the key table has no row for {name}");
            return Field::Absent;
        };
        let Some(value) = table.entries.get(name) else { return Field::Absent };
        let value = match key.per_node {
            PerNode::Yes => self.for_node(value, name),
            PerNode::No => Some(value),
        };
        let Some(value) = value else { return Field::Bad };
        let span = self.span(value.span());
        match read(self, value, key) {
            Some(value) => Field::Given(At::new(value, span)),
            None => Field::Bad,
        }
    }

    pub fn optional<'i, T>(
        &mut self,
        table: &Table<'_, 'i>,
        name: &'static str,
        read: impl FnOnce(&mut Self, &Value<'i>, &'static Key) -> Option<T>,
    ) -> Option<At<T>> {
        self.field(table, name, read).into_given()
    }

    /// This node's entry when the value is a table keyed by node, else the value itself.
    fn for_node<'v, 'i>(&mut self, value: &'v Value<'i>, name: &str) -> Option<&'v Value<'i>> {
        let DeValue::Table(entries) = value.get_ref() else { return Some(value) };
        if !self.nodes.is_empty() {
            for (key, _) in entries.iter() {
                let text = key.get_ref().as_ref();
                if !self.nodes.iter().any(|node| *node.name == *text) {
                    let span = self.span(key.span());
                    let message = format!("`{name}` has a value for `{text}`, which is no node");
                    let known: Vec<Name> =
                        self.nodes.iter().map(|node| node.name.clone()).collect();
                    self.report
                        .error(span, "unknown-node", message)
                        .suggest(text, known.iter().map(|name| &**name));
                }
            }
        }
        let Some(node) = self.node.clone() else { return entries.values().next() };
        let short = node.split('.').next().unwrap_or(&node);
        let found = entries.get(&*node).or_else(|| {
            let by_host_name = self.nodes.is_empty();
            by_host_name.then(|| entries.get(short)).flatten()
        });
        if found.is_none() {
            let keys: Vec<&str> = entries.iter().map(|(key, _)| key.get_ref().as_ref()).collect();
            let message = format!("`{name}` has no value for node `{node}`");
            let there = match keys.is_empty() {
                true => "the table is empty".to_owned(),
                false => format!("it has values for {}", keys.join(", ")),
            };
            let span = self.span(value.span());
            self.report
                .error(span, "node-value-missing", message)
                .help(format!("{there}; give this node's name with --node if it is another"));
        }
        found
    }

    pub fn wrong_type(&mut self, span: Span, name: &str, shape: &str, kind: &str) {
        let text = format!("`{name}` must be {shape}, not {kind}");
        self.report.error(span, "wrong-type", text);
    }

    /// An error about the value of a key, with what to write instead.
    pub fn bad_value(&mut self, value: &Value<'_>, key: &Key, reason: &str) {
        let span = self.span(value.span());
        self.report
            .error(span, "bad-value", reason)
            .help(format!("`{}` must be {}", key.name, key.shape));
    }

    pub fn text(&mut self, value: &Value<'_>, key: &'static Key) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            other => {
                let kind = kind(other);
                let span = self.span(value.span());
                self.wrong_type(span, key.name, key.shape, kind);
                None
            }
        }
    }

    /// Text that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        value: &Value<'_>,
        key: &'static Key,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(value, key)?;
        match parse(&text) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                self.bad_value(value, key, &reason);
                None
            }
        }
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        value: &Value<'_>,
        key: &'static Key,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(value, key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let span = self.span(value.span());
            let message = format!("`{}` must be {}, not \"{text}\"", key.name, key.shape);
            self.report
                .error(span, "bad-value", message)
                .suggest(&text, words.iter().map(|(word, _)| *word));
        }
        found
    }

    pub fn boolean(&mut self, value: &Value<'_>, key: &'static Key) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            other => {
                let kind = kind(other);
                let span = self.span(value.span());
                self.wrong_type(span, key.name, key.shape, kind);
                None
            }
        }
    }

    /// A whole number within the range.
    pub fn integer(
        &mut self,
        value: &Value<'_>,
        key: &'static Key,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            let kind = kind(value.get_ref());
            let span = self.span(value.span());
            self.wrong_type(span, key.name, key.shape, kind);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.filter(|number| range.contains(number));
        if fits.is_none() {
            let span = self.span(value.span());
            let message = format!("`{}` must be {}, not {integer}", key.name, key.shape);
            self.report.error(span, "out-of-range", message);
        }
        fits
    }

    /// A whole number from `low` that fits an octet.
    pub fn octet(&mut self, value: &Value<'_>, key: &'static Key, low: u8) -> Option<u8> {
        let number = self.integer(value, key, i64::from(low)..=255)?;
        u8::try_from(number).ok()
    }

    /// A count of runs: 1 to [`MAX_COUNT`].
    pub fn count(&mut self, value: &Value<'_>, key: &'static Key) -> Option<u32> {
        let number = self.integer(value, key, 1..=MAX_COUNT)?;
        u32::try_from(number).ok()
    }

    pub fn duration(&mut self, value: &Value<'_>, key: &'static Key) -> Option<Duration> {
        if let DeValue::Integer(number) = value.get_ref() {
            let reason = format!("{number} has no unit");
            self.bad_value(value, key, &reason);
            return None;
        }
        self.parsed(value, key, duration::parse)
    }

    /// The entries of a list; a lone value that `lone` admits counts as a list of one.
    pub fn list<'v, 'i>(
        &mut self,
        value: &'v Value<'i>,
        key: &'static Key,
    ) -> Option<&'v [Value<'i>]> {
        match value.get_ref() {
            DeValue::Array(items) => Some(items),
            other => {
                let kind = kind(other);
                let span = self.span(value.span());
                self.wrong_type(span, key.name, key.shape, kind);
                None
            }
        }
    }

    /// Every entry of a list, read by `read`; `None` when one of them was refused.
    pub fn each<'i, T>(
        &mut self,
        value: &Value<'i>,
        key: &'static Key,
        mut read: impl FnMut(&mut Self, &Value<'i>) -> Option<T>,
    ) -> Option<Vec<At<T>>> {
        let items = self.list(value, key)?;
        let read: Vec<Option<At<T>>> = items
            .iter()
            .map(|item| {
                let span = self.span(item.span());
                read(self, item).map(|value| At::new(value, span))
            })
            .collect();
        read.into_iter().collect()
    }
}

/// Runs of a check in a row: far above any sense, far below an overflow.
pub(super) const MAX_COUNT: i64 = 1_000_000;

/// What a value is, in words.
pub(super) const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
