//! Typed reading of a TOML table: known keys only, per-node values picked, a place for every error.

use std::time::Duration;

use ::toml::Spanned;
use ::toml::de::DeValue;

use crate::duration;
use crate::span::{At, Report, Span};
use locum_plan::{Name, Node};

pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// The key whose value is read, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'k> {
    pub name: &'k str,
    /// What to write: "must be …".
    pub shape: &'k str,
}

pub(crate) struct Reader<'r> {
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

    /// Reports a key that does not belong into a table of this kind, with what to do about it or
    /// what it may have been.
    pub fn unknown_key<'w>(
        &mut self,
        span: Span,
        key: &str,
        what: &str,
        hint: Option<String>,
        known: impl Iterator<Item = &'w str>,
    ) {
        let message = format!("unknown key `{key}` in {what}");
        let finding = self.report.error(span, "unknown-key", message);
        match hint {
            Some(hint) => drop(finding.help(hint)),
            None => drop(finding.suggest(key, known)),
        }
    }

    /// This node's entry when the value is a table keyed by node, else the value itself.
    pub fn for_node<'v, 'i>(&mut self, value: &'v Value<'i>, name: &str) -> Option<&'v Value<'i>> {
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

    /// The value is of another kind than the key wants.
    pub fn wrong_type(&mut self, value: &Value<'_>, key: Key<'_>) {
        let span = self.span(value.span());
        let text = format!("`{}` must be {}, not {}", key.name, key.shape, kind(value.get_ref()));
        self.report.error(span, "wrong-type", text);
    }

    /// An error about the value of a key, with what to write instead.
    pub fn bad_value(&mut self, value: &Value<'_>, key: Key<'_>, reason: &str) {
        let span = self.span(value.span());
        self.report
            .error(span, "bad-value", reason)
            .help(format!("`{}` must be {}", key.name, key.shape));
    }

    pub fn text(&mut self, value: &Value<'_>, key: Key<'_>) -> Option<String> {
        match value.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _other => {
                self.wrong_type(value, key);
                None
            }
        }
    }

    /// Text that `parse` understands.
    pub fn parsed<T>(
        &mut self,
        value: &Value<'_>,
        key: Key<'_>,
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
    pub fn word<T: Clone>(
        &mut self,
        value: &Value<'_>,
        key: Key<'_>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(value, key)?;
        let found =
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning.clone());
        if found.is_none() {
            let span = self.span(value.span());
            let message = format!("`{}` must be {}, not \"{text}\"", key.name, key.shape);
            self.report
                .error(span, "bad-value", message)
                .suggest(&text, words.iter().map(|(word, _)| *word));
        }
        found
    }

    pub fn boolean(&mut self, value: &Value<'_>, key: Key<'_>) -> Option<bool> {
        match value.get_ref() {
            DeValue::Boolean(yes) => Some(*yes),
            _other => {
                self.wrong_type(value, key);
                None
            }
        }
    }

    /// A whole number within the range.
    pub fn integer(
        &mut self,
        value: &Value<'_>,
        key: Key<'_>,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(value, key);
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

    pub fn duration(&mut self, value: &Value<'_>, key: Key<'_>) -> Option<Duration> {
        if let DeValue::Integer(number) = value.get_ref() {
            let reason = format!("{number} has no unit");
            self.bad_value(value, key, &reason);
            return None;
        }
        self.parsed(value, key, duration::parse)
    }

    /// The entries of a list.
    pub fn list<'v, 'i>(&mut self, value: &'v Value<'i>, key: Key<'_>) -> Option<&'v [Value<'i>]> {
        match value.get_ref() {
            DeValue::Array(items) => Some(items),
            _other => {
                self.wrong_type(value, key);
                None
            }
        }
    }

    /// Every entry of a list, read by `read`; `None` when one of them was refused.
    pub fn each<'i, T>(
        &mut self,
        value: &Value<'i>,
        key: Key<'_>,
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

/// What a value is, in words.
const fn kind(value: &DeValue<'_>) -> &'static str {
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
