//! `$NAME=value` and what stands for it: `$NAME`, `${NAME}`, and the names that are built in.
//!
//! A value is kept as it is written and expanded where it is used, so a parameter in it has the
//! value that it has there.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::context::Context;
use crate::keepalived::lexer::Glyph;
use crate::span::Span;

/// Characters one line may grow to by its parameters, and how deep they may nest.
pub(super) const MAX_EXPANSION: usize = 64 << 10;
pub(super) const MAX_NESTING: usize = 16;

/// A line grew beyond all bounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Endless;

pub(super) struct Parameters<'c> {
    values: HashMap<String, Rc<[Glyph]>>,
    environment: &'c [(String, String)],
    config_id: &'c str,
    /// Of the next random number.
    random: Cell<u64>,
}

impl<'c> Parameters<'c> {
    pub fn new(context: &Context<'c>) -> Self {
        let mut parameters = Self {
            values: HashMap::new(),
            environment: context.environment,
            config_id: context.config_id(),
            random: Cell::new(0),
        };
        parameters.seed(context.seed);
        parameters
    }

    /// The same seed, the same numbers.
    pub fn seed(&mut self, seed: u64) {
        // A state of zero would stay zero.
        self.random.set(seed ^ 0x9e37_79b9_7f4a_7c15);
    }

    pub fn define(&mut self, name: String, value: impl Into<Rc<[Glyph]>>) {
        self.values.insert(name, value.into());
    }

    /// Whether the line is a definition, which is taken in.
    pub fn take_definition(&mut self, line: &[Glyph]) -> bool {
        if line.first().is_none_or(|glyph| glyph.character != '$') {
            return false;
        }
        let name: String = name_at(&line[1..]);
        let Some(after) = line.get(1 + name.len()..) else { return false };
        if name.is_empty() || after.first().is_none_or(|glyph| glyph.character != '=') {
            return false;
        }
        let value = &after[1..];
        let is_several = value.iter().any(|glyph| glyph.character == '\n');
        // Of several lines each loses its own comment, where it is used.
        let value = trimmed(if is_several { value } else { uncommented(value) });
        self.define(name, value);
        true
    }

    /// The lines that a line becomes by the first parameter in it with a value of several lines,
    /// not expanded yet.
    pub fn lines_of(&self, line: &[Glyph]) -> Option<Vec<Vec<Glyph>>> {
        let mut at = 0;
        while at < line.len() {
            let Some(reference) = reference(&line[at..]) else {
                at += 1;
                continue;
            };
            let value = self.values.get(&reference.name);
            let is_several = |value: &&Rc<[Glyph]>| value.iter().any(|one| one.character == '\n');
            if let Some(value) = value.filter(is_several) {
                let whole = [&line[..at], &value[..], &line[at + reference.length..]].concat();
                return Some(split(&whole));
            }
            at += reference.length;
        }
        None
    }

    /// Replaces every parameter; undefined ones stay as they are. `directory` is the file's.
    pub fn expand(&self, line: &[Glyph], directory: &str) -> Result<Vec<Glyph>, Endless> {
        let mut expanded = Vec::with_capacity(line.len());
        self.expand_into(line, directory, 0, &mut expanded)?;
        Ok(expanded)
    }

    fn expand_into(
        &self,
        line: &[Glyph],
        directory: &str,
        nesting: usize,
        into: &mut Vec<Glyph>,
    ) -> Result<(), Endless> {
        if nesting > MAX_NESTING {
            return Err(Endless);
        }
        let mut rest = line;
        while let Some((first, after)) = rest.split_first() {
            if into.len() > MAX_EXPANSION {
                return Err(Endless);
            }
            if first.character != '$' {
                into.push(*first);
                rest = after;
                continue;
            }
            let Some(reference) = reference(rest) else {
                into.push(*first);
                rest = after;
                continue;
            };
            let span = whole(&rest[..reference.length]);
            let begin = into.len();
            if let Some(text) = self.built_in(&reference, directory) {
                let literal = true;
                into.extend(text.chars().map(|character| Glyph { character, span, literal }));
            } else if let Some(value) = self.values.get(&reference.name) {
                self.expand_into(value, directory, nesting + 1, into)?;
                // The reader of a finding looks at the line that uses the value.
                into[begin..].iter_mut().for_each(|glyph| glyph.span = span);
            } else {
                into.extend_from_slice(&rest[..reference.length]);
            }
            rest = &rest[reference.length..];
        }
        Ok(())
    }

    fn built_in(&self, reference: &Reference, directory: &str) -> Option<String> {
        let mut words = reference.arguments.split_whitespace();
        match reference.name.as_str() {
            "_HASH" => Some("#".to_owned()),
            "_BANG" => Some("!".to_owned()),
            "_PWD" => Some(if directory.is_empty() { "." } else { directory }.to_owned()),
            "_INSTANCE" => Some(self.config_id.to_owned()),
            "_ENV" => {
                let name = words.next()?;
                let (_, value) = self.environment.iter().find(|(known, _)| known == name)?;
                Some(value.clone())
            }
            "_RANDOM" => {
                let mut number =
                    |default: u64| words.next().map_or(Some(default), |word| word.parse().ok());
                let (low, high) = (number(0)?, number(32_767)?);
                let width = high.checked_sub(low)?.checked_add(1)?;
                Some((low + self.next_random() % width).to_string())
            }
            _ => None,
        }
    }

    fn next_random(&self) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Where a parameter is used.
struct Reference {
    name: String,
    /// What follows the name inside the braces.
    arguments: String,
    /// Glyphs, with the dollar and the braces.
    length: usize,
}

/// The reference at the beginning of the glyphs.
fn reference(glyphs: &[Glyph]) -> Option<Reference> {
    if glyphs.first()?.character != '$' {
        return None;
    }
    let is_braced = glyphs.get(1)?.character == '{';
    let inner = &glyphs[if is_braced { 2 } else { 1 }..];
    let name = name_at(inner);
    if name.is_empty() {
        return None;
    }
    if !is_braced {
        // keepalived takes `$NAME` for a parameter only before white space.
        let after = inner.get(name.len()).map(|glyph| glyph.character);
        if after.is_some_and(|character| !character.is_whitespace()) {
            return None;
        }
        return Some(Reference { length: 1 + name.len(), name, arguments: String::new() });
    }
    let end = inner.iter().position(|glyph| matches!(glyph.character, '}' | '\n'))?;
    if inner[end].character != '}' {
        return None;
    }
    let arguments: String = inner[name.len()..end].iter().map(|glyph| glyph.character).collect();
    let takes_arguments = matches!(name.as_str(), "_ENV" | "_RANDOM");
    let fits = arguments.is_empty() || (takes_arguments && arguments.starts_with([' ', '\t']));
    fits.then_some(Reference { name, arguments, length: end + 3 })
}

/// The longest name that the glyphs begin with; its letters have one octet each.
pub(super) fn name_at(glyphs: &[Glyph]) -> String {
    let characters = glyphs.iter().map(|glyph| glyph.character);
    characters
        .take_while(|character| character.is_ascii_alphanumeric() || *character == '_')
        .collect()
}

/// At each line break.
pub(super) fn split(glyphs: &[Glyph]) -> Vec<Vec<Glyph>> {
    glyphs.split(|glyph| glyph.character == '\n').map(<[Glyph]>::to_vec).collect()
}

pub(super) fn whole(glyphs: &[Glyph]) -> Span {
    let first = glyphs.first().map_or(Span::default(), |glyph| glyph.span);
    glyphs.last().map_or(first, |last| first.to(last.span))
}

pub(super) fn trimmed(glyphs: &[Glyph]) -> &[Glyph] {
    let blank = |glyph: &Glyph| glyph.character.is_whitespace();
    let start = glyphs.iter().position(|glyph| !blank(glyph)).unwrap_or(glyphs.len());
    let end = glyphs.iter().rposition(|glyph| !blank(glyph)).map_or(start, |last| last + 1);
    &glyphs[start..end]
}

/// What precedes a comment outside quotes.
pub(super) fn uncommented(glyphs: &[Glyph]) -> &[Glyph] {
    let mut quote: Option<char> = None;
    for (at, glyph) in glyphs.iter().enumerate() {
        match (quote, glyph.character) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, c @ ('"' | '\'')) => quote = Some(c),
            (None, '#' | '!') if !glyph.literal => return &glyphs[..at],
            (None, _) => {}
        }
    }
    glyphs
}
