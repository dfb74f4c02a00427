//! What a value may be: its words for messages, its place in the JSON schema, and how it is read in
//! either language.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration;
use crate::keepalived::blocks::Statement;
use crate::keepalived::keywords::Shape;
use crate::keepalived::lowering::Lowering;
use crate::span::At;
use crate::toml::reader::{Key, Reader, Value};

/// A value of type `T`.
pub(crate) enum Form<T: 'static> {
    /// A whole number within the range; `make` cannot fail there.
    Whole { low: i64, high: i64, make: fn(i64) -> Option<T>, number: fn(&T) -> i64 },
    /// One of a few words.
    Words(&'static [(&'static str, T)]),
    /// Anything else.
    Read(ValueReading<T>),
}

/// Reads the first argument of a statement.
type Line<T> = fn(&mut Lowering<'_>, &Statement) -> Option<At<T>>;

/// A value with functions of its own.
pub(crate) struct ValueReading<T: 'static> {
    /// What to write, for messages: "must be …".
    pub shape: &'static str,
    pub schema: Schema,
    pub toml: fn(&mut Reader<'_>, &Value<'_>, Key<'_>) -> Option<T>,
    /// `None` where keepalived.conf has it in another way or not at all.
    pub line: Option<Line<T>>,
    /// As TOML, for defaults.
    pub spell: fn(&T) -> String,
}

/// The form of a value in JSON schema.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Schema {
    Whole(i64, i64),
    Boolean,
    Text,
    Duration,
    Words(Vec<&'static str>),
    /// The table of the noun with this name.
    Table(&'static str),
    List(&'static Schema),
    /// A table with keys of the operator's.
    ByName(&'static Schema),
    Any(&'static [Schema]),
}

impl<T: 'static> Form<T> {
    /// What to write, for messages: "must be …".
    pub fn shape(&self) -> String {
        match self {
            Self::Whole { low, high, .. } if high - low == 1 => format!("{low} or {high}"),
            Self::Whole { low, high, .. } => format!("a whole number from {low} to {high}"),
            Self::Words(words) => one_of(words.iter().map(|(word, _)| *word)),
            Self::Read(reading) => reading.shape.to_owned(),
        }
    }

    pub fn schema(&self) -> Schema {
        match self {
            Self::Whole { low, high, .. } => Schema::Whole(*low, *high),
            Self::Words(words) => Schema::Words(words.iter().map(|(word, _)| *word).collect()),
            Self::Read(reading) => reading.schema.clone(),
        }
    }

    /// What may follow the keyword in a keepalived.conf.
    pub fn words(&self) -> Shape {
        match self.schema() {
            Schema::Boolean => Shape::Line(0, 1),
            _ => Shape::Line(1, 1),
        }
    }

    /// The first argument of the statement.
    pub fn lower(&self, lowering: &mut Lowering<'_>, statement: &Statement) -> Option<At<T>> {
        match self {
            Self::Whole { low, high, make, .. } => {
                let word = statement.arguments().first()?;
                let number = lowering.number(word, *low..=*high)?;
                make(number.value).map(|value| At::new(value, number.span))
            }
            Self::Words(_) => None,
            Self::Read(reading) => (reading.line?)(lowering, statement),
        }
    }
}

impl<T: Clone + PartialEq + 'static> Form<T> {
    pub fn read(&self, reader: &mut Reader<'_>, value: &Value<'_>, key: Key<'_>) -> Option<T> {
        match self {
            Self::Whole { low, high, make, .. } => {
                reader.integer(value, key, *low..=*high).and_then(make)
            }
            Self::Words(words) => reader.word(value, key, words),
            Self::Read(reading) => (reading.toml)(reader, value, key),
        }
    }

    /// As TOML, for the manual.
    pub fn spell(&self, value: &T) -> String {
        match self {
            Self::Whole { number, .. } => number(value).to_string(),
            Self::Words(words) => {
                let found = words.iter().find(|(_, meaning)| meaning == value);
                found.map_or_else(String::new, |(word, _)| format!("\"{word}\""))
            }
            Self::Read(reading) => (reading.spell)(value),
        }
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
fn one_of(words: impl Iterator<Item = &'static str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}

/// A number of octets, hops or repeats.
pub(crate) const fn octet(range: RangeInclusive<u8>) -> Form<u8> {
    Form::Whole {
        low: *range.start() as i64,
        high: *range.end() as i64,
        make: |number| u8::try_from(number).ok(),
        number: |octet| i64::from(*octet),
    }
}

/// A number that fits `u16`, up to the most of it.
pub(crate) const fn whole_u16(low: u16) -> Form<u16> {
    Form::Whole {
        low: low as i64,
        high: u16::MAX as i64,
        make: |number| u16::try_from(number).ok(),
        number: |number| i64::from(*number),
    }
}

/// A number that fits `u32`.
pub(crate) const fn whole(low: u32, high: u32) -> Form<u32> {
    Form::Whole {
        low: low as i64,
        high: high as i64,
        make: |number| u32::try_from(number).ok(),
        number: |number| i64::from(*number),
    }
}

/// Runs of a check in a row, at least one: the end is far above any sense, far below an overflow.
pub(crate) const COUNT: Form<u32> = whole(1, 1_000_000);

pub(crate) const SWITCH: Form<bool> = Form::Read(ValueReading {
    shape: "true or false",
    schema: Schema::Boolean,
    toml: |reader, value, key| reader.boolean(value, key),
    line: Some(|lowering, statement| lowering.switch(statement)),
    spell: |value| value.to_string(),
});

pub(crate) const TIME: Form<Duration> = Form::Read(ValueReading {
    shape: "a duration in quotes with a unit, as in \"1s\"",
    schema: Schema::Duration,
    toml: |reader, value, key| reader.duration(value, key),
    line: Some(|lowering, statement| lowering.first_seconds(statement)),
    spell: |value| format!("\"{}\"", duration::spell(*value)),
});

pub(crate) const TEXT_SHAPE: &str = "text in quotes";

/// Text that is taken as it is.
pub(crate) const fn text(shape: &'static str) -> Form<String> {
    Form::Read(ValueReading {
        shape,
        schema: Schema::Text,
        toml: |reader, value, key| reader.text(value, key),
        line: Some(|_, statement| {
            let word = statement.arguments().first()?;
            Some(At::new(word.text.clone(), word.span))
        }),
        spell: |value| format!("\"{value}\""),
    })
}

pub(crate) const TEXT: Form<String> = text(TEXT_SHAPE);

pub(crate) const fn ip_address(shape: &'static str) -> Form<IpAddr> {
    Form::Read(ValueReading {
        shape,
        schema: Schema::Text,
        toml: |reader, value, key| {
            reader.parsed(value, key, |text| {
                text.parse().map_err(|_| format!("`{text}` is not an IP address"))
            })
        },
        line: Some(|lowering, statement| {
            let word = statement.arguments().first()?;
            lowering.ip_address(word)
        }),
        spell: |value| format!("\"{value}\""),
    })
}

/// A value of TOML alone.
pub(crate) const fn toml_only<T: 'static>(
    shape: &'static str,
    schema: Schema,
    toml: fn(&mut Reader<'_>, &Value<'_>, Key<'_>) -> Option<T>,
    spell: fn(&T) -> String,
) -> Form<T> {
    Form::Read(ValueReading { shape, schema, toml, line: None, spell })
}

/// A list; its default is empty wherever it has one.
pub(crate) const fn list<T: 'static>(
    shape: &'static str,
    schema: Schema,
    toml: fn(&mut Reader<'_>, &Value<'_>, Key<'_>) -> Option<Vec<T>>,
) -> Form<Vec<T>> {
    toml_only(shape, schema, toml, |_| "[]".to_owned())
}
