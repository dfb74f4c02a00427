//! What keepalived does before it reads words: includes, conditional lines, parameters, generators.
//!
//! ```text
//!   file ─► logical lines ─► @id ─► $NAME= ─► ~SEQ ~LST ─► lines of $NAME ─► ${NAME} ─► include, words
//!                             ▲                   │              │
//!                             └───────────────────┴──────────────┘ each line that comes of one
//! ```
//!
//! Whatever a file asks for, a load ends: files, depths, words and the work of a load have limits.

use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::glob;
use crate::keepalived::generators::{self, Generator, Invalid};
use crate::keepalived::lexer::{Glyph, Token, tokens};
use crate::keepalived::lowering::LINE_IGNORED;
use crate::keepalived::parameters::{MAX_NESTING, Parameters, split, trimmed, uncommented, whole};
use crate::source::{self, Source, SourceError, Unread};
use crate::span::{Report, Span};

/// Includes inside includes.
const MAX_DEPTH: usize = 16;

/// Files of one configuration.
const MAX_FILES: usize = 4096;

/// Octets of all files of one configuration; it bounds the memory of a load.
const MAX_TOTAL: usize = 64 << 20;

/// Characters of one logical line.
const MAX_LINE: usize = 1 << 20;

/// Words and braces of a configuration. One of 65,024 instances has two million.
const MAX_TOKENS: usize = 6_000_000;

/// Characters that the lines are, before and after their parameters: one of 65,024 instances has
/// some fifty million.
const MAX_WORK: usize = 200_000_000;

/// What a round of a generator costs, in characters of a line.
const ROUND: usize = 64;

/// Reads files into one stream of tokens.
pub(super) struct Lines<'s, 'r> {
    source: &'s dyn Source,
    report: &'r mut Report,
    digest: &'r mut Sha256,
    /// What `@id` lines are compared with.
    config_id: &'s str,
    pub tokens: Vec<Token>,
    parameters: Parameters<'s>,
    total: usize,
    work: usize,
    /// A limit was reached, and it has been reported: nothing more is read.
    is_over: bool,
    /// The file that is read, and those that include it.
    open: Vec<String>,
}

impl<'s, 'r> Lines<'s, 'r> {
    pub fn new(
        source: &'s dyn Source,
        report: &'r mut Report,
        digest: &'r mut Sha256,
        context: &Context<'s>,
    ) -> Self {
        Self {
            source,
            report,
            digest,
            config_id: context.config_id(),
            tokens: Vec::new(),
            parameters: Parameters::new(context),
            total: 0,
            work: 0,
            is_over: false,
            open: Vec::new(),
        }
    }

    /// Takes in one file and what it includes.
    pub fn file(&mut self, path: &str, octets: &[u8]) {
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
        self.open.push(path.to_owned());
        for line in LogicalLines::new(&glyph_text, file) {
            if line.len() > MAX_LINE {
                let text = format!("the line has more than {MAX_LINE} characters");
                self.report.error(line[0].span, "line-too-long", text);
                continue;
            }
            self.line(&line, 0);
            if self.is_over {
                break;
            }
        }
        self.open.pop();
    }

    /// The directory of the file that is read.
    fn directory(&self) -> &str {
        let path = self.open.last().map_or("", String::as_str);
        path.rfind('/').map_or("", |at| &path[..at.max(1)])
    }

    /// `nesting` counts the generators and parameters that this line came of.
    fn line(&mut self, line: &[Glyph], nesting: usize) {
        let line = trimmed(line);
        if self.exceeds(line) {
            return;
        }
        let Some(line) = self.condition(line) else { return };
        if line.is_empty() || self.parameters.take_definition(line) {
            return;
        }
        if nesting > MAX_NESTING {
            // Each of its lines would come to the same.
            self.stop();
            return self.endless(line);
        }
        match generators::written(line) {
            Some(Ok(written)) => return self.generate(line, &written, nesting),
            Some(Err(invalid)) => return self.invalid(line, invalid),
            None => {}
        }
        if let Some(lines) = self.parameters.lines_of(line) {
            for line in lines {
                self.line(&line, nesting + 1);
                if self.is_over {
                    return;
                }
            }
            return;
        }
        let Ok(expanded) = self.parameters.expand(line, self.directory()) else {
            return self.endless(line);
        };
        self.work += expanded.len();
        let comes_of_one = |glyph: &Glyph| glyph.character == '\n';
        if expanded.iter().any(comes_of_one) {
            split(&expanded).iter().for_each(|line| self.line(line, nesting + 1));
        } else if generators::written(&expanded).is_some() {
            self.line(&expanded, nesting + 1);
        } else {
            self.words(&expanded);
        }
    }

    fn words(&mut self, line: &[Glyph]) {
        let found = tokens(line);
        match found.first() {
            Some(Token::Word(word)) if is_include(&word.text) => {
                let keyword = word.text.clone();
                let after = line.iter().skip_while(|glyph| !glyph.character.is_whitespace());
                let pattern: Vec<Glyph> = after.copied().collect();
                self.include(&keyword, trimmed(uncommented(&pattern)), word.span);
            }
            Some(Token::Word(word)) if word.text == "random_seed" => {
                if let Some(Token::Word(seed)) = found.get(1)
                    && let Ok(seed) = seed.text.parse()
                {
                    self.parameters.seed(seed);
                }
                self.tokens.extend(found);
            }
            Some(_) | None => self.tokens.extend(found),
        }
    }

    /// Reads the rest of the line once for each round of the generator.
    fn generate(&mut self, line: &[Glyph], written: &generators::Written, nesting: usize) {
        let Ok(arguments) = self.parameters.expand(&written.arguments, self.directory()) else {
            return self.endless(line);
        };
        let generator = match Generator::read(&written.keyword, &arguments) {
            Ok(generator) => generator,
            Err(invalid) => return self.invalid(&line[..written.length], invalid),
        };
        let span = whole(&line[..written.length]);
        let rest = &line[written.length..];
        for index in 0..generator.rounds() {
            self.work += ROUND;
            for (name, value) in generator.round(index) {
                let glyph = |character| Glyph { character, span, literal: false };
                self.parameters.define(name, value.chars().map(glyph).collect::<Vec<_>>());
            }
            self.line(rest, nesting + 1);
            if self.is_over {
                return;
            }
        }
    }

    fn invalid(&mut self, line: &[Glyph], Invalid(reason): Invalid) {
        self.report.forgiven(whole(line), "bad-generator", reason, LINE_IGNORED);
    }

    fn endless(&mut self, line: &[Glyph]) {
        let text = "the parameters of this line expand without end";
        self.report.error(whole(line), "parameter-expansion", text);
    }

    /// Counts the line; true when it is too much.
    fn exceeds(&mut self, line: &[Glyph]) -> bool {
        // One more for each line, so that empty ones come to an end too.
        self.work += line.len() + 1;
        if self.tokens.len() < MAX_TOKENS && self.work < MAX_WORK {
            return false;
        }
        let text = format!("the configuration comes to more than {MAX_TOKENS} words");
        self.report
            .error(whole(line), "too-much", text)
            .help("do ~SEQ, ~LST or parameters multiply more than was meant?");
        self.stop();
        true
    }

    /// Reads nothing more. What was read so far would only be complained of.
    fn stop(&mut self) {
        self.is_over = true;
        self.tokens = Vec::new();
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

    fn include(&mut self, keyword: &str, pattern: &[Glyph], keyword_span: Span) {
        let span = if pattern.is_empty() { keyword_span } else { whole(pattern) };
        let text: String = pattern.iter().map(|glyph| glyph.character).collect();
        let text = text.trim_matches(['"', '\'']);
        if text.is_empty() {
            let message = "`include` needs a file name";
            self.report.forgiven(span, "missing-argument", message, "nothing is included");
            return;
        }
        if self.open.len() > MAX_DEPTH {
            let message = format!("includes nest deeper than {MAX_DEPTH}");
            self.report.error(span, "include-depth", message);
            return;
        }
        let directory = self.directory();
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
                is_complete &= self.included(&path, demand, span);
            }
        }
        if !is_complete && demand.brace && text.contains('{') {
            let message = format!("not all files of `{text}` are there");
            self.report.error(span, "include-empty", message);
        }
    }

    /// False when there is no such file.
    fn included(&mut self, path: &str, demand: Demand, span: Span) -> bool {
        if self.open.iter().any(|open| open == path) {
            let message = format!("`{path}` includes itself");
            self.report.error(span, "include-depth", message);
            return true;
        }
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
                self.file(path, &octets);
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
        // What is too long is cut, and seen to be by whoever asked for the line.
        for (offset, character) in
            code.char_indices().take(MAX_LINE + 1 - glyphs.len().min(MAX_LINE))
        {
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
