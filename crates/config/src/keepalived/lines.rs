//! What keepalived does before it reads words: includes, conditional lines, parameters.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::glob;
use crate::keepalived::lexer::{Glyph, Token, tokens};
use crate::source::{self, Source, SourceError, Unread};
use crate::span::{Report, Span};

/// Includes inside includes.
const MAX_DEPTH: usize = 16;

/// Files of one configuration.
const MAX_FILES: usize = 4096;

/// Octets of all files of one configuration; it bounds the memory of a load.
const MAX_TOTAL: usize = 64 << 20;

/// Characters one line may grow to by its parameters, and how deep they may nest.
const MAX_EXPANSION: usize = 64 << 10;
const MAX_NESTING: usize = 16;

/// Reads files into one stream of tokens.
pub(super) struct Lines<'s, 'r> {
    pub source: &'s dyn Source,
    pub report: &'r mut Report,
    pub digest: &'r mut Sha256,
    /// What `@id` lines are compared with.
    pub config_id: &'s str,
    pub tokens: Vec<Token>,
    parameters: HashMap<String, Vec<Glyph>>,
    total: usize,
}

impl<'s, 'r> Lines<'s, 'r> {
    pub fn new(
        source: &'s dyn Source,
        report: &'r mut Report,
        digest: &'r mut Sha256,
        config_id: &'s str,
    ) -> Self {
        Self {
            source,
            report,
            digest,
            config_id,
            tokens: Vec::new(),
            parameters: HashMap::new(),
            total: 0,
        }
    }

    /// Takes in one file and what it includes.
    pub fn file(&mut self, path: &str, octets: &[u8], depth: usize) {
        self.digest.update(octets);
        self.total += octets.len();
        let text = String::from_utf8_lossy(octets).into_owned();
        // White space of the same length, so that positions stay true.
        let glyph_text = match text.strip_prefix(source::BYTE_ORDER_MARK) {
            Some(rest) => format!("{:1$}{rest}", "", source::BYTE_ORDER_MARK.len_utf8()),
            None => text.clone(),
        };
        let file = self.report.add_file(path, text);
        if let Err(error) = std::str::from_utf8(octets) {
            let start = error.valid_up_to() as u32;
            let span = Span { file, start, end: start + 1 };
            self.report
                .warning(span, "not-utf8", "the text is not UTF-8 from here on")
                .help("harmless in a comment; a name or password will not be what it was");
        }
        for line in LogicalLines::new(&glyph_text, file) {
            self.line(path, &line, depth);
        }
    }

    fn line(&mut self, path: &str, line: &[Glyph], depth: usize) {
        let line = trimmed(line);
        let Some(line) = self.condition(line) else { return };
        if self.definition(line) {
            return;
        }
        let mut expanded = Vec::new();
        if !self.expand(line, 0, &mut expanded) {
            let span = whole(line);
            let text = "the parameters of this line expand without end";
            self.report.error(span, "parameter-expansion", text);
            return;
        }
        if let Some(first) = generator(&expanded) {
            let text = "~SEQ and ~LST are not supported yet";
            self.report.error(first, "unsupported", text).help("write the lines out");
            return;
        }
        let found = tokens(&expanded);
        match found.first() {
            Some(Token::Word(word)) if is_include(&word.text) => {
                let keyword = word.text.clone();
                let after = expanded.iter().skip_while(|glyph| !glyph.character.is_whitespace());
                let pattern: Vec<Glyph> = after.copied().collect();
                self.include(path, &keyword, trimmed(uncommented(&pattern)), word.span, depth);
            }
            Some(_) | None => self.tokens.extend(found),
        }
    }

    /// `@id rest` and `@^id rest`: the rest, when the line is for us.
    fn condition<'l>(&mut self, line: &'l [Glyph]) -> Option<&'l [Glyph]> {
        if line.first().is_none_or(|glyph| glyph.character != '@') {
            return Some(line);
        }
        let end = line.iter().position(|glyph| glyph.character.is_whitespace());
        let (head, rest) = line.split_at(end.unwrap_or(line.len()));
        let text: String = head.iter().skip(1).map(|glyph| glyph.character).collect();
        let keep = match text.strip_prefix('^') {
            Some(other) => other != self.config_id,
            None => text == self.config_id,
        };
        keep.then(|| trimmed(rest))
    }

    /// `$NAME=value`. The value is kept as it is written and expanded where it is used.
    fn definition(&mut self, line: &[Glyph]) -> bool {
        if line.first().is_none_or(|glyph| glyph.character != '$') {
            return false;
        }
        let name: String =
            line.iter().skip(1).map(|glyph| glyph.character).take_while(is_name).collect();
        let after = trimmed(&line[1 + name.chars().count()..]);
        if name.is_empty() || after.first().is_none_or(|glyph| glyph.character != '=') {
            return false;
        }
        let value = trimmed(uncommented(&after[1..])).to_vec();
        self.parameters.insert(name, value);
        true
    }

    /// Replaces `${NAME}` and `$NAME`. Undefined ones stay as they are. False when it is too much.
    fn expand(&self, line: &[Glyph], nesting: usize, into: &mut Vec<Glyph>) -> bool {
        if nesting > MAX_NESTING {
            return false;
        }
        let mut rest = line;
        while let Some((first, after)) = rest.split_first() {
            if into.len() > MAX_EXPANSION {
                return false;
            }
            let Some((name, length)) = reference(rest) else {
                into.push(*first);
                rest = after;
                continue;
            };
            let span = whole(&rest[..length]);
            let begin = into.len();
            if let Some(character) = built_in(&name) {
                into.push(Glyph { character, span, literal: true });
            } else if let Some(value) = self.parameters.get(&name) {
                if !self.expand(value, nesting + 1, into) {
                    return false;
                }
                // The reader of a finding looks at the line that uses the value.
                into[begin..].iter_mut().for_each(|glyph| glyph.span = span);
            } else {
                into.extend_from_slice(&rest[..length]);
            }
            rest = &rest[length..];
        }
        true
    }

    fn include(
        &mut self,
        from: &str,
        keyword: &str,
        pattern: &[Glyph],
        keyword_span: Span,
        depth: usize,
    ) {
        let span = if pattern.is_empty() { keyword_span } else { whole(pattern) };
        let text: String = pattern.iter().map(|glyph| glyph.character).collect();
        let text = text.trim_matches(['"', '\'']);
        if text.is_empty() {
            let message = "`include` needs a file name";
            self.report.forgiven(span, "missing-argument", message, "nothing is included");
            return;
        }
        if depth >= MAX_DEPTH {
            let message =
                format!("includes nest deeper than {MAX_DEPTH}: does a file include itself?");
            self.report.error(span, "include-depth", message);
            return;
        }
        let directory = from.rfind('/').map_or("", |at| &from[..at.max(1)]);
        let path =
            if text.starts_with('/') { text.to_owned() } else { glob::join(directory, text) };
        let demand = Demand::of(keyword);
        let mut is_complete = true;
        for one in glob::braces(&path) {
            let paths = match glob::is_pattern(&one) {
                true => glob::expand(self.source, &one),
                false => vec![one],
            };
            if paths.is_empty() && demand.wildcard {
                let message = format!("no file matches `{text}`");
                self.report.error(span, "include-empty", message);
            }
            for path in paths {
                is_complete &= self.included(&path, demand, span, depth);
            }
        }
        if !is_complete && demand.brace && text.contains('{') {
            let message = format!("not all files of `{text}` are there");
            self.report.error(span, "include-empty", message);
        }
    }

    /// False when there is no such file.
    fn included(&mut self, path: &str, demand: Demand, span: Span, depth: usize) -> bool {
        if self.report.files.len() >= MAX_FILES || self.total >= MAX_TOTAL {
            let message = format!(
                "too much is included: at most {MAX_FILES} files and {} MiB",
                MAX_TOTAL >> 20
            );
            self.report.error(span, "include-limit", message);
            return true;
        }
        let unread = match source::read(self.source, path) {
            Ok(octets) => {
                self.file(path, &octets, depth + 1);
                self.tokens.push(Token::EndOfLine);
                return true;
            }
            Err(unread) => unread,
        };
        let text = format!("{path}: {unread}");
        let is_absent = unread == Unread::Missing(SourceError::NotFound);
        let is_demanded = match unread {
            Unread::Missing(SourceError::NotFound) => demand.literal,
            Unread::Missing(SourceError::Failed(_)) => demand.readable,
            Unread::Unusable(_) => true,
        };
        if is_demanded {
            self.report.error(span, "unreadable", text);
        } else {
            self.report.forgiven(span, "unreadable", text, "nothing is included");
        }
        !is_absent
    }
}

/// What must be there: keepalived passes over anything else.
#[derive(Clone, Copy, Default)]
struct Demand {
    /// Files that exist can be read.
    readable: bool,
    /// A file that is named exists.
    literal: bool,
    /// A pattern has a match.
    wildcard: bool,
    /// Each alternative in braces exists.
    brace: bool,
}

impl Demand {
    fn of(keyword: &str) -> Self {
        let none = Self::default();
        match keyword {
            "includer" => Self { readable: true, ..none },
            "includem" => Self { literal: true, ..none },
            "includew" => Self { wildcard: true, ..none },
            "includeb" => Self { brace: true, ..none },
            "includea" => Self { readable: true, literal: true, wildcard: true, brace: true },
            _include => none,
        }
    }
}

/// The plain form forgives what is missing; the letters ask for more.
fn is_include(word: &str) -> bool {
    matches!(word, "include" | "includer" | "includem" | "includew" | "includeb" | "includea")
}

const fn is_name(character: &char) -> bool {
    character.is_ascii_alphanumeric() || *character == '_'
}

/// A parameter reference at the beginning: its name, and how many glyphs it takes.
fn reference(glyphs: &[Glyph]) -> Option<(String, usize)> {
    let mut characters = glyphs.iter().map(|glyph| glyph.character);
    if characters.next()? != '$' {
        return None;
    }
    let braced = glyphs.get(1)?.character == '{';
    let name: String = glyphs
        .iter()
        .skip(if braced { 2 } else { 1 })
        .map(|glyph| glyph.character)
        .take_while(is_name)
        .collect();
    let length = name.chars().count() + if braced { 3 } else { 1 };
    let closed = !braced || glyphs.get(length - 1).is_some_and(|glyph| glyph.character == '}');
    (!name.is_empty() && closed).then_some((name, length))
}

/// Characters that could not be written otherwise.
fn built_in(name: &str) -> Option<char> {
    match name {
        "_HASH" => Some('#'),
        "_BANG" => Some('!'),
        _ => None,
    }
}

fn generator(line: &[Glyph]) -> Option<Span> {
    line.windows(4).find_map(|four| {
        let letters = [four[0], four[1], four[2], four[3]].map(|glyph| glyph.character);
        matches!(letters, ['~', 'S', 'E', 'Q'] | ['~', 'L', 'S', 'T']).then(|| whole(four))
    })
}

fn whole(glyphs: &[Glyph]) -> Span {
    let none = Span { file: 0, start: 0, end: 0 };
    let first = glyphs.first().map_or(none, |glyph| glyph.span);
    glyphs.last().map_or(first, |last| first.to(last.span))
}

fn trimmed(glyphs: &[Glyph]) -> &[Glyph] {
    let blank = |glyph: &Glyph| glyph.character.is_whitespace();
    let start = glyphs.iter().position(|glyph| !blank(glyph)).unwrap_or(glyphs.len());
    let end = glyphs.iter().rposition(|glyph| !blank(glyph)).map_or(start, |last| last + 1);
    &glyphs[start..end]
}

/// What precedes a comment outside quotes.
fn uncommented(glyphs: &[Glyph]) -> &[Glyph] {
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

/// Lines of a file, a backslash at the end joining the next one; in a definition the line break
/// stays, because its value may be several lines. One at a time: glyphs are large.
struct LogicalLines<'t> {
    rest: &'t str,
    file: u32,
    at: u32,
}

impl<'t> LogicalLines<'t> {
    const fn new(text: &'t str, file: u32) -> Self {
        Self { rest: text, file, at: 0 }
    }

    /// Takes one physical line into `glyphs`; true when the next one belongs to it.
    fn take(&mut self, glyphs: &mut Vec<Glyph>) -> bool {
        let end = self.rest.find('\n').map_or(self.rest.len(), |found| found + 1);
        let (line, rest) = self.rest.split_at(end);
        let code = line.trim_end_matches(['\n', '\r']);
        let joined = code.ends_with('\\');
        let code = code.strip_suffix('\\').unwrap_or(code);
        let file = self.file;
        for (offset, character) in code.char_indices() {
            let start = self.at + offset as u32;
            let span = Span { file, start, end: start + character.len_utf8() as u32 };
            glyphs.push(Glyph { character, span, literal: false });
        }
        if joined {
            let span = Span { file, start: self.at, end: self.at };
            let first = trimmed(glyphs).first().map(|glyph| glyph.character);
            let character = if first == Some('$') { '\n' } else { ' ' };
            glyphs.push(Glyph { character, span, literal: false });
        }
        self.at += line.len() as u32;
        self.rest = rest;
        joined
    }
}

impl Iterator for LogicalLines<'_> {
    type Item = Vec<Glyph>;

    fn next(&mut self) -> Option<Vec<Glyph>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut glyphs = Vec::new();
        while !self.rest.is_empty() && self.take(&mut glyphs) {}
        Some(glyphs)
    }
}
